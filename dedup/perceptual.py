"""Find PDQ hashes within a Hamming distance of each other, exactly, without comparing all with all.

`dedup.bands` says how. Here are the questions asked of it: all pairs within a radius; for each hash
the first of some others within it; and which hashes stay if each that stays drops those near it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dedup.bands import STEP, Near, Positions, Words, any_close, distance, meet, meet_itself
from pipeline.runtime.compiled import compiled

# Up to here comparing each with each takes less time than sorting by bands.
SMALL = 1 << 14
# Near pairs per hash beyond which half of the hashes thin out the other half first.
MANY = 16


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
    """Return every pair of a query and a target at most `radius` bits apart, by query, then target.

    Args:
        queries, targets: [hashes, 4].
    """
    met = list(meet(_contiguous(queries), _contiguous(targets), radius))
    none = np.empty(0, np.int64)
    query = np.concatenate([none, *(near.query for near in met)])
    target = np.concatenate([none, *(near.target for near in met)])
    bits = np.concatenate([none, *(near.distance for near in met)])
    order = np.lexsort((target, query))
    return Near(query=query[order], target=target[order], distance=bits[order])


def find_first(queries: Words, targets: Words, radius: int) -> Leaders:
    """Return for each query the first target at most `radius` bits from it.

    Takes 16 bytes a query, however many targets are near.
    """
    leaders = _no_leaders(len(queries))
    for near in meet(_contiguous(queries), _contiguous(targets), radius):
        _take_first(near.query, near.target, near.distance, leaders.leader, leaders.distance)
    return leaders


def keep_first(words: Words, radius: int) -> Leaders:
    """Decide in order of position: a hash is dropped if one that stays lies within `radius`.

    Each dropped hash is dropped for the first such one, so none is further than `radius` from what
    stays in its stead, however long a chain of neighbours is.
    """
    leaders = _no_leaders(len(words))
    _keep_among(_contiguous(words), np.arange(len(words)), radius, leaders)
    return leaders


def _keep_among(words: Words, rows: Positions, radius: int, leaders: Leaders) -> None:
    """Decide for `rows`, ascending, which nothing outside them drops.

    A hash with none near before it stays; one whose first near hash stays is dropped for it. Of the
    others, few as a rule, those near one that stays are dropped, and the rest are decided alike.
    """
    if len(rows) <= SMALL:
        _keep_few(words, rows, radius, leaders)
        return
    own = words[rows]
    first = _first_before(own, radius)
    if first is None:
        _keep_halves(words, rows, radius, leaders)
        return
    stays = first.leader < 0
    is_settled = ~stays & stays[first.leader]
    leaders.leader[rows[is_settled]] = rows[first.leader[is_settled]]
    leaders.distance[rows[is_settled]] = first.distance[is_settled]
    is_open = ~stays & ~is_settled
    _drop_for(words, rows[is_open], rows[stays], radius, leaders)
    rest = rows[is_open][leaders.leader[rows[is_open]] < 0]
    decide = _keep_among if len(rest) <= len(rows) // 2 else _keep_halves
    decide(words, rest, radius, leaders)
    dropped = np.setdiff1d(rows[is_open], rest, assume_unique=True)
    _drop_for(words, dropped, rest[leaders.leader[rest] < 0], radius, leaders)


def _keep_halves(words: Words, rows: Positions, radius: int, leaders: Leaders) -> None:
    former, latter = np.split(rows, [len(rows) // 2])
    _keep_among(words, former, radius, leaders)
    _drop_for(words, latter, former[leaders.leader[former] < 0], radius, leaders)
    _keep_among(words, latter[leaders.leader[latter] < 0], radius, leaders)


def _keep_few(words: Words, rows: Positions, radius: int, leaders: Leaders) -> None:
    own, found = words[rows], _no_leaders(len(rows))
    first, second = (np.append(own[:, word], np.zeros(STEP, np.uint64)) for word in (0, 1))
    _keep_small(own, first, second, radius, found.leader, found.distance)
    is_dropped = found.leader >= 0
    leaders.leader[rows[is_dropped]] = rows[found.leader[is_dropped]]
    leaders.distance[rows[is_dropped]] = found.distance[is_dropped]


def _drop_for(
    words: Words, rows: Positions, kept: Positions, radius: int, leaders: Leaders
) -> None:
    """Drop `rows` for the first of `kept` near it, if it comes before them and their leader."""
    for near in meet(words[rows], words[kept], radius):
        query, target = rows[near.query], kept[near.target]
        is_before = target < query
        _take_first(
            query[is_before],
            target[is_before],
            near.distance[is_before],
            leaders.leader,
            leaders.distance,
        )


def _first_before(words: Words, radius: int) -> Leaders | None:
    """Return for each hash the first one near it, if that is before it; None if too many are near."""
    leaders = _no_leaders(len(words))
    left = MANY * len(words)
    for near in meet_itself(words, radius):
        left -= len(near.query)
        if left < 0:
            return None
        _take_first(near.query, near.target, near.distance, leaders.leader, leaders.distance)
    return leaders


def _no_leaders(count: int) -> Leaders:
    return Leaders(leader=np.full(count, -1, np.int64), distance=np.zeros(count, np.int64))


def _contiguous(words: Words) -> Words:
    return np.ascontiguousarray(words, np.uint64)


@compiled
def _take_first(query: Any, target: Any, bits: Any, leader: Any, distances: Any) -> None:
    for i in range(len(query)):
        best = leader[query[i]]
        if best < 0 or target[i] < best:
            leader[query[i]], distances[query[i]] = target[i], bits[i]


@compiled
def _keep_small(
    words: Any, first: Any, second: Any, radius: int, leader: Any, distances: Any
) -> None:
    for a in range(len(words)):
        if leader[a] >= 0:
            continue
        one, two = first[a], second[a]
        if not any_close(one, two, first, second, a + 1, len(words), np.uint64(radius)):
            continue
        for b in range(a + 1, len(words)):
            bits = distance(words, a, words, b)
            if bits <= radius and leader[b] < 0:
                leader[b], distances[b] = a, bits
