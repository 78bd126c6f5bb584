"""The compiled loops of the cap: count matches, find those near a threshold, select those up to it.

Matches are given as an Arrow list column is: `starts[row]` up to `starts[row + 1]` are a row's places in
`query`. `key` is what a query and the seed make of a priority, worked out once per query; `high` and
`low` are the halves of each row's pair id.
"""

import numpy as np
import numpy.typing as npt

from pipeline.runtime.compiled import compiled, inlined

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Near = tuple[I32, U64, U64, U64]

STEP = np.uint64(0x9E3779B97F4A7C15)
MIX, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
U27, U30, U31 = np.uint64(27), np.uint64(30), np.uint64(31)


@inlined
def mix(x: np.uint64) -> np.uint64:
    """Return one step of SplitMix64 (Steele et al., 2014): its counter, then its finaliser."""
    x = x + STEP
    x = (x ^ (x >> U30)) * MIX
    x = (x ^ (x >> U27)) * MIX_2
    return x ^ (x >> U31)


@inlined
def priority(key: np.uint64, high: np.uint64, low: np.uint64) -> np.uint64:
    """Return u(pair, query)."""
    return mix(mix(key ^ low) ^ high)


@compiled
def query_keys(queries: int, seed: np.uint64) -> U64:
    """Return the `key` of each query."""
    keys = np.empty(queries, np.uint64)
    mixed_seed = mix(seed)
    for q in range(queries):
        keys[q] = mix(np.uint64(q) ^ mixed_seed)
    return keys


@compiled
def count_matches(query: I32, queries: int) -> I64:
    """Return how often each query occurs."""
    counts = np.zeros(queries, np.int64)
    for i in range(query.size):
        counts[query[i]] += 1
    return counts


@compiled
def near_matches(
    starts: I32, query: I32, high: U64, low: U64, key: U64, lowest: U64, highest: U64
) -> tuple[I64, Near]:
    """Return per query the matches below `lowest`, and all matches from there to `highest`.

    Queries with lowest > highest are left out. The second value is (query, priority, high, low).
    """
    below = np.zeros(key.size, np.int64)
    is_near = np.zeros(query.size, np.bool_)
    found = 0
    for row in range(high.size):
        for i in range(starts[row], starts[row + 1]):
            q = query[i]
            if lowest[q] > highest[q]:
                continue
            u = priority(key[q], high[row], low[row])
            if u < lowest[q]:
                below[q] += 1
            elif u <= highest[q]:
                is_near[i] = True
                found += 1
    near = (
        np.empty(found, np.int32),
        np.empty(found, np.uint64),
        np.empty(found, np.uint64),
        np.empty(found, np.uint64),
    )
    n = 0
    for row in range(high.size):
        for i in range(starts[row], starts[row + 1]):
            if is_near[i]:
                q = query[i]
                near[0][n], near[1][n] = q, priority(key[q], high[row], low[row])
                near[2][n], near[3][n] = high[row], low[row]
                n += 1
    return below, near


@compiled
def select_matches(
    starts: I32,
    query: I32,
    high: U64,
    low: U64,
    key: U64,
    top: U64,
    top_high: U64,
    top_low: U64,
) -> tuple[I32, I32, I64, I64]:
    """Select the matches at or below their query's threshold, (`top`, `top_high`, `top_low`).

    Returns:
        how many matches of each row; their queries, in order; and, per query, how many matches were
        selected and in how many rows with a selected match it is present.
    """
    per_row = np.zeros(high.size, np.int32)
    chosen = np.empty(query.size, np.int32)
    selected = np.zeros(key.size, np.int64)
    present = np.zeros(key.size, np.int64)
    n = 0
    for row in range(high.size):
        before = n
        for i in range(starts[row], starts[row + 1]):
            q = query[i]
            u = priority(key[q], high[row], low[row])
            is_in = u < top[q]
            if u == top[q]:
                is_in = high[row] < top_high[q] or (
                    high[row] == top_high[q] and low[row] <= top_low[q]
                )
            if is_in:
                chosen[n] = q
                selected[q] += 1
                n += 1
        per_row[row] = n - before
        if n > before:
            for i in range(starts[row], starts[row + 1]):
                present[query[i]] += 1
    return per_row, chosen[:n], selected, present
