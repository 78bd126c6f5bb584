"""Where redirects lead, through chains of them and never in a circle."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

# Each round doubles the length of the chains that are followed to their end.
_ROUNDS = 5
LONGEST_CHAIN = 2**_ROUNDS


def follow_redirects(connection: "duckdb.DuckDBPyConnection") -> None:
    """Make the table `leads` (title, article) from the view `pages` of WIKIPEDIA_PAGES.

    A redirect that ends at no article is left out: it points at nothing, runs in a circle, or takes
    more than LONGEST_CHAIN steps.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE leads AS "
        "SELECT title, redirect_to AS article FROM pages WHERE redirect_to IS NOT NULL"
    )
    for _ in range(_ROUNDS):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE leads AS "
            "SELECT a.title, coalesce(b.article, a.article) AS article "
            "FROM leads AS a LEFT JOIN leads AS b ON a.article = b.title"
        )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE leads AS SELECT title, article FROM leads "
        "WHERE article IN (SELECT title FROM pages WHERE redirect_to IS NULL)"
    )
