"""Which corpus captions repeat which evaluation captions, by comparing each with each."""

import unicodedata
from collections.abc import Sequence

from queries.text import tokens


def words(caption: str) -> list[str]:
    return [token for token in tokens(caption) if unicodedata.category(token[0])[0] in "LMN"]


def runs(found: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(found[i : i + 4]) for i in range(len(found) - 3)}


def overlaps(
    corpus: Sequence[str], evaluation: Sequence[str], least: float
) -> dict[tuple[int, int], float]:
    """Return the share of runs that is missing, by numbers of corpus and evaluation caption."""
    found = {}
    for i, ours in enumerate(map(words, corpus)):
        for j, theirs in enumerate(map(words, evaluation)):
            if len(theirs) < 8:
                if ours == theirs and len(theirs) >= 4:
                    found[i, j] = 0.0
                continue
            wanted = runs(theirs)
            both = len(wanted & runs(ours))
            if both and both >= least * len(wanted) - 1e-9:
                found[i, j] = 1 - both / len(wanted)
    return found
