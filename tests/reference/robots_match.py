"""Whether a path may be fetched under the rules of one group, by trying every way to match."""

from collections.abc import Sequence
from functools import cache


def allowed(rules: Sequence[tuple[bool, str]], path: str) -> bool:
    """Return what the longest matching pattern says; of several, that which allows; else yes."""
    matching = [(len(pattern), allows) for allows, pattern in rules if matches(pattern, path)]
    return max(matching)[1] if matching else True


def matches(pattern: str, path: str) -> bool:
    """Return whether `pattern`, with * for anything and $ for the end, matches a start of `path`."""
    anchored = pattern.endswith("$")
    text = pattern[:-1] if anchored else pattern

    @cache
    def from_here(p: int, q: int) -> bool:
        if p == len(text):
            return not anchored or q == len(path)
        if text[p] == "*":
            return any(from_here(p + 1, k) for k in range(q, len(path) + 1))
        return q < len(path) and text[p] == path[q] and from_here(p + 1, q + 1)

    return from_here(0, 0)
