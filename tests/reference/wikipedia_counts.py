"""Words and pairs of neighbouring words, counted one after another; slow."""

import math
from collections import Counter
from collections.abc import Iterable

from queries.text import tokens
from queries.unigrams import is_word


def lines_of(texts: Iterable[str]) -> list[list[str]]:
    """Return the tokens of each line."""
    return [tokens(line) for text in texts for line in text.split("\n")]


def count_words(texts: Iterable[str]) -> Counter[str]:
    return Counter(token for line in lines_of(texts) for token in line if is_word([token]))


def count_pairs(texts: Iterable[str], words: Iterable[str]) -> Counter[str]:
    """Count the neighbours that both are among `words`."""
    known = set(words)
    pairs: Counter[str] = Counter()
    for line in lines_of(texts):
        for place in range(1, len(line)):
            first, second = line[place - 1], line[place]
            if first in known and second in known:
                pairs[f"{first} {second}"] += 1
    return pairs


def pmi(pair: str, pairs: Counter[str], words: Counter[str]) -> float:
    total = sum(words.values())
    first, second = pair.split(" ")
    together = pairs[pair] / total
    return math.log2(together / (words[first] / total * (words[second] / total)))
