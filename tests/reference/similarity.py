"""Which vectors are similar, the slow and obvious way: every pair, summed without rounding."""

import math
from collections.abc import Sequence


def find_similar(
    queries: Sequence[Sequence[float]], targets: Sequence[Sequence[float]], least: float
) -> list[tuple[int, int, float]]:
    """Return (query, target, inner product) of all pairs that reach `least`, in order."""
    found = []
    for i, query in enumerate(queries):
        for j, target in enumerate(targets):
            similarity = math.fsum(a * b for a, b in zip(query, target, strict=True))
            if similarity >= least:
                found.append((i, j, similarity))
    return found
