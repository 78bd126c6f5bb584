import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.caps.priorities import (
    HIGHEST,
    Thresholds,
    query_keys,
    read_matches,
    search_window,
)
from pipeline.caps.priority_kernels import count_matches, near_matches, select_matches
from pipeline.errors import InputError
from tests.pipeline.balancing import QUERIES, caption_table, pair_ids, pairs_of_queries
from tests.reference.balancing import Pairs, mix, priority


def test_the_mixer_is_splitmix64() -> None:
    # The first numbers of the generator that is seeded with 0, as its authors publish them.
    step = 0x9E3779B97F4A7C15
    assert [mix(0), mix(step)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@given(pair_id=pair_ids, query=st.integers(0, QUERIES - 1), seed=st.sampled_from([0, 7, 2**63 - 1]))
def test_a_priority_is_what_the_reference_says(pair_id: str, query: int, seed: int) -> None:
    matches = read_matches(caption_table({pair_id: [query]}), QUERIES)
    everything = np.zeros(QUERIES, np.uint64), np.full(QUERIES, HIGHEST, np.uint64)
    _, (queries, found, high, low) = near_matches(
        *vars(matches).values(), query_keys(QUERIES, seed), *everything
    )
    assert (queries.tolist(), found.tolist()) == ([query], [priority(pair_id, query, seed)])
    assert f"{int(high[0]):016x}{int(low[0]):016x}" == pair_id


@given(pairs=pairs_of_queries, low=st.integers(0, 2**64 - 1), high=st.integers(0, 2**64 - 1))
def test_a_window_counts_what_is_below_and_lists_what_is_inside(
    pairs: Pairs, low: int, high: int
) -> None:
    matches = read_matches(caption_table(pairs), QUERIES)
    ends = np.full(QUERIES, low, np.uint64), np.full(QUERIES, high, np.uint64)
    below, near = near_matches(*vars(matches).values(), query_keys(QUERIES, 0), *ends)
    found = [(q, priority(p, q, 0)) for p, queries in pairs.items() for q in queries]
    if low > high:
        found = []
    assert below.tolist() == [sum(u < low for p, u in found if p == q) for q in range(QUERIES)]
    inside = [(q, u) for q, u in found if low <= u <= high]
    assert list(zip(near[0].tolist(), near[1].tolist(), strict=True)) == inside


def test_matches_are_counted() -> None:
    assert count_matches(np.array([2, 0, 2], np.int32), 4).tolist() == [1, 0, 2, 0]


def test_equal_priorities_are_settled_by_the_pair() -> None:
    ids = [(0, 5), (1, 4), (1, 6), (2, 0)]
    table = caption_table({f"{high:016x}{low:016x}": [0] for high, low in ids})
    matches = read_matches(table, 1)
    keys = query_keys(1, 0)
    for row, (high, low) in enumerate(ids):
        own = priority(f"{high:016x}{low:016x}", 0, 0)
        for end, is_selected in (
            ((high, low), True),
            ((high, low + 1), True),
            ((high + 1, 0), True),
            ((high, low - 1) if low else (high - 1, HIGHEST), False),
        ):
            threshold = Thresholds.none(1)
            threshold.priority[0], threshold.high[0], threshold.low[0] = own, *end
            per_row, _, _, _ = select_matches(
                *vars(matches).values(), keys, *vars(threshold).values()
            )
            assert per_row[row] == is_selected


def test_a_threshold_that_selects_all_selects_the_highest_priority() -> None:
    thresholds = Thresholds.none(1)
    assert [int(value[0]) for value in vars(thresholds).values()] == [HIGHEST] * 3


def test_matches_are_read_from_a_slice() -> None:
    table = caption_table({"0" * 32: [1, 2], "1" * 32: [3], "2" * 32: [4, 5]}).slice(1)
    matches = read_matches(table, 6)
    assert (matches.starts.tolist(), matches.query.tolist()) == ([0, 1, 3], [3, 4, 5])


@pytest.mark.parametrize("query", [-1, QUERIES])
def test_a_query_outside_the_list_is_refused(query: int) -> None:
    message = f"query id {query} was met, but the list has 12 queries"
    with pytest.raises(InputError, match=message):
        read_matches(caption_table({"0" * 32: [0, query]}), QUERIES)


def test_queries_under_the_cap_need_no_search() -> None:
    lowest, highest = search_window(np.array([0, 5, 10, 1000]), cap=10, sigmas=1)
    assert (lowest > highest).tolist() == [True, True, True, False]
    assert 0 < lowest[3] < 2**64 * 10 // 1000 < highest[3]


def test_a_wide_margin_takes_in_everything() -> None:
    lowest, highest = search_window(np.array([11, 10**9]), cap=10, sigmas=1e6)
    assert (lowest.tolist(), highest.tolist()) == ([0, 0], [HIGHEST, HIGHEST])
