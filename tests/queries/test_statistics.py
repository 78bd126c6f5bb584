from collections import Counter
from itertools import combinations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from queries.presets import SOURCES
from queries.statistics import describe, overlap_counts, source_counts

GIVEN = st.lists(st.sets(st.sampled_from(SOURCES), min_size=1), min_size=1, max_size=20)


def table(sources: list[list[str]], counts: list[int | None] | None = None) -> pa.Table:
    rows = [
        {"query_id": i, "query": f"q{i} x", "source": named[0], "sources": named, "count": count}
        for i, (named, count) in enumerate(
            zip(sources, counts or [None] * len(sources), strict=True)
        )
    ]
    return pa.Table.from_pylist(rows, schemas.QUERIES)


@given(GIVEN)
def test_sources_are_counted_as_a_plain_loop_counts_them(given_sets: list[set[str]]) -> None:
    sources = [sorted(named) for named in given_sets]
    queries = table(sources)
    first = Counter(named[0] for named in sources)
    every = Counter(name for named in sources for name in named)
    assert source_counts(queries) == {name: (first[name], every[name]) for name in every}
    assert overlap_counts(queries) == Counter(
        pair for named in sources for pair in combinations(named, 2)
    )


def test_the_figures_stand_beside_the_published_ones() -> None:
    text = describe(table([["wordnet", "unigram"], ["unigram"], ["title"]], [7, 9, None]))
    lines = text.splitlines()
    assert "unigram            1         2   251,465" in lines
    assert "all                3             500,000" in lines
    assert ["unigram", "and", "wordnet", "1"] in [line.split() for line in lines]
    assert ["2", "3", "100.0%"] in [line.split() for line in lines]
    assert "  most   q1 x (9), q0 x (7)" in lines
    assert "count: 2 queries have it" in lines


def test_a_list_of_ones_own_has_figures_too() -> None:
    assert "user" in describe(table([["user"], ["user"]]))
