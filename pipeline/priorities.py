"""Fixed priorities of pairs for their queries, and the thresholds that make a cap exact.

`u(p, q)` is a 64-bit hash of pair, query and seed. A query over its cap keeps the `cap` pairs with
the smallest (u, pair_id). The second key only ever matters where two hashes are equal, and makes
the order total, so that the cap is exact even then.
"""

import binascii
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_TOP = 2.0**64


@dataclass(frozen=True, kw_only=True)
class MatchList:
    """All (pair, query) matches of a table, flat, in the order of its rows.

    Attributes:
        row: index of the pair's row.
        query: id of the query.
        priority: u(pair, query).
        high, low: the two halves of the pair's 128-bit id.
    """

    row: I64
    query: I64
    priority: U64
    high: U64
    low: U64


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """For each query id, the largest (priority, high, low) that is selected; all where not capped."""

    priority: U64
    high: U64
    low: U64

    @classmethod
    def none(cls, queries: int) -> "Thresholds":
        """Return thresholds that select every match of each of `queries` queries."""
        top = np.full(queries, np.iinfo(np.uint64).max, np.uint64)
        return cls(priority=top, high=top.copy(), low=top.copy())

    def selects(self, matches: MatchList) -> npt.NDArray[np.bool_]:
        """Return for each match whether it is at or below its query's threshold."""
        q = matches.query
        below: npt.NDArray[np.bool_] = matches.priority < self.priority[q]
        level = matches.priority == self.priority[q]
        if not level.any():
            return below
        id_below = (matches.high < self.high[q]) | (
            (matches.high == self.high[q]) & (matches.low <= self.low[q])
        )
        selected: npt.NDArray[np.bool_] = below | (level & id_below)
        return selected


def pair_id_halves(pair_ids: pa.ChunkedArray) -> tuple[U64, U64]:
    """Return the high and low 64 bits of pair ids given as 32 hex digits each."""
    column = pair_ids.combine_chunks() if isinstance(pair_ids, pa.ChunkedArray) else pair_ids
    digits = _characters(column) if len(column) else b""
    halves = np.frombuffer(binascii.unhexlify(digits), dtype=">u8").reshape(-1, 2)
    return halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)


def _characters(column: pa.StringArray) -> memoryview:
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]


def match_list(pairs: pa.Table, seed: int) -> MatchList:
    """Return every match of `pairs`, which has the columns pair_id and query_ids, with its priority."""
    ids = pairs.column("query_ids").combine_chunks()
    counts = ids.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    row = np.repeat(np.arange(len(pairs), dtype=np.int64), counts)
    query = ids.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    high, low = pair_id_halves(pairs.column("pair_id"))
    return MatchList(
        row=row,
        query=query,
        priority=priorities(high[row], low[row], query, seed),
        high=high[row],
        low=low[row],
    )


def priorities(high: U64, low: U64, query: I64, seed: int) -> U64:
    """Return u(pair, query) for each pair id, given in halves, and query id."""
    key = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    mixed = _mix(query.astype(np.uint64) ^ _mix(np.asarray([key]))[0])
    return _mix(_mix(mixed ^ low) ^ high)


def _mix(x: U64) -> U64:
    # The finaliser of SplitMix64 (Steele et al., 2014) after one step of its counter.
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def candidate_limits(counts: I64, cap: int, sigmas: float) -> U64:
    """Return for each query the priority below which its `cap` smallest almost surely lie.

    The number of matches below a limit is binomial; the limit is set so that its mean is `sigmas`
    standard deviations over the cap. Queries at or under the cap get 0: they need no candidates.

    Args:
        counts: matches per query.
        sigmas: safety margin; 6 fails about once in a billion queries, and failing costs a repeat.
    """
    wanted = cap + sigmas * np.sqrt(cap) + sigmas**2
    share = wanted / np.maximum(counts, 1)
    limits = np.full(len(counts), np.iinfo(np.uint64).max, np.uint64)
    partial = share < 1
    limits[partial] = (share[partial] * _TOP).astype(np.uint64)
    limits[counts <= cap] = 0
    return limits


def smallest(candidates: MatchList, cap: int) -> tuple[I64, Thresholds, I64]:
    """Return each query's `cap`-th smallest candidate, and the queries that have fewer than `cap`.

    Returns:
        query ids with enough candidates, ascending; their thresholds, in that order; query ids
        with too few.
    """
    order = np.lexsort((candidates.low, candidates.high, candidates.priority, candidates.query))
    query = candidates.query[order]
    ids, first, counts = np.unique(query, return_index=True, return_counts=True)
    enough = counts >= cap
    last = order[first[enough] + cap - 1]
    found = Thresholds(
        priority=candidates.priority[last], high=candidates.high[last], low=candidates.low[last]
    )
    return ids[enough], found, ids[~enough]
