"""Queries of two words that stand together far more often than chance (CLIP, section 2.2).

The measure is pointwise mutual information in bits, log2(p(xy) / (p(x) p(y))). Where Wikipedia's
text itself has been counted (`queries.wikipedia`), its pairs are taken. No package carries those
counts; without them two other corpora are counted, since neither gives enough good pairs alone:

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
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.candidates import Order, candidates

# Words in the corpus of which `wordsegment` carries the counts (Brants and Franz, 2006).
WEB_WORDS_TOTAL = 1_024_908_267_229

_COUNT = re.compile(r"[1-9][0-9]{0,17}")


_BEST_FIRST: Order = [("pmi", "descending"), ("count", "descending")]


class Bigram(NamedTuple):
    """A pair "x y" of one corpus with its figures, and the floor it misses, if any."""

    pair: str
    occurrences: int
    pmi: float | None
    missed: str | None


Bigrams = Iterator[Bigram]


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
    total: int,
    minimum_pmi: float,
    maximum_excess: float,
) -> Bigrams:
    """Yield the web's pairs, each with the first filter that it does not pass.

    Args:
        wikipedia: how often each of `words` occurs in Wikipedia, which has `total` words.
        words: the words that may take part.
        attested: the pairs that a title of Wikipedia contains.
        maximum_excess: how many bits more frequent a word may be on the web than in Wikipedia.
    """
    known = words & web.words.keys()
    usable = {
        word
        for word in known
        if math.log2(web.words[word] / web.total * total / wikipedia[word]) <= maximum_excess
    }
    for pair, count in web.pairs.items():
        if next(_pairs(pair.split(" "), known), None) != pair:
            yield Bigram(pair, count, None, "pair_words")
            continue
        missed = None
        if next(_pairs(pair.split(" "), usable), None) != pair:
            missed = "web_excess"
        elif pair not in attested:
            missed = "no_title"
        elif web.pmi(pair) < minimum_pmi:
            missed = "web_pmi"
        yield Bigram(pair, count, web.pmi(pair), missed)


def title_bigrams(titles: PairCounts, *, minimum_count: int, minimum_pmi: float) -> Bigrams:
    """Yield the pairs in titles, each with the first floor that it does not reach."""
    for pair, count in titles.pairs.items():
        if count < minimum_count:
            yield Bigram(pair, count, None, "title_pairs")
        else:
            pmi = titles.pmi(pair)
            yield Bigram(pair, count, pmi, None if pmi >= minimum_pmi else "title_pmi")


def bigram_queries(*corpora: Bigrams) -> pa.Table:
    """Return the pairs of all corpora, highest PMI first.

    A pair has the figures of the first corpus in which it misses no floor, else of the first.
    """
    found: dict[str, Bigram] = {}
    for corpus in corpora:
        for bigram in corpus:
            known = found.get(bigram.pair)
            if known is None or (known.missed and not bigram.missed):
                found[bigram.pair] = bigram
    pairs, counts, pmis, missed = zip(*found.values(), strict=True) if found else ((),) * 4
    columns = {
        "query": pa.array(pairs, pa.string()),
        "count": pa.array(counts, pa.int64()),
        "pmi": pa.array(pmis, pa.float64()),
        "missed": pa.array(missed, pa.string()),
    }
    return candidates("bigram", columns, order=_BEST_FIRST)


def wikipedia_bigrams(
    table: pa.Table,
    words: Set[str],
    *,
    minimum_count: int,
    minimum_pmi: float,
    maximum: int | None,
) -> pa.Table:
    """Return the pairs of Wikipedia's text, highest PMI first.

    Args:
        table: rows of bigram, count and pmi.
        words: the words that may take part.
        maximum: pairs that may reach all floors: the most frequent that do; None for all.
    """
    halves = pc.split_pattern(table["bigram"], " ").combine_chunks()
    allowed = pa.array(words, pa.string())
    first, second = (pc.is_in(pc.list_element(halves, i), value_set=allowed) for i in (0, 1))
    missed = pc.case_when(
        pc.make_struct(
            pc.invert(pc.and_(first, second)),
            pc.less(table["count"], minimum_count),
            pc.less(table["pmi"], minimum_pmi),
        ),
        "pair_words",
        "bigram_count",
        "bigram_pmi",
    )
    columns = {"query": table["bigram"], "count": table["count"], "pmi": table["pmi"]}
    rows = pa.table({**columns, "missed": missed})
    return candidates("bigram", _limited(rows, maximum), order=_BEST_FIRST)


def _limited(rows: pa.Table, maximum: int | None) -> Mapping[str, pa.ChunkedArray]:
    reached = rows.filter(pc.is_null(rows["missed"]))
    if maximum is not None and len(reached) > maximum:
        ordered = reached.sort_by([("count", "descending"), ("query", "ascending")])
        late = pa.array([None] * maximum + ["bigram_limit"] * (len(ordered) - maximum), pa.string())
        ordered = ordered.set_column(ordered.column_names.index("missed"), "missed", late)
        rows = pa.concat_tables([ordered, rows.filter(pc.is_valid(rows["missed"]))])
    return {name: rows[name] for name in rows.column_names}


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
