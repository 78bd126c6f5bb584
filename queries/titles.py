"""Queries from the titles of Wikipedia's articles.

CLIP took titles "above a certain search volume". The packaged titles come without page views, so
another sign of demand ranks them: how many redirects people have made to the article (other names,
spellings and abbreviations under which it is looked for), and how common its rarest word is:

    score = log2(1 + redirects) + log2(count of the rarest word in Wikipedia) / 8

It is not a number of views, and a subject with few other names ranks lower than its fame.
"""

import math
import re
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.candidates import candidates
from queries.content_words import FUNCTION_WORDS
from queries.text import normalize

TITLES = pa.schema(
    [
        pa.field("title", pa.string(), nullable=False),
        pa.field("redirects", pa.int64(), nullable=True),
    ]
)
"""A title and how many redirects lead to it; null where the title is itself a redirect."""

MAXIMUM_TOKENS = 8
_PIECE = 1 << 16

# Lists, surveys and by-products rather than things: nobody captions a picture with them.
_SURVEY = re.compile(
    r"(?:lists?|index|outline|timeline|glossary|bibliography|discography|names|comparison|members"
    r"|characters|divisions|chronology|episodes|deaths|births|demographics|foreign relations|economy"
    r"|geography|politics|transport|communications|telecommunications|history|religion|education"
    r"|culture|music|crime|law|media|military|languages) (?:of|in) .*"
    # A numbered road has a redirect for each abbreviation, made by rote.
    r"|.+ (?:route|road|highway) \d+\w*(?: .*)?"
    r"|.* (?:discography|filmography|bibliography|disambiguation|main page)|main page|iso .*\d.*"
)
_PUNCTUATION = frozenset("-'.,&!?:")


def read_titles(path: str) -> pa.Table:
    """Return the titles in a Parquet file with the columns TITLES, normalised.

    Raises:
        InputError: if it is not such a file.
    """
    try:
        with storage.open_input(path) as file:
            table = pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path} is not a Parquet file; expected columns title, redirects"
        ) from error
    schemas.check(table, TITLES, source=path)
    normalized = (normalize(title) for title in texts(table["title"]))
    return pa.table([pa.array(normalized, pa.string()), table["redirects"]], schema=TITLES)


def texts(column: pa.ChunkedArray) -> Iterator[str]:
    """Yield the strings of a column, a piece of it at a time in memory."""
    for start in range(0, len(column), _PIECE):
        yield from column.slice(start, _PIECE).to_pylist()


def title_queries(
    articles: pa.Table,
    words: Mapping[str, int],
    *,
    minimum_redirects: int,
    minimum_word_count: int,
) -> pa.Table:
    """Return the titles of two words and more that name a thing, highest score first.

    Args:
        articles: rows of TITLES, normalised, of articles only.
        words: how often each word occurs in Wikipedia.
        minimum_word_count: how often each of a title's words must.
    """
    best: dict[str, float] = {}
    wanted = articles.filter(pc.greater_equal(articles["redirects"], minimum_redirects))
    redirects_of = wanted["redirects"].to_pylist()
    for title, redirects in zip(texts(wanted["title"]), redirects_of, strict=True):
        if not _names_a_thing(title):
            continue
        rarest = min(words.get(word, 0) for word in _long_words(title))
        if rarest >= minimum_word_count:
            score = round(math.log2(1 + redirects) + math.log2(rarest) / 8, 3)
            best[title] = max(score, best.get(title, 0.0))
    return candidates("title", ((title, None, score) for title, score in best.items()))


def _names_a_thing(title: str) -> bool:
    cut = title.split(" ")
    words = [token for token in cut if token not in _PUNCTUATION]
    return (
        len(words) >= 2
        and len(cut) <= MAXIMUM_TOKENS
        and all(word.isalnum() for word in words)
        and any(word not in FUNCTION_WORDS for word in _long_words(title))
        and not _SURVEY.fullmatch(title)
    )


def _long_words(title: str) -> list[str]:
    return [word for word in title.split(" ") if len(word) > 1 and word.isalpha()]
