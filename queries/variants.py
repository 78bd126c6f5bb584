"""Other spellings of a query, and the shorter queries inside it."""

import re
import unicodedata
from collections.abc import Iterator

from queries.text import normalize

_SIBILANT = re.compile(r"(?:s|x|z|ch|sh)$")


def variants(query: str) -> list[str]:
    """Return queries that differ from a normalised `query` in number, hyphens, spaces or accents."""
    found = dict.fromkeys((*_numbers(query), *_joints(query), _without_accents(query)))
    return [other for other in found if other and other != query]


def parts(query: str) -> list[str]:
    """Return the shorter runs of tokens in a normalised `query`, longest first."""
    cut = query.split(" ")
    return list(
        dict.fromkeys(
            " ".join(cut[start : start + length])
            for length in range(len(cut) - 1, 0, -1)
            for start in range(len(cut) - length + 1)
        )
    )


def _numbers(query: str) -> Iterator[str]:
    yield f"{query}es" if _SIBILANT.search(query) else f"{query}s"
    if query.endswith("y"):
        yield f"{query[:-1]}ies"
    if query.endswith("ies"):
        yield f"{query[:-3]}y"
    if query.endswith("es"):
        yield query[:-2]
    if query.endswith("s"):
        yield query[:-1]


def _joints(query: str) -> Iterator[str]:
    spaced = query.replace(" - ", " ")
    yield spaced
    yield spaced.replace(" ", "")
    yield " - ".join(spaced.split(" "))
    yield query.replace(" ' ", "").replace(" . ", "").removesuffix(" .")


def _without_accents(query: str) -> str:
    decomposed = unicodedata.normalize("NFD", query)
    return normalize("".join(c for c in decomposed if not unicodedata.combining(c)))
