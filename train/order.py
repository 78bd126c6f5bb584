"""In what order samples are read: a function of the index, the seed and the epoch alone.

Shards are put in random order and then taken together, in that order, until they hold a window of
samples; within a window samples are in random order. So memory holds one window of the index, not
the whole: of 400 million pairs in shards of 10,000 a window of 131,072 is 14 random shards. A
corpus below one window is shuffled as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash


@dataclass(frozen=True, kw_only=True)
class Window:
    """The samples at positions `start` to `stop` of an epoch: those of `shards`, permuted."""

    start: int
    stop: int
    shards: tuple[int, ...]
    permutation_key: str

    def permutation(self) -> npt.NDArray[np.int64]:
        """Return, by position, which sample of the concatenated shards stands there."""
        return permute(self.stop - self.start, self.permutation_key)


def windows_of_epoch(
    shard_rows: Sequence[int], *, window: int, seed: int, epoch: int
) -> list[Window]:
    """Return the windows of an epoch in the order they are read.

    Args:
        shard_rows: samples in each shard, in the order of the index.
        window: samples after which a window is full; its last shard may carry it beyond.
    """
    windows: list[Window] = []
    shards: list[int] = []
    start = stop = 0
    for shard in permute(len(shard_rows), f"{seed}:{epoch}:shards").tolist():
        shards.append(shard)
        stop += shard_rows[shard]
        if stop - start >= window:
            windows.append(_window(start, stop, shards, seed, epoch))
            start, shards = stop, []
    if stop > start:
        windows.append(_window(start, stop, shards, seed, epoch))
    return windows


def permute(length: int, key: str) -> npt.NDArray[np.int64]:
    """Return a permutation of range(length) that depends on `key` only.

    It sorts hashes, because numpy does not promise the same random numbers in its next version.
    """
    state = np.arange(length, dtype=np.uint64) + np.uint64(xxhash.xxh3_64_intdigest(key.encode()))
    state *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    state ^= state >> np.uint64(31)
    return np.argsort(state, kind="stable")


def _window(start: int, stop: int, shards: list[int], seed: int, epoch: int) -> Window:
    return Window(
        start=start, stop=stop, shards=tuple(shards), permutation_key=f"{seed}:{epoch}:{start}"
    )
