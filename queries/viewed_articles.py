"""Add up the page views of many hours, and give those of redirects to the articles they lead to."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

import duckdb
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.database import database, register_files
from queries.redirects import follow_redirects
from queries.wikipedia_tables import table_files

_BATCH_ROWS = 128 * 1024


def known_pages(workspace: str) -> list[str]:
    """Return the files with the pages of a counted dump."""
    return table_files(workspace, "pages")


def write_views(
    parts: Sequence[str], pages: Sequence[str] | None, output: str, counters: Counter[str]
) -> tuple[int, int]:
    """Add up `parts` of PAGE_VIEWS into `output`, most viewed first; return titles and views.

    Args:
        pages: files of WIKIPEDIA_PAGES; with them only articles and what leads to them count.
        counters: given what became of titles that are no articles.

    Raises:
        InputError: if nothing is left.
    """
    with database() as connection:
        register_files(connection, "parts", parts, schemas.PAGE_VIEWS)
        connection.execute(
            "CREATE TEMP TABLE seen AS SELECT title, CAST(sum(views) AS BIGINT) AS views FROM parts GROUP BY title"
        )
        if pages is not None:
            register_files(connection, "pages", pages, schemas.WIKIPEDIA_PAGES)
            follow_redirects(connection)
            _resolve(connection, counters)
        titles, views = connection.execute(
            "SELECT count(*), CAST(coalesce(sum(views), 0) AS BIGINT) FROM seen"
        ).fetchall()[0]
        if not titles:
            raise InputError("no article was viewed in these files; check what they are")
        rows = connection.sql("SELECT title, views FROM seen ORDER BY views DESC, title")
        with ExitStack() as stack:
            file = stack.enter_context(storage.atomic_output(output))
            writer = pq.ParquetWriter(file, schemas.PAGE_VIEWS, compression="zstd")
            stack.enter_context(writer)
            for batch in rows.to_arrow_reader(_BATCH_ROWS):
                writer.write_batch(batch.cast(schemas.PAGE_VIEWS))
    return int(titles), int(views)


def _resolve(connection: duckdb.DuckDBPyConnection, counters: Counter[str]) -> None:
    connection.execute(
        "CREATE TEMP TABLE placed AS SELECT seen.title, seen.views, "
        "CASE WHEN pages.title IS NULL THEN NULL ELSE coalesce(leads.article, pages.title) END AS article, "
        "pages.title IS NULL AS unknown, pages.redirect_to IS NOT NULL AS redirected, "
        "pages.redirect_to IS NOT NULL AND leads.title IS NULL AS lost "
        "FROM seen LEFT JOIN pages USING (title) LEFT JOIN leads USING (title)"
    )
    figures = connection.execute(
        "SELECT count(*) FILTER (unknown), count(*) FILTER (redirected AND NOT lost), count(*) FILTER (lost) "
        "FROM placed"
    ).fetchall()[0]
    counters.update(dict(zip(("unknown", "redirects", "lost_redirects"), figures, strict=True)))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE seen AS SELECT article AS title, CAST(sum(views) AS BIGINT) AS views "
        "FROM placed WHERE NOT unknown AND NOT lost GROUP BY article"
    )
