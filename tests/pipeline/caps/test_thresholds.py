from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import balance, schemas
from pipeline.balance import BalanceConfig
from pipeline.caps import thresholds
from pipeline.caps.balance_sources import Source
from pipeline.caps.priorities import Thresholds
from pipeline.caps.thresholds import find_thresholds, ranked, split_queries
from pipeline.runtime import storage
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.stage import begin
from tests.pipeline.balancing import QUERIES, caption_table, make_crawl, skewed_pairs, split
from tests.reference.balancing import Pairs, selection

keys = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), st.integers(0, 40))


@given(rows=st.lists(keys, max_size=30, unique=True), rank=st.integers(-1, 6))
def test_the_candidate_of_a_rank_is_found_among_equal_ones(
    rows: list[tuple[int, int, int, int]], rank: int
) -> None:
    columns = zip(*rows, strict=True) if rows else [[]] * 4
    kinds = {
        "query_id": pa.int32(),
        "priority": pa.uint64(),
        "high": pa.uint64(),
        "low": pa.uint64(),
    }
    table = pa.table(
        {
            name: pa.array(list(column), kind)
            for (name, kind), column in zip(kinds.items(), columns, strict=True)
        }
    )
    found = ranked(table, np.full(4, rank))
    expected = []
    for query in range(4):
        of_query = sorted(row for row in rows if row[0] == query)
        expected += of_query[rank - 1 : rank] if rank >= 1 else []
    assert [tuple(row.values()) for row in found.to_pylist()] == expected


def search(folder: Path, pairs: Pairs, cap: int, sigmas: float) -> tuple[Thresholds, int]:
    """Return the thresholds, and how many searches they took."""
    workspace = make_crawl(folder, split(pairs, 3))
    stage = begin("balance", BalanceConfig(), workspace, reads=("captions",))
    sources = [
        Source(workspace=workspace, part=part, schema=schemas.CAPTIONS)
        for part in stage.parts("captions")
    ]
    matched = np.bincount([q for ids in pairs.values() for q in ids], minlength=QUERIES)
    found = find_thresholds(
        stage, InlineExecutor(), sources, matched, cap=cap, seed=0, sigmas=sigmas
    )
    windows = [p for p in storage.list_inside(stage.folder) if p.endswith("window.parquet")]
    return found, len(windows)


@pytest.mark.parametrize(("sigmas", "searches"), [(0.01, 2), (6.0, 1)])
def test_a_margin_that_is_too_small_is_widened(
    tmp_path: Path, sigmas: float, searches: int
) -> None:
    pairs = skewed_pairs(600, seed=2)
    found, took = search(tmp_path, pairs, 30, sigmas)
    assert took >= searches
    assert took == 1 or sigmas < 6
    kept, _, _, _ = balance.filter_table(caption_table(pairs), found, 0)
    chosen = dict(zip(kept["pair_id"].to_pylist(), kept["selected_by"].to_pylist(), strict=True))
    assert chosen == selection(pairs, 30, 0)


def test_many_ranges_of_queries_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = skewed_pairs(600, seed=3)
    expected, _ = search(tmp_path / "few", pairs, 30, 6.0)
    monkeypatch.setattr(thresholds, "CANDIDATES_PER_TASK", 40)
    found, _ = search(tmp_path / "many", pairs, 30, 6.0)
    for name, values in vars(expected).items():
        assert (getattr(found, name) == values).all()


def test_ranges_are_bounded_and_leave_no_query_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "CANDIDATES_PER_TASK", 10)
    expected = np.array([0.0, 4, 4, 4, 0, 25, 1, 9, 0])
    ranges = split_queries(expected, "ranks", (), "folder")
    assert [task.first for task in ranges[1:]] == [task.end for task in ranges[:-1]]
    assert (ranges[0].first, ranges[-1].end) == (0, len(expected))
    # A query is never cut, so a range may exceed the bound by its last one.
    assert all(
        expected[task.first : task.end].sum() <= 10 + expected[task.end - 1] for task in ranges
    )
