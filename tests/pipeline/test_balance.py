import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import balance, schemas
from pipeline.balance import BalanceConfig, RebalanceConfig, cap_for_tail_share, first_cap
from pipeline.caps.priorities import Thresholds, query_keys, read_matches
from pipeline.caps.priority_kernels import count_matches, near_matches
from pipeline.caps.thresholds import ranked
from pipeline.errors import ConfigError
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.settings import read_settings
from pipeline.runtime.workspace import Workspace
from tests.pipeline.balancing import (
    QUERIES,
    caption_table,
    digests,
    downloaded_table,
    dropped,
    finish,
    kept,
    make_crawl,
    margin,
    pairs_of_queries,
    quick_folder,
    sigmas,
    skewed_pairs,
    split,
)
from tests.reference.balancing import Pairs, counts, holders, selection, tail_share

pytestmark = pytest.mark.usefixtures("no_plot")


def balanced(folder: Path | str, pairs: Pairs, parts: int = 1, **options: float) -> Workspace:
    workspace = make_crawl(folder, split(pairs, parts))
    balance.run(BalanceConfig(**options), workspace, InlineExecutor())  # type: ignore[arg-type]
    return workspace


@given(
    pairs=pairs_of_queries,
    cap=st.integers(1, 8),
    seed=st.sampled_from([0, 1, 2**63 - 1]),
    parts=st.integers(1, 4),
    sigmas=sigmas,
)
@settings(max_examples=30)
def test_the_stage_keeps_what_sorting_every_query_keeps(
    pairs: Pairs, cap: int, seed: int, parts: int, sigmas: float
) -> None:
    with quick_folder() as folder, margin(sigmas):
        workspace = balanced(folder, pairs, parts, cap=cap, seed=seed)
        chosen = kept(workspace)
        assert chosen == selection(pairs, cap, seed)
        over_cap = sorted(pairs.keys() - chosen.keys())
        assert dropped(workspace) == ({"over_cap": over_cap} if over_cap else {})
        report = workspace.read_table("balance", "query_counts", schemas.QUERY_COUNTS)
        assert report.to_pylist() == [asdict(c) for c in counts(pairs, cap, seed, QUERIES)]
        # The promise itself, whatever the reference says.
        matched = Counter(q for ids in pairs.values() for q in ids)
        selected = Counter(q for ids in chosen.values() for q in ids)
        assert selected == {q: min(n, cap) for q, n in matched.items()}


@given(pairs=pairs_of_queries, cap=st.integers(1, 6), more=st.integers(0, 4))
@settings(max_examples=15)
def test_a_smaller_cap_keeps_a_subset(pairs: Pairs, cap: int, more: int) -> None:
    with quick_folder() as folder:
        small = kept(balanced(f"{folder}/small", pairs, cap=cap))
        large = kept(balanced(f"{folder}/large", pairs, 2, cap=cap + more))
    assert small.keys() <= large.keys()
    assert all(set(chosen) <= set(large[pair]) for pair, chosen in small.items())


@given(pairs=pairs_of_queries, order=st.randoms(use_true_random=False), parts=st.integers(1, 5))
@settings(max_examples=15)
def test_neither_order_nor_parts_matter(pairs: Pairs, order: random.Random, parts: int) -> None:
    items = list(pairs.items())
    order.shuffle(items)
    with quick_folder() as folder:
        one = balanced(f"{folder}/one", pairs, cap=3)
        other = balanced(f"{folder}/other", dict(items), parts, cap=3)
        assert kept(one) == kept(other)
        names = [f"balance/{name}/00000.parquet" for name in ("query_counts", "summary")]
        assert [digests(one)[name] for name in names] == [digests(other)[name] for name in names]


def test_every_executor_writes_the_same_bytes(tmp_path: Path, executor: Executor) -> None:
    pairs = skewed_pairs(900)
    expected = balanced(tmp_path / "inline", pairs, 4, cap=50, seed=3)
    workspace = make_crawl(tmp_path / "other", split(pairs, 4))
    balance.run(BalanceConfig(cap=50, seed=3), workspace, executor)
    assert digests(workspace) == digests(expected)


def test_another_seed_chooses_other_pairs(tmp_path: Path) -> None:
    pairs = skewed_pairs(400)
    first, second = (kept(balanced(tmp_path / str(s), pairs, cap=9, seed=s)) for s in (0, 1))
    assert first.keys() != second.keys()


def test_pieces_that_were_read_do_not_show_in_what_is_written() -> None:
    table = caption_table(skewed_pairs(30))
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7)])
    kept_rows, _, _, _ = balance.filter_table(pieces, exact_thresholds(table, 4, 0), 0)
    # Parquet pages begin anew with every piece, so the file's bytes would differ.
    assert {column.num_chunks for column in kept_rows.columns} == {1}


def test_common_words_ride_along_with_rare_ones(tmp_path: Path) -> None:
    pairs = {f"{n:032x}": [0, 1 + n] for n in range(10)}
    workspace = balanced(tmp_path, pairs, cap=3)
    report = workspace.read_table("balance", "query_counts", schemas.QUERY_COUNTS).to_pylist()
    assert [report[0][name] for name in ("matched", "selected", "present")] == [10, 3, 10]
    assert [report[1][name] for name in ("matched", "selected", "present")] == [1, 1, 1]


def test_a_pair_stays_as_often_as_metaclip_would_draw_it() -> None:
    pairs, cap, draws = skewed_pairs(150, seed=5), 12, 1500
    table = caption_table(pairs)
    matched = Counter(q for ids in pairs.values() for q in ids)
    missed = [np.prod([1 - min(1, cap / matched[q]) for q in ids]) for ids in pairs.values()]
    expected = 1 - np.array(missed)
    stayed = np.zeros(len(pairs))
    for seed in range(draws):
        kept_rows, _, _, _ = balance.filter_table(table, exact_thresholds(table, cap, seed), seed)
        stayed += np.isin(table["pair_id"].to_numpy(), kept_rows["pair_id"].to_numpy())
    sure = expected == 1
    assert (stayed[sure] == draws).all()
    assert 20 < sure.sum() < 130
    deviation = np.sqrt(draws * expected * (1 - expected))[~sure]
    z = (stayed - draws * expected)[~sure] / deviation
    assert np.abs(z).max() < 4.5
    # The squares of standard normal values have mean 1 and variance 2.
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / len(z))


def exact_thresholds(table: pa.Table, cap: int, seed: int) -> Thresholds:
    matches = read_matches(table, QUERIES)
    everything = np.zeros(QUERIES, np.uint64), np.full(QUERIES, 2**64 - 1, np.uint64)
    keys = query_keys(QUERIES, seed)
    _, found = near_matches(
        matches.starts, matches.query, matches.high, matches.low, keys, *everything
    )
    columns = dict(zip(("query_id", "priority", "high", "low"), found, strict=True))
    over = count_matches(matches.query, QUERIES) > cap
    last = ranked(pa.table(columns), np.where(over, cap, 0))
    thresholds = Thresholds.none(QUERIES)
    query = last["query_id"].to_numpy()
    for name in ("priority", "high", "low"):
        getattr(thresholds, name)[query] = last[name].to_numpy()
    return thresholds


def test_headroom_keeps_more_and_the_rebalance_applies_the_cap(tmp_path: Path) -> None:
    pairs = skewed_pairs(500, seed=4)
    workspace = balanced(tmp_path, pairs, 2, cap=20, headroom=1.5)
    wide = kept(workspace)
    assert wide == selection(pairs, 30, 0)
    left = {pair: pairs[pair] for pair in list(wide)[::2]}
    finish(workspace, "dedup", schemas.DEDUPLICATED, [downloaded_table(left)])
    balance.rerun(RebalanceConfig(), workspace, InlineExecutor())
    assert kept(workspace, "rebalance") == selection(left, 20, 0)
    (summary,) = workspace.read_table("rebalance", "summary", schemas.BALANCE_SUMMARY).to_pylist()
    before = [len(holders(pairs, q, 0)) for q in range(QUERIES)]
    now = [len(holders(left, q, 0)) for q in range(QUERIES)]
    short = sum(b >= 20 and n < 20 for b, n in zip(before, now, strict=True))
    assert summary["queries_short"] == short > 0


def test_another_cap_counts_even_if_balance_kept_the_same(tmp_path: Path) -> None:
    pairs = {f"{n:032x}": [0] for n in range(120)}
    workspace = make_crawl(tmp_path, split(pairs, 1))
    for cap, headroom in ((100, 1.5), (80, 2.0)):
        config = BalanceConfig(cap=cap, headroom=headroom)
        assert balance.run(config, workspace, InlineExecutor()).rows_out == 120
        finish(workspace, "dedup", schemas.DEDUPLICATED, [downloaded_table(pairs)])
        again = balance.rerun(RebalanceConfig(), workspace, InlineExecutor())
        assert again.rows_out == cap


def test_a_cap_beyond_64_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"times headroom 4\.0 is beyond 64 bits"):
        BalanceConfig(cap=2**62, headroom=4.0)


@given(pairs=pairs_of_queries, share=st.integers(1, 100).map(lambda n: n / 100))
@settings(max_examples=60)
def test_the_cap_for_a_share_is_the_smallest_whose_tail_holds_it(
    pairs: Pairs, share: float
) -> None:
    matched = np.bincount([q for ids in pairs.values() for q in ids], minlength=QUERIES)
    cap = cap_for_tail_share(matched.astype(np.int64), share)
    hundredths = round(share * 100)
    tail, total = tail_share(pairs, cap, QUERIES)
    assert 100 * tail >= hundredths * total
    smaller, _ = tail_share(pairs, cap - 1, QUERIES)
    assert cap == 1 or 100 * smaller < hundredths * total


def test_a_share_is_taken_as_it_is_written() -> None:
    # In floats 0.07 times 100 is a little more than 7.
    assert cap_for_tail_share(np.array([7, 93]), 0.07) == 7
    assert cap_for_tail_share(np.array([0, 7, 93]), 0.0701) == 93
    assert cap_for_tail_share(np.array([2, 2, 2, 94]), 0.01) == 2
    assert cap_for_tail_share(np.array([5, 9]), 1.0) == 9
    assert cap_for_tail_share(np.zeros(3, np.int64), 0.5) == 1
    assert (first_cap(20_000, 1.1), first_cap(3, 1.5)) == (22_000, 5)


def test_the_cap_chosen_for_a_share_is_kept_for_the_rebalance(tmp_path: Path) -> None:
    pairs = skewed_pairs(400, seed=6)
    matched = np.bincount([q for ids in pairs.values() for q in ids], minlength=QUERIES)
    cap = cap_for_tail_share(matched, 0.4)
    assert 1 < cap < matched.max()
    workspace = balanced(tmp_path, pairs, 2, tail_share=0.4, headroom=1.25)
    assert kept(workspace) == selection(pairs, first_cap(cap, 1.25), 0)
    (rule,) = workspace.read_table("balance", "cap", schemas.CAP).to_pylist()
    assert rule == {"cap": cap, "first_cap": first_cap(cap, 1.25), "tail_share": 0.4, "seed": 0}
    finish(workspace, "dedup", schemas.DEDUPLICATED, [downloaded_table(pairs)])
    balance.rerun(RebalanceConfig(), workspace, InlineExecutor())
    assert kept(workspace, "rebalance") == selection(pairs, cap, 0)


def test_nothing_to_balance_is_balanced(tmp_path: Path) -> None:
    for parts in ([], [caption_table({})]):
        workspace = make_crawl(tmp_path / str(len(parts)), parts)
        for config in (BalanceConfig(), BalanceConfig(tail_share=0.5)):
            assert balance.run(config, workspace, InlineExecutor()).rows_out == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cap": 0}, r"balance\.cap is 0, expected greater than or equal to 1"),
        ({"tail_share": 0}, r"balance\.tail_share is 0, expected greater than 0"),
        ({"tail_share": 1.5}, r"balance\.tail_share is 1\.5, expected less than or equal to 1"),
        (
            {"cap": 500, "tail_share": 0.06},
            r"^balance\.cap is 500 and balance\.tail_share is 0\.06; expected one of them",
        ),
        ({"headroom": float("inf")}, r"balance\.headroom is inf, expected a finite number"),
        ({"seed": 2**63}, r"balance\.seed is 9223372036854775808, expected less than"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(BalanceConfig, given, where="balance")
