"""In what order samples are read: a function of the index, the seed and the epoch alone.

Shards are cut into runs of neighbouring samples. An epoch puts the runs in random order and takes
them together, in that order, until they hold a window of samples; within a window samples are in
random order. So memory holds one window of the index, not the whole, and the bytes of a window lie
in few places: of 400 million pairs in shards of 10,000 a window of 131,072 is 14 whole shards. A
corpus below one window is shuffled as a whole.

A source of weight w is read w times an epoch. Its samples form an endless sequence of turns, each of
which has every sample once, and epoch e takes what lies between e and e + 1 times w turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import xxhash

RUNS_IN_WINDOW = 8
MOST_RUNS = 1 << 22
"""Small windows do not cut a large corpus finer: every run costs memory."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Samples in each shard of a source, and how many times an epoch each is read."""

    rows: Numbers
    weight: Fraction = Fraction(1)

    @property
    def samples(self) -> int:
        """Samples of all shards."""
        return int(self.rows.sum())

    def stretch(self, epoch: int) -> tuple[int, int]:
        """Return from where to where of the endless sequence `epoch` reads."""
        per_epoch = self.weight * self.samples
        return int(epoch * per_epoch), int((epoch + 1) * per_epoch)


class Pieces(NamedTuple):
    """What is read together, in columns: samples `first` to `last` of a shard, in one turn of its source.

    If `taken` is less than all of them, a weight ends the turn's part of the epoch within the run: of
    the run's samples in an order of their own, those from `skipped` on.
    """

    source: Numbers
    shard: Numbers
    first: Numbers
    last: Numbers
    turn: Numbers
    skipped: Numbers
    taken: Numbers

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the pieces of `parts`, one after the other."""
        none = cls(*(np.empty(0, np.int64) for _ in cls._fields))
        return cls(*(np.concatenate(columns) for columns in zip(none, *parts, strict=True)))

    def at(self, places: npt.NDArray[np.int64] | slice) -> Self:
        """Return those at `places`."""
        return type(self)(*(column[places] for column in self))


@dataclass(frozen=True, kw_only=True)
class Window:
    """The samples at positions `start` to `stop` of an epoch: those of `pieces`, permuted."""

    start: int
    stop: int
    pieces: Pieces
    permutation_key: str

    def permutation(self) -> npt.NDArray[np.int64]:
        """Return, by position, which sample of the concatenated pieces stands there."""
        return permute(self.stop - self.start, self.permutation_key)


@dataclass(frozen=True, kw_only=True)
class EpochOrder:
    """The windows of an epoch in the order they are read.

    Attributes:
        starts, firsts: position and number of the first piece of each window; of the end as well.
    """

    pieces: Pieces
    starts: Numbers
    firsts: Numbers
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def number_at(self, position: int) -> int:
        """Return the number of the window with the sample at `position`."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1

    def window(self, number: int) -> Window:
        """Return a window by its number."""
        start, stop = (int(edge) for edge in self.starts[number : number + 2])
        return Window(
            start=start,
            stop=stop,
            pieces=self.pieces.at(slice(*self.firsts[number : number + 2])),
            permutation_key=f"{self.seed}:{self.epoch}:{start}",
        )


def epoch_length(layouts: Sequence[Layout], epoch: int) -> int:
    """Return how many samples `epoch` reads."""
    edges = [layout.stretch(epoch) for layout in layouts]
    return sum(end - begin for begin, end in edges)


def order_of_epoch(layouts: Sequence[Layout], *, window: int, seed: int, epoch: int) -> EpochOrder:
    """Return the order of an epoch.

    Args:
        layouts: of each source, the shards in the order of the index.
        window: samples after which a window is full; its last run may carry it beyond.
    """
    samples = sum(layout.samples for layout in layouts)
    run = max(window // RUNS_IN_WINDOW, samples // MOST_RUNS, 1)
    parts = [
        part
        for source, layout in enumerate(layouts)
        for part in _parts(source, layout, run, seed, epoch)
    ]
    found = Pieces.joined(parts)
    pieces = found.at(permute(len(found.shard), f"{seed}:{epoch}:shards"))
    ends = np.cumsum(pieces.taken)
    starts, firsts, length = [0], [0], int(pieces.taken.sum())
    while starts[-1] < length:
        full = int(np.searchsorted(ends, starts[-1] + window))
        firsts.append(min(full, len(ends) - 1) + 1)
        starts.append(int(ends[firsts[-1] - 1]))
    return EpochOrder(
        pieces=pieces, starts=np.array(starts), firsts=np.array(firsts), seed=seed, epoch=epoch
    )


def rows_of_piece(window: Window, number: int, seed: int) -> npt.NDArray[np.int64] | None:
    """Return which samples of its run a piece takes; None: all, in their order."""
    pieces = window.pieces
    shard, first, last, turn, skipped, taken = (int(c[number]) for c in pieces[1:])
    if taken == last - first:
        return None
    order = permute(last - first, f"{seed}:{turn}:{int(pieces.source[number])}:{shard}:{first}")
    return order[skipped : skipped + taken]


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


def _parts(source: int, layout: Layout, run: int, seed: int, epoch: int) -> list[Pieces]:
    begin, end = layout.stretch(epoch)
    if begin == end:
        return []
    shard, first, last = _runs(layout.rows, run)
    samples, lengths = layout.samples, last - first
    parts = []
    for turn in range(begin // samples, -(-end // samples)):
        low, high = max(begin - turn * samples, 0), min(end - turn * samples, samples)
        skipped, until = np.zeros_like(lengths), lengths
        if high - low < samples:
            order = permute(len(shard), f"{seed}:{turn}:{source}:turn")
            starts = np.empty_like(lengths)
            starts[order] = np.cumsum(lengths[order]) - lengths[order]
            skipped, until = (np.clip(edge - starts, 0, lengths) for edge in (low, high))
        pieces = Pieces(
            source=np.full_like(shard, source),
            shard=shard,
            first=first,
            last=last,
            turn=np.full_like(shard, turn),
            skipped=skipped,
            taken=until - skipped,
        )
        parts.append(pieces.at(np.flatnonzero(pieces.taken)))
    return parts


def _runs(rows: Numbers, longest: int) -> tuple[Numbers, Numbers, Numbers]:
    """Cut shards into runs of about equal length; return shard, first and last sample of each."""
    counts = -(-rows // longest)
    shard = np.repeat(np.arange(len(rows)), counts)
    number = np.arange(len(shard)) - np.repeat(np.cumsum(counts) - counts, counts)
    of_shard, parts = rows[shard], counts[shard]
    return shard, number * of_shard // parts, (number + 1) * of_shard // parts
