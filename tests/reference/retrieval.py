"""Recall by two loops over every query and every candidate."""

from collections.abc import Sequence


def recall(
    queries: Sequence[Sequence[float]],
    targets: Sequence[Sequence[float]],
    own: Sequence[set[int]],
    k: int,
) -> float:
    """Return the share of queries with a target of their own among the first `k`, ties last."""
    hits = []
    for query, mine in zip(queries, own, strict=True):
        if not mine:
            continue
        found = [sum(a * b for a, b in zip(query, target, strict=True)) for target in targets]
        best = max(found[t] for t in mine)
        before = [t for t in range(len(targets)) if t not in mine and found[t] >= best]
        hits.append(len(before) < k)
    return sum(hits) / len(hits)
