"""Queries from the titles of Wikipedia's articles.

CLIP took titles "above a certain search volume". Where page views have been counted
(`queries.pageviews`), they rank the titles. Without them, as in the packages, another sign of demand
does: how many redirects people have made to the article (other names, spellings and abbreviations
under which it is looked for), and how common its rarest word is:

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
_TOLD_APART = r"(?s)^(.*\S) \([^()]*\)$"
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
    return normalized(schemas.check(_read(path, "title, redirects"), TITLES, source=path))


def read_views(path: str) -> pa.Table:
    """Return the rows of a Parquet file with the columns PAGE_VIEWS.

    Raises:
        InputError: if it is not such a file.
    """
    return schemas.check(_read(path, "title, views"), schemas.PAGE_VIEWS, source=path)


def normalized(table: pa.Table) -> pa.Table:
    """Return a table with its column `title` normalised."""
    titles = pa.array((normalize(title) for title in texts(table["title"])), pa.string())
    return table.set_column(table.column_names.index("title"), "title", titles)


def bare(table: pa.Table) -> pa.Table:
    """Return a table with titles as people say them: "Mercury (planet)" is "Mercury"."""
    titles = pc.replace_substring_regex(table["title"], _TOLD_APART, r"\1")
    return table.set_column(table.column_names.index("title"), "title", titles)


def texts(column: pa.ChunkedArray) -> Iterator[str]:
    """Yield the strings of a column, a piece of it at a time in memory."""
    for start in range(0, len(column), _PIECE):
        yield from column.slice(start, _PIECE).to_pylist()


def viewed_queries(views: pa.Table, *, minimum: int) -> pa.Table:
    """Return the titles of articles, most viewed first; those below `minimum` miss a floor.

    Articles that bear the same name, told apart in parentheses, are one query: who types the name
    may mean any, so their views add up.

    Args:
        views: rows of PAGE_VIEWS.
    """
    named = normalized(bare(views)).group_by("title").aggregate([("views", "sum")])
    named = named.filter(pc.match_substring_regex(named["title"], r"[\pL\pN]"))
    rows = {
        "query": named["title"],
        "views": named["views_sum"],
        "missed": pc.if_else(pc.less(named["views_sum"], minimum), "views", None),
    }
    return candidates("title", rows, order=[("views", "descending")])


def title_queries(
    articles: pa.Table,
    words: Mapping[str, int],
    *,
    minimum_redirects: int,
    minimum_word_count: int,
) -> pa.Table:
    """Return the titles of articles, highest score first; only those of two words and more that name a thing rank.

    Args:
        articles: rows of TITLES, normalised, of articles only.
        words: how often each word occurs in Wikipedia; words below the minimum may be absent.
        minimum_word_count: how often each of a title's words must.
    """
    named = articles.group_by("title").aggregate([("redirects", "max")])
    named = named.filter(pc.not_equal(named["title"], ""))
    redirects = named["redirects_max"].to_pylist()
    judged = [
        (None, "redirects")
        if n < minimum_redirects
        else _judge(title, n, words, minimum_word_count)
        for title, n in zip(texts(named["title"]), redirects, strict=True)
    ]
    rows = {
        "query": named["title"],
        "redirects": named["redirects_max"],
        "score": pa.array((score for score, _ in judged), pa.float64()),
        "missed": pa.array((missed for _, missed in judged), pa.string()),
    }
    return candidates("title", rows, order=[("score", "descending")])


def _judge(
    title: str, redirects: int, words: Mapping[str, int], minimum_word_count: int
) -> tuple[float | None, str | None]:
    if not _names_a_thing(title):
        return None, "title_form"
    rarest = min(words.get(word, 0) for word in _long_words(title))
    if rarest < minimum_word_count:
        return None, "title_words"
    return round(math.log2(1 + redirects) + math.log2(rarest) / 8, 3), None


def _read(path: str, columns: str) -> pa.Table:
    try:
        with storage.open_input(path) as file:
            return pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is not a Parquet file; expected columns {columns}") from error


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
