import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import balance, schemas
from pipeline.errors import ConfigError
from pipeline.priorities import (
    Thresholds,
    candidate_limits,
    match_list,
    pair_id_halves,
    smallest,
)
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.settings import read_settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from pipeline.thresholds import find_thresholds
from tests.reference.balancing import Pairs, selection

QUERIES = 12

pairs_of_queries = st.dictionaries(
    st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"),
    st.lists(st.integers(0, QUERIES - 1), min_size=1, max_size=5, unique=True).map(sorted),
    max_size=40,
)


def caption_table(pairs: Pairs) -> pa.Table:
    rows = [
        {
            "pair_id": pair_id,
            "url": f"http://x/{pair_id}",
            "caption": "a caption",
            "caption_source": "alt",
            "page_url": None,
            "source": "a.warc",
            "source_offset": 0,
            "query_ids": ids,
            "language": "en",
            "language_probability": 1.0,
        }
        for pair_id, ids in pairs.items()
    ]
    return pa.Table.from_pylist(rows, schema=schemas.CAPTIONS)


def query_list() -> pa.Table:
    rows = [
        {"query_id": i, "query": f"q{i}", "source": "user", "count": None, "score": None}
        for i in range(QUERIES)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


def skewed_pairs(count: int, seed: int = 0) -> Pairs:
    chance = random.Random(seed)
    return {
        f"{chance.getrandbits(128):032x}": sorted(
            {min(int(chance.expovariate(0.4)), QUERIES - 1) for _ in range(3)}
        )
        for _ in range(count)
    }


def balanced(manifest: Manifest, workspace: Workspace) -> dict[str, list[int]]:
    kept: dict[str, list[int]] = {}
    for part in manifest.parts:
        table = workspace.read(part, schemas.BALANCED)
        kept.update(
            zip(table["pair_id"].to_pylist(), table["selected_by"].to_pylist(), strict=True)
        )
    return kept


def split(pairs: Pairs, parts: int) -> list[pa.Table]:
    items = list(pairs.items())
    return [caption_table(dict(items[i::parts])) for i in range(parts)]


@given(pairs=pairs_of_queries, cap=st.integers(1, 8), seed=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_the_core_selects_what_sorting_every_query_selects(
    pairs: Pairs, cap: int, seed: int
) -> None:
    table = caption_table(pairs)
    matches = match_list(table, seed)
    ids, found, _ = smallest(matches, cap)
    thresholds = Thresholds.none(QUERIES)
    thresholds.priority[ids] = found.priority
    thresholds.high[ids] = found.high
    thresholds.low[ids] = found.low
    kept, drops, _ = balance.filter_table(table, thresholds, seed)
    chosen = dict(zip(kept["pair_id"].to_pylist(), kept["selected_by"].to_pylist(), strict=True))
    assert chosen == selection(pairs, cap, seed)
    assert sorted([*chosen, *drops["pair_id"].to_pylist()]) == sorted(pairs)


@given(pairs=pairs_of_queries, cap=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_smaller_cap_keeps_a_subset(pairs: Pairs, cap: int) -> None:
    assert selection(pairs, cap, 0).keys() <= selection(pairs, cap + 1, 0).keys()


def test_the_stage_selects_what_the_reference_selects(
    workspace: Workspace, finish_stage: Callable[..., Manifest], executor: Executor
) -> None:
    pairs = skewed_pairs(900)
    finish_stage("match", schemas.MATCHES, queries=(query_list(), schemas.QUERIES))
    finish_stage("captions", schemas.CAPTIONS, *split(pairs, 4))
    manifest = balance.run(balance.BalanceConfig(cap=50, seed=3), workspace, executor)
    assert balanced(manifest, workspace) == selection(pairs, 50, 3)
    counts = workspace.read_table("balance", "query_counts", schemas.QUERY_COUNTS)
    assert max(counts["selected"].to_pylist()) == 50
    matched = np.bincount([q for ids in pairs.values() for q in ids], minlength=QUERIES)
    assert counts["matched"].to_pylist() == matched.tolist()
    assert counts["selected"].to_pylist() == np.minimum(matched, 50).tolist()


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_split_into_parts_does_not_matter(
    tmp_path: Path, finish_stage: Callable[..., Manifest], workspace: Workspace, parts: int
) -> None:
    pairs = skewed_pairs(400, seed=1)
    finish_stage("match", schemas.MATCHES, queries=(query_list(), schemas.QUERIES))
    finish_stage("captions", schemas.CAPTIONS, *split(pairs, parts))
    manifest = balance.run(balance.BalanceConfig(cap=20), workspace, InlineExecutor())
    assert balanced(manifest, workspace) == selection(pairs, 20, 0)


def test_a_margin_that_is_too_small_is_widened(
    workspace: Workspace, finish_stage: Callable[..., Manifest]
) -> None:
    pairs = skewed_pairs(600, seed=2)
    captions = finish_stage("captions", schemas.CAPTIONS, *split(pairs, 3))
    matched = np.bincount([q for ids in pairs.values() for q in ids], minlength=QUERIES)
    stage = begin("balance", balance.BalanceConfig(), workspace, reads=("captions",))
    # With no margin at all about half of the queries have too few candidates at first.
    thresholds = find_thresholds(
        stage,
        InlineExecutor(),
        captions.parts,
        schemas.CAPTIONS,
        matched,
        cap=30,
        seed=0,
        sigmas=0.1,
    )
    kept, _, _ = balance.filter_table(caption_table(pairs), thresholds, 0)
    assert set(kept["pair_id"].to_pylist()) == selection(pairs, 30, 0).keys()


def test_headroom_keeps_more_and_the_rebalance_applies_the_cap(
    workspace: Workspace, finish_stage: Callable[..., Manifest]
) -> None:
    pairs = skewed_pairs(500, seed=4)
    finish_stage("match", schemas.MATCHES, queries=(query_list(), schemas.QUERIES))
    finish_stage("captions", schemas.CAPTIONS, *split(pairs, 2))
    config = balance.BalanceConfig(cap=20, headroom=1.5)
    first = balance.run(config, workspace, InlineExecutor())
    wide = balanced(first, workspace)
    assert wide == selection(pairs, 30, 0)
    survivors = dict(list(wide.items())[::2])
    finish_stage("dedup", schemas.DEDUPLICATED, downloaded_table({p: pairs[p] for p in survivors}))
    second = balance.rerun(balance.RebalanceConfig(), workspace, InlineExecutor())
    kept = workspace.read(second.parts[0], schemas.DEDUPLICATED)
    chosen = dict(zip(kept["pair_id"].to_pylist(), kept["selected_by"].to_pylist(), strict=True))
    assert chosen == selection({p: pairs[p] for p in survivors}, 20, 0)


def test_another_cap_counts_even_if_balance_kept_the_same(
    workspace: Workspace, finish_stage: Callable[..., Manifest]
) -> None:
    pairs = {f"{n:032x}": [0] for n in range(120)}
    finish_stage("match", schemas.MATCHES, queries=(query_list(), schemas.QUERIES))
    finish_stage("captions", schemas.CAPTIONS, *split(pairs, 1))
    for cap, headroom in ((100, 1.5), (80, 2.0)):
        config = balance.BalanceConfig(cap=cap, headroom=headroom)
        assert balance.run(config, workspace, InlineExecutor()).rows_out == 120
        finish_stage("dedup", schemas.DEDUPLICATED, downloaded_table(pairs))
        again = balance.rerun(balance.RebalanceConfig(), workspace, InlineExecutor())
        assert again.rows_out == cap


def downloaded_table(pairs: Pairs) -> pa.Table:
    table = caption_table(pairs)
    size = len(table)
    values = {"selected_by": table["query_ids"].combine_chunks()}
    for field in schemas.DOWNLOADED:
        if field.name in table.column_names or field.name in values:
            continue
        if field.nullable:
            values[field.name] = pa.nulls(size, field.type)
        else:
            blank = "x" if field.type == pa.string() else 1
            values[field.name] = pa.array([blank] * size, field.type)
    columns = {name: table[name] for name in table.column_names}
    return pa.table({**columns, **values}).select(schemas.DOWNLOADED.names).cast(schemas.DOWNLOADED)


def test_equal_priorities_are_settled_by_the_pair() -> None:
    table = caption_table({f"{n:032x}": [0] for n in range(4)})
    matches = match_list(table, 0)
    thresholds = Thresholds.none(1)
    thresholds.priority[0] = matches.priority[1]
    thresholds.high[0], thresholds.low[0] = 0, 0
    assert not thresholds.selects(matches)[1]
    thresholds.low[0] = 1
    assert thresholds.selects(matches)[1]


def test_pair_ids_are_read_from_a_slice() -> None:
    ids = pa.chunked_array([pa.array([f"{n:032x}" for n in (1, 2**64 + 5, 3)])[1:]])
    high, low = pair_id_halves(ids)
    assert (high.tolist(), low.tolist()) == ([1, 0], [5, 3])


def test_queries_under_the_cap_need_no_candidates() -> None:
    limits = candidate_limits(np.array([0, 5, 10, 1000]), cap=10, sigmas=6)
    assert limits[:3].tolist() == [0, 0, 0]
    assert 0 < limits[3] < 2**63


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"balance\.cap is 0, expected greater than or equal to 1"
    ):
        read_settings(balance.BalanceConfig, {"cap": 0}, where="balance")
