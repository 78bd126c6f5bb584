"""Bring together the hashes that may be near each other: those nearly equal in one of their bands.

A hash of 256 bits is 16 bands of 16 bits. If each band tolerates some number of differing bits, and
these numbers plus one each add up to more than the radius, then two hashes within the radius agree in
at least one band but for what it tolerates (the pigeonhole principle). A band may tolerate -1: it is
not looked at. `plan_bands` shares the tolerance out so that as few hashes as possible are compared,
by what a sample of both sides would meet in each band: bits that most hashes share are left alone.
Where bands would bring together most of all with most of all, each is compared with each at once.

Both sides are sorted by the band's value, so that candidates lie side by side; of each two of the four
words, chosen by what they tell, rule out nearly all that are too far, eight at a time where the
processor can. Memory: 20 bytes a hash beside the hashes, and a fixed buffer of what is found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from numba.core import types
from numba.extending import intrinsic

from pipeline.runtime.compiled import compiled, inlined

BANDS: Final = 16
VALUES: Final = 1 << 16

# Measured, in nanoseconds: to sort a hash by a band, to visit a bucket, once for all and once for each
# hash that does, and to compare with a candidate.
SORT_NS: Final = 20.0
BUCKET_NS: Final = 3.0
VISIT_NS: Final = 4.0
COMPARE_NS: Final = 0.1
# So few comparisons take less time than a plan for them.
UNPLANNED: Final = 1 << 26
# A sample large enough to tell bands apart by what they bring together.
SAMPLED: Final = 1 << 16
PROBED: Final = 256
# Found at a time; also what one step may look at, so that both sides of it stay in the cache.
FOUND: Final = 1 << 16
TILE: Final = 1 << 13
# Hashes that are compared at once.
STEP: Final = 8

Words = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]


def _masks(most: int) -> npt.NDArray[np.int64]:
    """Return the 16-bit masks of up to `most` set bits, fewest first."""
    masks = [
        sum(1 << bit for bit in bits)
        for count in range(most + 1)
        for bits in combinations(range(16), count)
    ]
    return np.array(masks, np.int64)


_FLIPS: Final = _masks(4)
# Masks of up to 0, 1, ... set bits.
_COUNTS: Final = (1, 17, 137, 697, 2517)


class Sorted(NamedTuple):
    """Hashes by the value of a band: where each value begins, positions, and two of the words."""

    starts: Positions
    order: npt.NDArray[np.uint32]
    first: Words
    second: Words


@dataclass(frozen=True, kw_only=True)
class Near:
    """Pairs of positions at most some radius apart."""

    query: Positions
    target: Positions
    distance: Positions


def meet(queries: Words, targets: Words, radius: int) -> Iterator[Near]:
    """Yield every pair within `radius` once, in no order, some thousands at a time.

    Args:
        queries, targets: [hashes, 4].
    """
    # Long runs of candidates take the least time each: the more are the inner side.
    if len(queries) <= len(targets):
        for query, target, bits in _found(queries, targets, radius):
            yield Near(query=query, target=target, distance=bits)
    else:
        for target, query, bits in _found(targets, queries, radius):
            yield Near(query=query, target=target, distance=bits)


def meet_itself(words: Words, radius: int) -> Iterator[Near]:
    """Like `meet`, each of two different positions once: the query is the later one."""
    for a, b, bits in _found(words, words, radius):
        yield Near(query=np.maximum(a, b), target=np.minimum(a, b), distance=bits)


def _found(outer: Words, inner: Words, radius: int) -> Iterator[Positions]:
    """Yield arrays [3, pairs]: positions in `outer` and in `inner`, and bits."""
    tolerated = plan_bands(outer, inner, radius)
    found = np.empty((FOUND, 3), np.int64)
    for band, bits in enumerate(tolerated.tolist()):
        if bits >= 0:
            flips = _FLIPS[: _COUNTS[bits]]
            yield from _found_by(band, VALUES, outer, inner, flips, tolerated[:band], radius, found)
    if tolerated.max() < 0:
        yield from _found_by(0, 1, outer, inner, _FLIPS[:1], tolerated[:0], radius, found)


def _found_by(
    band: int,
    values: int,
    outer: Words,
    inner: Words,
    flips: npt.NDArray[np.int64],
    earlier: npt.NDArray[np.int64],
    radius: int,
    found: npt.NDArray[np.int64],
) -> Iterator[Positions]:
    telling = _telling_words(inner, band)
    by_outer = _sort_by_band(outer, band, values, telling)
    by_inner = by_outer if inner is outer else _sort_by_band(inner, band, values, telling)
    place = np.zeros(4, np.int64)
    while place[0] < len(flips):
        count = _scan(
            outer, inner, by_outer, by_inner, flips, earlier, radius, inner is outer, place, found
        )
        if count:
            yield found[:count].T.copy()


def plan_bands(outer: Words, inner: Words, radius: int) -> npt.NDArray[np.int64]:
    """Return how many differing bits each band tolerates, -1 for bands that are not looked at.

    All are -1 where comparing each with each takes least time.
    """
    if len(outer) * len(inner) <= UNPLANNED:
        return np.full(BANDS, -1)
    # More than two bits beyond an even share never pays.
    costs = _costs(outer, inner, _COUNTS[: radius // BANDS + 3])
    best = np.full((BANDS + 1, radius + 2), np.inf)
    best[0, 0] = 0.0
    choice = np.zeros((BANDS + 1, radius + 2), np.int64)
    for band in range(BANDS):
        for share in range(min(costs.shape[1], radius + 1) + 1):
            before = best[band, : radius + 2 - share] + (costs[band, share - 1] if share else 0.0)
            better = before < best[band + 1, share:]
            best[band + 1, share:][better] = before[better]
            choice[band + 1, share:][better] = share
    tolerated = np.full(BANDS, -1)
    if best[BANDS, radius + 1] < COMPARE_NS * len(outer) * len(inner):
        left = radius + 1
        for band in reversed(range(BANDS)):
            tolerated[band] = choice[band + 1, left] - 1
            left -= choice[band + 1, left]
    return tolerated


def _costs(outer: Words, inner: Words, counts: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the nanoseconds that each band takes, by the bits it tolerates: so many masks each."""
    visits = np.array(counts)
    flips = _FLIPS[: counts[-1]]
    costs = np.zeros((BANDS, len(counts)))
    probes = _sampled(outer, PROBED)
    shown = _sampled(inner, SAMPLED)
    for band in range(BANDS):
        sizes = np.bincount(shown[:, band], minlength=VALUES) * (len(inner) / max(1, len(shown)))
        met = sizes[probes[:, band, None] ^ flips].sum(axis=0) / max(1, len(probes))
        each = VISIT_NS * visits + COMPARE_NS * np.cumsum(met)[visits - 1]
        costs[band] = SORT_NS * (len(outer) + len(inner)) + BUCKET_NS * VALUES * visits
        costs[band] += each * len(outer)
    return costs


def _telling_words(words: Words, band: int) -> tuple[int, int]:
    """Return the two words in which hashes differ most whose band has the most frequent value."""
    shown = _sampled(words, SAMPLED)
    values = shown[:, band]
    alike = shown[values == np.bincount(values, minlength=1).argmax()].view(np.uint64)
    differing = np.bitwise_count(alike[1:] ^ alike[:-1]).sum(axis=0, dtype=np.int64)
    # Of the band's own word the band itself tells nothing.
    differing[band // 4] -= 1 + len(alike)
    first, second = np.argsort(-differing, kind="stable")[:2].tolist()
    return first, second


def _sampled(words: Words, most: int) -> npt.NDArray[np.uint16]:
    """Return the bands [hashes, 16] of about `most` hashes, evenly spaced."""
    every = max(1, len(words) // most)
    return np.ascontiguousarray(words[::every]).view(np.uint16).reshape(-1, BANDS)


def _count_ones(_typing: Any, _value: Any) -> Any:
    """Type and generate a count of a word's set bits: one instruction numba has no name for."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


_ones = cast(Any, intrinsic(_count_ones))


@compiled
def distance(a: Any, i: int, b: Any, j: int) -> Any:
    """Return the differing bits of two hashes, `a[i]` and `b[j]`."""
    left = _ones(a[i, 0] ^ b[j, 0]) + _ones(a[i, 1] ^ b[j, 1])
    return np.int64(left + _ones(a[i, 2] ^ b[j, 2]) + _ones(a[i, 3] ^ b[j, 3]))


@inlined
def any_close(one: Any, two: Any, first: Any, second: Any, begin: int, end: int, most: Any) -> Any:
    """Return whether two words of a hash may be within `most` bits of those of any in a range.

    The range is looked at in steps of eight, so up to seven after it, too, which must be there.
    """
    close = np.uint64(0)
    # Unsigned, or else each index might count from the end, and eight are not compared at once.
    start = np.uint64(begin)
    steps = (np.uint64(end) - start + np.uint64(STEP - 1)) // np.uint64(STEP)
    for i in range(steps * np.uint64(STEP)):
        close += np.uint64(_ones(one ^ first[start + i]) + _ones(two ^ second[start + i]) <= most)
    return close > 0


@compiled
def _sort_by_band(words: Any, band: int, values: int, telling: Any) -> Any:
    """Return `Sorted` by a band's value modulo `values`, a power of two, with two `telling` words."""
    word, shift, mask = band // 4, np.uint64(band % 4 * 16), np.uint64(values - 1)
    starts = np.zeros(values + 1, np.int64)
    for i in range(len(words)):
        starts[np.int64((words[i, word] >> shift) & mask) + 1] += 1
    starts = np.cumsum(starts)
    free = starts.copy()
    order = np.empty(len(words), np.uint32)
    for i in range(len(words)):
        value = np.int64((words[i, word] >> shift) & mask)
        order[free[value]] = i
        free[value] += 1
    first, second = np.zeros(len(words) + STEP, np.uint64), np.zeros(len(words) + STEP, np.uint64)
    for i in range(len(words)):
        first[i] = words[order[i], telling[0]]
        second[i] = words[order[i], telling[1]]
    return Sorted(starts, order, first, second)


@compiled
def _met_before(a: Any, i: int, b: Any, j: int, tolerated: Any) -> bool:
    """Return whether an earlier band brought the same two together."""
    for band in range(len(tolerated)):
        differing = (a[i, band // 4] ^ b[j, band // 4]) >> np.uint64(band % 4 * 16)
        if np.int64(_ones(differing & np.uint64(0xFFFF))) <= tolerated[band]:
            return True
    return False


@compiled
def _scan(
    outer: Any,
    inner: Any,
    by_outer: Any,
    by_inner: Any,
    flips: Any,
    earlier: Any,
    radius: int,
    is_itself: bool,
    place: Any,
    found: Any,
) -> int:
    """Fill `found` from `place` on, which moves on; return how many there are."""
    count = 0
    most = np.uint64(radius)
    tile = min(TILE, len(found))
    for flip in range(place[0], len(flips)):
        for value in range(place[1], len(by_outer.starts) - 1):
            o_begin, o_end = by_outer.starts[value], by_outer.starts[value + 1]
            other = value ^ flips[flip]
            if o_begin == o_end or (is_itself and other < value):
                continue
            i_begin, i_end = by_inner.starts[other], by_inner.starts[other + 1]
            for begin in range(i_begin + place[2], i_end, tile):
                end = min(begin + tile, i_end)
                for o in range(o_begin + place[3], o_end):
                    low = max(begin, o + 1) if is_itself and other == value else begin
                    one, two = by_outer.first[o], by_outer.second[o]
                    if not any_close(one, two, by_inner.first, by_inner.second, low, end, most):
                        continue
                    if count + end - begin > len(found):
                        place[:] = flip, value, begin - i_begin, o - o_begin
                        return count
                    for i in range(low, end):
                        a, b = by_outer.order[o], by_inner.order[i]
                        bits = distance(outer, a, inner, b)
                        if bits > radius or _met_before(outer, a, inner, b, earlier):
                            continue
                        found[count, 0], found[count, 1], found[count, 2] = a, b, bits
                        count += 1
                place[3] = 0
            place[2] = 0
        place[1] = 0
    place[0] = len(flips)
    return count
