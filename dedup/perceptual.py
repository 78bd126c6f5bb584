"""Find PDQ hashes within a Hamming distance of each other, exactly, without comparing all with all.

A hash of 256 bits is 16 bands of 16 bits. Two hashes at most r bits apart differ by at most r // 16
bits in at least one band (pigeonhole), so comparing in full only those whose band is equal up to
that many bits misses no pair: 17 of 65,536 buckets per band for r from 16 to 31, 1 for less.
Both sides are sorted by the band's value, so that memory is read in order; that takes 86 bytes a
hash beside the hashes themselves. A million against itself takes 12.5 s of one core.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba.core import types
from numba.extending import intrinsic

from pipeline.runtime.compiled import compiled

BANDS = 16
BAND_BITS = 16
# Up to here comparing each with each takes less time than sorting by bands.
SMALL = 2048

Words = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Near:
    """Pairs of positions at most some radius apart, ordered by query, then by target."""

    query: Positions
    target: Positions
    distance: Positions


@dataclass(frozen=True, kw_only=True)
class Leaders:
    """For each hash the position of the one it is dropped for, -1 if it stays, and the distance."""

    leader: Positions
    distance: Positions


def as_words(hashes: pa.ChunkedArray) -> Words:
    """Return a column of 32-byte hashes without nulls as an array [hashes, 4]."""
    column = hashes.combine_chunks()
    words = np.frombuffer(column.buffers()[1] or b"", np.uint64)
    return words[4 * column.offset :][: 4 * len(column)].reshape(-1, 4)


def find_near(queries: Words, targets: Words, radius: int) -> Near:
    """Return every pair of a query and a target at most `radius` bits apart.

    Args:
        queries, targets: [hashes, 4].
        radius: 0 to 63; from 32 on 137 buckets are visited per band, from 48 on 697.
    """
    flips = _flips(radius)
    found = _find_near(_contiguous(queries), _contiguous(targets), flips, radius)
    query, target, distance = found[np.lexsort((found[:, 1], found[:, 0]))].T
    return Near(query=query, target=target, distance=distance)


def keep_first(words: Words, radius: int) -> Leaders:
    """Decide in order of position: a hash is dropped if one that stays lies within `radius`.

    Each dropped hash is dropped for the first such one, so none is further than `radius` from what
    stays in its stead, however long a chain of neighbours is.
    """
    leaders = Leaders(
        leader=np.full(len(words), -1, np.int64), distance=np.zeros(len(words), np.int64)
    )
    _keep_among(_contiguous(words), np.arange(len(words)), radius, leaders)
    return leaders


def _keep_among(words: Words, rows: Positions, radius: int, leaders: Leaders) -> None:
    """Decide for `rows`, ascending, which nothing before them drops: the first half, then the rest."""
    if len(rows) <= SMALL:
        _keep_small(words, rows, radius, leaders.leader, leaders.distance)
        return
    first, second = np.split(rows, [len(rows) // 2])
    _keep_among(words, first, radius, leaders)
    kept = first[leaders.leader[first] < 0]
    near = find_near(words[second], words[kept], radius)
    dropped, at = np.unique(near.query, return_index=True)
    leaders.leader[second[dropped]] = kept[near.target[at]]
    leaders.distance[second[dropped]] = near.distance[at]
    _keep_among(words, second[leaders.leader[second] < 0], radius, leaders)


def _contiguous(words: Words) -> Words:
    return np.ascontiguousarray(words, np.uint64)


def _flips(radius: int) -> npt.NDArray[np.int64]:
    """Return the masks that flip up to radius // BANDS bits of a band, fewest first."""
    if not 0 <= radius < 4 * BANDS:
        raise ValueError(f"radius is {radius}, expected 0 to {4 * BANDS - 1}")
    masks = [
        sum(1 << bit for bit in bits)
        for count in range(radius // BANDS + 1)
        for bits in combinations(range(BAND_BITS), count)
    ]
    return np.array(masks, np.int64)


def _count_ones(_typing: Any, _value: Any) -> Any:
    """Type and generate a count of a word's set bits: one instruction numba has no name for."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_ones = cast(Any, intrinsic(_count_ones))


@compiled
def _distance(a: Any, i: int, b: Any, j: int) -> Any:
    left = _ones(a[i, 0] ^ b[j, 0]) + _ones(a[i, 1] ^ b[j, 1])
    return np.int64(left + _ones(a[i, 2] ^ b[j, 2]) + _ones(a[i, 3] ^ b[j, 3]))


@compiled
def _keep_small(words: Any, rows: Any, radius: int, leader: Any, distance: Any) -> None:
    for a in range(len(rows)):
        if leader[rows[a]] >= 0:
            continue
        for b in range(a + 1, len(rows)):
            bits = _distance(words, rows[a], words, rows[b])
            if bits <= radius and leader[rows[b]] < 0:
                leader[rows[b]] = rows[a]
                distance[rows[b]] = bits


@compiled
def _band_of(words: Any, i: int, band: int) -> Any:
    return np.int64((words[i, band // 4] >> np.uint64(band % 4 * 16)) & np.uint64(0xFFFF))


@compiled
def _sort_by_band(words: Any, band: int) -> Any:
    """Return where each band value begins, the positions in that order, and the hashes likewise."""
    starts = np.zeros((1 << 16) + 1, np.int64)
    for i in range(len(words)):
        starts[_band_of(words, i, band) + 1] += 1
    starts = np.cumsum(starts)
    free = starts.copy()
    order = np.empty(len(words), np.uint32)
    ordered = np.empty_like(words)
    for i in range(len(words)):
        value = _band_of(words, i, band)
        order[free[value]] = i
        ordered[free[value]] = words[i]
        free[value] += 1
    return starts, order, ordered


@compiled
def _met_before(a: Any, i: int, b: Any, j: int, band: int, most: int) -> bool:
    """Return whether an earlier band brought the same two together."""
    for earlier in range(band):
        differing = np.uint64(_band_of(a, i, earlier) ^ _band_of(b, j, earlier))
        if _ones(differing) <= most:
            return True
    return False


@compiled
def _find_near(queries: Any, targets: Any, flips: Any, radius: int) -> Any:
    found = np.empty((1024, 3), np.int64)
    count = 0
    for band in range(16):
        q_starts, q_order, q_words = _sort_by_band(queries, band)
        t_starts, t_order, t_words = _sort_by_band(targets, band)
        for value in range(1 << 16):
            if q_starts[value] == q_starts[value + 1]:
                continue
            for flip in flips:
                other = value ^ flip
                if t_starts[other] == t_starts[other + 1]:
                    continue
                for q in range(q_starts[value], q_starts[value + 1]):
                    for t in range(t_starts[other], t_starts[other + 1]):
                        bits = _distance(q_words, q, t_words, t)
                        if bits > radius or _met_before(q_words, q, t_words, t, band, radius // 16):
                            continue
                        if count == len(found):
                            found = np.concatenate((found, np.empty_like(found)))
                        found[count, 0], found[count, 1], found[count, 2] = (
                            q_order[q],
                            t_order[t],
                            bits,
                        )
                        count += 1
    return found[:count]
