import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from train.order import permute, windows_of_epoch

SHARDS = st.lists(st.integers(0, 30), max_size=12)


@settings(deadline=None)
@given(rows=SHARDS, window=st.integers(1, 100), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_windows_hold_every_sample_once_and_few_shards(
    rows: list[int], window: int, seed: int, epoch: int
) -> None:
    windows = windows_of_epoch(rows, window=window, seed=seed, epoch=epoch)
    assert [w.start for w in windows] == [0, *(w.stop for w in windows)][: len(windows)]
    assert sum(w.stop - w.start for w in windows) == sum(rows)
    for w in windows:
        assert w.stop - w.start == sum(rows[shard] for shard in w.shards)
        assert w.stop - w.start < window + max(rows)
        assert sorted(w.permutation()) == list(range(w.stop - w.start))
    shards = [shard for w in windows for shard in w.shards]
    assert len(set(shards)) == len(shards)
    assert {i for i, count in enumerate(rows) if count} <= set(shards)


def test_the_order_changes_with_the_seed_and_the_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        (window,) = windows_of_epoch([20, 20], window=100, seed=seed, epoch=epoch)
        return [*window.shards, *window.permutation().tolist()]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


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
