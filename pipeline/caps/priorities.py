"""Fixed priorities of pairs for their queries, and the thresholds that make a cap exact.

`u(p, q)` is a 64-bit hash of pair, query and seed. A query over its cap keeps the `cap` pairs with
the smallest (u, pair_id). The second key only ever matters where two hashes are equal, and makes
the order total, so that the cap is exact even then. The loops are in `priority_kernels`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.inputs.pairs import pair_id_halves

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

HIGHEST = np.iinfo(np.uint64).max
_TOP = 2.0**64


@dataclass(frozen=True, kw_only=True)
class Matches:
    """All (pair, query) matches of a table, in the order of its rows.

    Attributes:
        starts: where each row's queries begin in `query`, and where the last row's end.
        query: query ids.
        high, low: the two halves of each row's 128-bit pair id.
    """

    starts: I32
    query: I32
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
        top = np.full(queries, HIGHEST, np.uint64)
        return cls(priority=top, high=top.copy(), low=top.copy())


def read_query_ids(pairs: pa.Table, queries: int) -> tuple[I32, I32]:
    """Return `Matches.starts` and `Matches.query` of `pairs`, which has the column query_ids.

    Raises:
        InputError: if a query id is not one of a list of `queries`.
    """
    ids = pairs.column("query_ids").combine_chunks()
    starts, query = ids.offsets.to_numpy(), ids.flatten().to_numpy(zero_copy_only=False)
    # The compiled loops index by these ids and do not look.
    if len(query) and (query.min() < 0 or query.max() >= queries):
        outside = query[(query < 0) | (query >= queries)][0]
        raise InputError(
            f"query id {outside} was met, but the list has {queries:,} queries; "
            "run `witmill match` and what follows it again"
        )
    return starts - starts[0], query


def read_matches(pairs: pa.Table, queries: int) -> Matches:
    """Return the matches of `pairs`, which has the columns pair_id and query_ids.

    Raises:
        InputError: if a query id is not one of a list of `queries`.
    """
    starts, query = read_query_ids(pairs, queries)
    high, low = pair_id_halves(pairs.column("pair_id"))
    return Matches(starts=starts, query=query, high=high, low=low)


def query_keys(queries: int, seed: int) -> U64:
    """Return what each query and the seed make of a priority, for the compiled loops."""
    from pipeline.caps import priority_kernels

    keys: U64 = priority_kernels.query_keys(queries, np.uint64(seed))
    return keys


def search_window(counts: I64, cap: int, sigmas: float) -> tuple[U64, U64]:
    """Return for each query the priorities between which its `cap`-th smallest almost surely lies.

    The number of matches below a priority is binomial; the ends are where its mean is `sigmas`
    standard deviations under and over the cap. Queries with at most `cap` matches get an empty window,
    its first end above its last.

    Args:
        counts: matches per query.
        cap: pairs that a query may keep.
        sigmas: safety margin; 6 fails about once in a billion queries, and failing costs a repeat.
    """
    margin = sigmas * np.sqrt(cap) + sigmas**2
    lowest = np.full(len(counts), HIGHEST, np.uint64)
    highest = np.zeros(len(counts), np.uint64)
    over = counts > cap
    lowest[over] = (max(cap - margin, 0.0) / counts[over] * _TOP).astype(np.uint64)
    share = (cap + margin) / counts[over]
    ends = np.full(len(share), HIGHEST, np.uint64)
    ends[share < 1] = (share[share < 1] * _TOP).astype(np.uint64)
    highest[over] = ends
    return lowest, highest
