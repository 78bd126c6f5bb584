"""Distances and false alarms, one pair at a time."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, comb


def bits(a: bytes, b: bytes) -> int:
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


def thousandths(a: Sequence[float], b: Sequence[float]) -> int:
    """Return the smallest t with a cosine of at least 1 - t/1000, but 1000 at most."""
    cosine = sum(Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True))
    return min(max(ceil(1000 * (1 - cosine)), 0), 1000)


def loosest(distances: Sequence[int], alarms: int, most: int) -> int:
    """Return the largest threshold up to `most` that at most `alarms` of the distances are within; or -1."""
    fitting = [t for t in range(most + 1) if sum(d <= t for d in distances) <= alarms]
    return max(fitting, default=-1)


def upper_bound(alarms: int, pairs: int) -> float:
    """Return the chance of an alarm under which so few of them have a probability of 5%, by halving."""
    low, high = Fraction(0), Fraction(1)
    for _ in range(40):
        middle = (low + high) / 2
        up_to = sum(
            comb(pairs, k) * middle**k * (1 - middle) ** (pairs - k) for k in range(alarms + 1)
        )
        # Kept short, or the fractions grow without end.
        low, high = (middle, high) if up_to > Fraction(1, 20) else (low, middle)
    return float((low + high) / 2)
