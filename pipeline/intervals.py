"""Exact confidence intervals of a share (Clopper and Pearson, 1934), and the binomial tail behind them."""

import math
from collections.abc import Callable

import numpy as np

HALVINGS = 60


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of the chance of a hit, given `hits` of `trials`, at least 1.

    The lower end is the chance under which `hits` or more are as rare as half of what the confidence
    leaves; the upper end, that under which `hits` or fewer are.
    """
    tail = (1 - confidence) / 2
    return 1 - upper_end(trials - hits, trials, tail), upper_end(hits, trials, tail)


def upper_end(hits: int, trials: int, tail: float) -> float:
    """Return the chance of a hit under which `hits` or fewer of `trials` have the probability `tail`."""
    if hits == trials:
        return 1.0
    # The rarer outcomes, of which there may be few among very many trials.
    if 2 * hits <= trials:
        up_to = _log_ways(trials, 0, hits)
        return _bisect(lambda p: up_to(p) > tail)
    beyond = _log_ways(trials, hits + 1, trials)
    return _bisect(lambda p: beyond(p) < 1 - tail)


def at_least(hits: int, trials: int, chance: float) -> float:
    """Return the probability of `hits` or more in `trials`, where each is one by `chance`.

    Summed from the tail's own terms, so that small ones keep their digits.
    """
    if hits <= 0:
        return 1.0
    if chance in (0.0, 1.0) or hits > trials:
        return float(hits <= trials * chance)
    return min(1.0, _log_ways(trials, hits, trials)(chance))


def _log_ways(trials: int, first: int, last: int) -> Callable[[float], float]:
    """Return a function from the chance of a hit to that of `first` to `last` hits."""
    counts = np.arange(first, last + 1)
    whole = math.lgamma(trials + 1)
    ways = np.array(
        [whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in counts.tolist()]
    )

    def chance(p: float) -> float:
        terms = ways + counts * math.log(p) + (trials - counts) * math.log1p(-p)
        return float(np.exp(terms).sum())

    return chance


def _bisect(is_below: Callable[[float], bool]) -> float:
    """Return the point between 0 and 1 up to which `is_below` holds."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
