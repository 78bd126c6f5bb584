"""Queries of one word: those that occur often enough in English Wikipedia (CLIP, section 2.2).

Reads counts as the package `pywordfreq` carries them: gzip, UTF-8, one `word;count` a line. The
words there were cut at white space and some punctuation, so some entries hold several tokens
("covid-19", "d'état") or scraps of markup (`style="background`); an entry counts only if it is
exactly one token. Spellings that normalise alike ("km²", "km2") are added up.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.candidates import candidates
from queries.text import tokens

# Markup that the counts' extraction left in place, and headings it glued to the next word
# ("Order: PasseriformesFamily: ..." in lists of birds).
MARKUP = frozenset({"bgcolor", "colspan", "infobox", "rowspan", "valign"})
_COUNT = re.compile(r"[0-9]{1,18}")
_GLUED = re.compile(r"\w+iformesfamily")
_ONE_LETTER_REPEATED = re.compile(r"([^\W\d])\1{3,}")


def word_counts(path: str) -> dict[str, int]:
    """Return how often each word occurs, for all entries that are one token.

    Raises:
        InputError: if the file is not gzip or a line has no count.
    """
    try:
        lines = gzip.decompress(storage.read_bytes(path)).decode("utf-8").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not gzipped UTF-8 text; expected lines `word;count`"
        ) from error
    counts: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        word, _, count = line.rpartition(";")
        if not _COUNT.fullmatch(count):
            raise InputError(f"{path} line {number} is {line[:40]!r}, expected `word;count`")
        # An entry with a semicolon is the rest of an HTML entity, such as "r&amp;b".
        if ";" not in word and is_word(cut := tokens(word)):
            counts[cut[0]] += int(count)
    return dict(counts)


def is_word(cut: list[str]) -> bool:
    """Return whether a text's tokens are a single word or number, and not a scrap of markup."""
    return (
        len(cut) == 1
        and any(character.isalnum() for character in cut[0])
        and cut[0] not in MARKUP
        and not _GLUED.fullmatch(cut[0])
        and not _ONE_LETTER_REPEATED.fullmatch(cut[0])
    )


def unigram_queries(words: pa.Table, *, minimum: int) -> pa.Table:
    """Return all of `words`, a table of word and count; those below `minimum` miss a floor."""
    missed = pc.if_else(pc.less(words["count"], minimum), "word_count", None)
    rows = {"query": words["word"], "count": words["count"], "missed": missed}
    return candidates("unigram", rows, order=[("count", "descending")])


def word_table(counts: Mapping[str, int]) -> pa.Table:
    """Return counts as a table of word and count."""
    words = pa.array(counts.keys(), pa.string())
    return pa.table({"word": words, "count": pa.array(counts.values(), pa.int64())})
