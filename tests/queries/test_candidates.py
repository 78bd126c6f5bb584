import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from queries.candidates import candidates


def test_those_that_reach_the_floors_are_ranked_by_the_order_and_then_by_text() -> None:
    rows = {"query": ["b", "a", "c", "d"], "count": [2, 2, 3, 1], "pmi": [1.0, 1.0, 1.0, 2.0]}
    table = candidates("bigram", rows, order=[("pmi", "descending"), ("count", "descending")])
    assert table["query"].to_pylist() == ["d", "c", "a", "b"]
    assert table["rank"].to_pylist() == [1, 2, 3, 4]


def test_those_that_miss_a_floor_follow_without_a_rank() -> None:
    rows = {"query": ["b", "a", "c"], "count": [9, 1, 2], "missed": ["word_count", "word_count", None]}  # fmt: skip
    table = candidates("unigram", rows, order=[("count", "descending")])
    assert table.select(["query", "rank", "missed"]).to_pylist() == [
        {"query": "c", "rank": 1, "missed": None},
        {"query": "a", "rank": None, "missed": "word_count"},
        {"query": "b", "rank": None, "missed": "word_count"},
    ]


def test_figures_that_a_source_does_not_know_are_null() -> None:
    table = candidates("wordnet", {"query": pa.array(["b", "a"])})
    assert table.schema.equals(schemas.QUERY_CANDIDATES)
    assert table["query"].to_pylist() == ["a", "b"]
    assert table["count"].null_count == table["views"].null_count == 2


def test_no_rows_still_make_a_table_with_the_columns() -> None:
    empty = candidates("title", {"query": pa.array([], pa.string())})
    assert empty.schema.equals(schemas.QUERY_CANDIDATES)


@given(st.lists(st.text(st.characters(codec="utf-8")), unique=True))
def test_texts_are_ordered_as_python_orders_them(texts: list[str]) -> None:
    table = candidates("wordnet", {"query": pa.array(texts, pa.string())})
    assert table["query"].to_pylist() == sorted(texts)
