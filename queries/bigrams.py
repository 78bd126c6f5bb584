"""Queries of two words that stand together far more often than chance (CLIP, section 2.2).

The measure is pointwise mutual information in bits, log2(p(xy) / (p(x) p(y))). Two corpora are
counted, since neither gives enough good pairs alone:

* a trillion words of the web of 2006, of which the package `wordsegment` carries the 286,358 most
  frequent pairs and the 333,213 most frequent words. Its pairs of highest PMI are spam, templates and
  typing errors, so three filters apply: both words are content words not rare in Wikipedia, neither
  is typical of web pages rather than of Wikipedia, and some Wikipedia title contains the pair.
* the titles of Wikipedia's articles themselves, where a floor under the pair's count is enough.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.candidates import candidates

# Words in the corpus of which `wordsegment` carries the counts (Brants and Franz, 2006).
WEB_WORDS_TOTAL = 1_024_908_267_229

_COUNT = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """How often words, and pairs of neighbours ("x y"), occur in one corpus of `total` words."""

    words: Mapping[str, int]
    pairs: Mapping[str, int]
    total: int

    def pmi(self, pair: str) -> float:
        """Return the pointwise mutual information of `pair`, in bits."""
        first, second = pair.split(" ")
        chance = self.words[first] * self.words[second] / self.total
        # Rounded, so that no platform's logarithm decides the order of two queries.
        return round(math.log2(self.pairs[pair] / chance), 3)


def read_web_counts(words: str, pairs: str, *, total: int = WEB_WORDS_TOTAL) -> PairCounts:
    """Return the counts in two files of `text⇥count` lines.

    Raises:
        InputError: if a line is something else.
    """
    return PairCounts(words=_read_counts(words), pairs=_read_counts(pairs), total=total)


def count_title_pairs(titles: Iterable[str], words: Set[str]) -> PairCounts:
    """Return the counts of `words` and of pairs of them in normalised titles."""
    word_counts: Counter[str] = Counter()
    pair_counts: Counter[str] = Counter()
    total = 0
    for title in titles:
        cut = title.split(" ")
        total += len(cut)
        word_counts.update(cut)
        pair_counts.update(_pairs(cut, words))
    known = {word: word_counts[word] for word in words if word in word_counts}
    return PairCounts(words=known, pairs=dict(pair_counts), total=total)


def attested_pairs(titles: Iterable[str], words: Set[str], pairs: Set[str]) -> frozenset[str]:
    """Return those of `pairs` that stand in a normalised title, the second word in either number."""
    return frozenset(
        variant
        for title in titles
        for pair in _pairs(title.split(" "), words)
        for variant in _either_number(pair)
        if variant in pairs
    )


def web_bigrams(
    web: PairCounts,
    wikipedia: Mapping[str, int],
    *,
    words: Set[str],
    attested: Set[str],
    minimum_pmi: float,
    maximum_excess: float,
) -> Iterator[tuple[str, int, float]]:
    """Yield (pair, count, PMI) of the web's pairs that pass the filters.

    Args:
        wikipedia: how often each word occurs in Wikipedia.
        words: the words that may take part.
        attested: the pairs that a title of Wikipedia contains.
        maximum_excess: how many bits more frequent a word may be on the web than in Wikipedia.
    """
    total = sum(wikipedia.values())
    usable = {
        word
        for word in words & web.words.keys()
        if math.log2(web.words[word] / web.total * total / wikipedia[word]) <= maximum_excess
    }
    for pair, count in web.pairs.items():
        if (
            next(_pairs(pair.split(" "), usable), None) == pair
            and pair in attested
            and (pmi := web.pmi(pair)) >= minimum_pmi
        ):
            yield pair, count, pmi


def title_bigrams(
    titles: PairCounts, *, minimum_count: int, minimum_pmi: float
) -> Iterator[tuple[str, int, float]]:
    """Yield (pair, count, PMI) of the pairs in titles that reach both floors."""
    for pair, count in titles.pairs.items():
        if count >= minimum_count and (pmi := titles.pmi(pair)) >= minimum_pmi:
            yield pair, count, pmi


def bigram_queries(*corpora: Iterable[tuple[str, int, float]]) -> pa.Table:
    """Return the pairs of all corpora, highest PMI first; the first corpus to know a pair counts."""
    found: dict[str, tuple[int, float]] = {}
    for corpus in corpora:
        for pair, count, pmi in corpus:
            found.setdefault(pair, (count, pmi))
    return candidates("bigram", ((pair, *figures) for pair, figures in found.items()))


def _pairs(cut: list[str], words: Set[str]) -> Iterator[str]:
    for first, second in pairwise(cut):
        if first in words and second in words and first != second:
            yield f"{first} {second}"


def _either_number(pair: str) -> tuple[str, ...]:
    return (pair, f"{pair}s", pair[:-1]) if pair.endswith("s") else (pair, f"{pair}s")


def _read_counts(path: str) -> dict[str, int]:
    counts = {}
    lines = storage.read_bytes(path).decode("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        text, _, count = line.partition("\t")
        if not (text and _COUNT.fullmatch(count)):
            raise InputError(f"{path} line {number} is {line[:40]!r}, expected `text⇥count`")
        counts[text] = int(count)
    return counts
