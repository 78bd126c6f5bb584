import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.database import database
from queries.redirects import LONGEST_CHAIN, follow_redirects
from tests.reference.query_union import follow_reference

PAGES = pa.schema([("title", pa.string()), ("redirect_to", pa.string())])


def leads(pages: dict[str, str | None]) -> dict[str, str]:
    rows = [{"title": title, "redirect_to": target} for title, target in pages.items()]
    with database() as connection:
        connection.register("pages", pa.Table.from_pylist(rows, PAGES))
        follow_redirects(connection)
        return dict(connection.execute("SELECT title, article FROM leads").fetchall())


@given(st.dictionaries(st.sampled_from("abcdef"), st.none() | st.sampled_from("abcdefg")))
def test_redirects_lead_where_following_them_step_by_step_leads(
    pages: dict[str, str | None],
) -> None:
    redirects = {title: target for title, target in pages.items() if target is not None}
    articles = {title for title, target in pages.items() if target is None}
    assert leads(pages) == follow_reference(redirects, articles, LONGEST_CHAIN)


@pytest.mark.parametrize("length", [1, 2, 31, 32])
def test_a_chain_is_followed_to_its_end(length: int) -> None:
    chain = {f"r{i}": f"r{i + 1}" for i in range(length)}
    assert leads(chain | {f"r{length}": None})["r0"] == f"r{length}"


def test_a_longer_chain_leads_nowhere() -> None:
    chain: dict[str, str | None] = {f"r{i}": f"r{i + 1}" for i in range(LONGEST_CHAIN + 1)}
    found = leads(chain | {f"r{LONGEST_CHAIN + 1}": None})
    assert "r0" not in found
    assert "r1" in found


def test_a_circle_leads_nowhere() -> None:
    assert leads({"a": "b", "b": "a", "c": "a", "d": "d", "e": "f", "f": None}) == {"e": "f"}
