from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import train.samples.order
from train.samples.order import EpochOrder, Layout, epoch_length, order_of_epoch, permute

SHARDS = st.lists(st.integers(0, 30), max_size=12)


def layout(rows: list[int], weight: str = "1") -> Layout:
    return Layout(rows=np.array(rows, np.int64), weight=Fraction(weight))


def order(rows: list[int], *, window: int = 100, seed: int = 0, epoch: int = 0) -> EpochOrder:
    return order_of_epoch([layout(rows)], window=window, seed=seed, epoch=epoch)


@given(rows=SHARDS, window=st.integers(1, 100), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_windows_hold_every_sample_once_and_little_more_than_asked_for(
    rows: list[int], window: int, seed: int, epoch: int
) -> None:
    found = order(rows, window=window, seed=seed, epoch=epoch)
    windows = [found.window(number) for number in range(len(found))]
    assert [w.start for w in windows] == [0, *(w.stop for w in windows)][: len(windows)]
    assert sum(w.stop - w.start for w in windows) == sum(rows)
    seen = []
    for number, w in enumerate(windows):
        length = w.stop - w.start
        assert length < window + max(window // 8, 1)
        assert length >= window or number == len(windows) - 1
        assert sorted(w.permutation()) == list(range(length))
        pieces = zip(w.pieces.shard, w.pieces.first, w.pieces.last, strict=True)
        seen += [(shard, row) for shard, first, last in pieces for row in range(first, last)]
        assert found.number_at(w.start) == found.number_at(w.stop - 1) == number
    assert sorted(seen) == [(shard, row) for shard, n in enumerate(rows) for row in range(n)]


def test_the_order_changes_with_the_seed_and_the_epoch_only() -> None:
    def drawn(seed: int, epoch: int) -> list[int]:
        window = order([20, 20], seed=seed, epoch=epoch).window(0)
        return [*window.pieces.shard.tolist(), *window.permutation().tolist()]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_the_length_of_an_epoch_follows_the_weights() -> None:
    both = [layout([10, 5]), layout([7], "0.5")]
    assert [epoch_length(both, epoch) for epoch in range(4)] == [18, 19, 18, 19]
    assert epoch_length([layout([10], "0.1")], 3) == 1
    assert epoch_length([layout([10], "2.5")], 0) == 25


def test_a_large_corpus_is_not_cut_into_too_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.samples.order, "MOST_RUNS", 500)
    pieces = order([90] * 100, window=8).pieces
    assert len(pieces.shard) == 500
    assert int(pieces.taken.sum()) == 9000


def test_a_permutation_is_the_same_in_every_version() -> None:
    assert permute(8, "0:0:shards").tolist() == PINNED


PINNED = [4, 2, 6, 3, 5, 0, 7, 1]


def test_a_permutation_shows_no_pattern() -> None:
    places = np.array([permute(50, f"{i}:0:shards") for i in range(2000)])
    # Each number stands at each place 40 times on average; the deviation of a count is 6.3.
    counts = np.array([np.bincount(column, minlength=50) for column in places.T])
    assert abs(counts - 40).max() < 6 * 6.3
    neighbours = np.mean(np.diff(places, axis=1) == 1)
    assert abs(neighbours - 1 / 50) < 0.003
