import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.errors import InputError
from queries import union as union_module
from queries.candidates import candidates
from queries.database import database
from queries.union import FILLER, RECORD_KEY, make_list, register_candidates, write_record
from tests.reference.query_union import Candidate, union_reference

SOURCES = ["user", "wordnet", "unigram", "title", "bigram"]

FIGURES = st.fixed_dictionaries(
    {"count": st.none() | st.integers(0, 9), "views": st.none() | st.integers(0, 9)}
)
CANDIDATES = st.dictionaries(st.sampled_from("abcdefgh"), FIGURES)


def source_table(source: str, rows: list[Candidate]) -> pa.Table:
    columns = {
        "query": pa.array([row["query"] for row in rows], pa.string()),
        "count": pa.array([row.get("count") for row in rows], pa.int64()),
        "views": pa.array([row.get("views") for row in rows], pa.int64()),
        "missed": pa.array([row.get("missed") for row in rows], pa.string()),
        "place": pa.array(range(len(rows)), pa.int64()),
    }
    return candidates(source, columns, order=[("place", "ascending")])


def union(sources: list[tuple[str, list[Candidate]]], size: int) -> list[Candidate]:
    with database() as connection:
        register_candidates(connection, [source_table(name, rows) for name, rows in sources])
        rows: list[Candidate] = make_list(connection, size=size).to_pylist()
    return rows


def words(*queries: str) -> list[Candidate]:
    return [{"query": query} for query in queries]


@given(st.lists(CANDIDATES, min_size=5, max_size=5), st.permutations(SOURCES), st.integers(1, 10))
def test_the_union_is_what_a_plain_loop_makes_of_it(
    given_rows: list[dict[str, dict[str, int | None]]], priority: list[str], size: int
) -> None:
    sources = [
        (source, [{"query": query, **figures} for query, figures in rows.items()])
        for source, rows in zip(priority, given_rows, strict=True)
    ]
    expected = union_reference(sources, size=size, filler=FILLER)
    if expected is None:
        with pytest.raises(InputError, match=f"queries, expected {size}; set a lower size"):
            union(sources, size)
    else:
        assert union(sources, size) == expected


def test_a_query_of_several_sources_names_all_and_takes_each_figure_from_the_first_that_has_it() -> (
    None
):
    wordnet = words("dog", "run")
    unigram = [{"query": "dog", "count": 9}, {"query": "the", "count": 99}]
    title = [{"query": "dog", "count": 1, "views": 70}]
    rows = union([("wordnet", wordnet), ("unigram", unigram), ("title", title)], 3)
    assert [row["query"] for row in rows] == ["dog", "run", "the"]
    assert rows[0]["sources"] == ["wordnet", "unigram", "title"]
    assert rows[0]["source"] == "wordnet"
    assert (rows[0]["count"], rows[0]["views"], rows[0]["pmi"]) == (9, 70, None)


def test_titles_give_way_wherever_they_stand() -> None:
    title, wordnet = words("eiffel tower", "big ben", "dog"), words("dog", "cat")
    rows = union([("title", title), ("wordnet", wordnet)], 3)
    assert [(row["query"], row["source"]) for row in rows] == [
        ("eiffel tower", "title"), ("dog", "title"), ("cat", "wordnet"),
    ]  # fmt: skip


def test_where_the_others_are_too_many_the_last_of_them_leave() -> None:
    rows = union([("unigram", words("a", "b")), ("title", words("t")), ("wordnet", words("c"))], 2)
    assert [row["query"] for row in rows] == ["a", "b"]


def test_what_misses_a_floor_gives_nothing() -> None:
    unigram = [{"query": "dog", "count": 9, "missed": "word_count"}]
    (row,) = union([("wordnet", words("dog")), ("unigram", unigram)], 1)
    assert row["sources"] == ["wordnet"]
    assert row["count"] is None


@pytest.mark.parametrize("rows_to_sort", [1, 2, 100])
def test_the_record_holds_every_candidate_of_every_source_and_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_to_sort: int
) -> None:
    monkeypatch.setattr(union_module, "_ROWS_TO_SORT", rows_to_sort)
    path = str(tmp_path / "list.candidates.parquet")
    unigram = [{"query": "dog", "count": 1, "missed": "word_count"}, {"query": "cat", "count": 9}]
    sources = [("unigram", unigram), ("title", words("dog", "hot dog", "big ben"))]
    with database() as connection:
        register_candidates(connection, [source_table(name, rows) for name, rows in sources])
        make_list(connection, size=2)
        write_record(connection, path, {"size": 2})
    table = schemas.check(pq.read_table(path), schemas.QUERY_RECORD, source=path)
    kept = table.select(["query", "source", "rank", "missed", "query_id"])
    assert [tuple(row.values()) for row in kept.to_pylist()] == [
        ("big ben", "title", 3, None, None),
        ("cat", "unigram", 1, None, 0),
        ("dog", "unigram", None, "word_count", 1),
        ("dog", "title", 1, None, 1),
        ("hot dog", "title", 2, None, None),
    ]
    about = json.loads(pq.read_schema(path).metadata[RECORD_KEY])
    assert about == {"size": 2, "last_rank": {"unigram": 1, "title": 1}}
