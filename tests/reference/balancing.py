"""The cap as design says it: sort each query's pairs by priority and keep the first ones."""

import numpy as np

from pipeline.priorities import priorities

Pairs = dict[str, list[int]]


def priority(pair_id: str, query: int, seed: int) -> int:
    high = np.array([int(pair_id[:16], 16)], np.uint64)
    low = np.array([int(pair_id[16:], 16)], np.uint64)
    return int(priorities(high, low, np.array([query]), seed)[0])


def selection(pairs: Pairs, cap: int, seed: int) -> dict[str, list[int]]:
    """Return, per kept pair, the queries that chose it."""
    chosen: dict[str, list[int]] = {}
    for query in sorted({q for ids in pairs.values() for q in ids}):
        holders = [pair for pair, ids in pairs.items() if query in ids]
        holders.sort(key=lambda pair: (priority(pair, query, seed), pair))
        for pair in holders[:cap]:
            chosen.setdefault(pair, []).append(query)
    return chosen
