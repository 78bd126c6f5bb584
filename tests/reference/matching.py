"""Matching, word for word as the rules are written; slow."""

import re
import unicodedata

# Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt as a pattern; U+200B separates.
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)


def tokens(text: str) -> list[str]:
    """Cut `text` by rules "words", a character at a time."""
    before = None
    while text != before:
        before, text = text, unicodedata.normalize("NFKC", _IGNORED.sub("", text)).casefold()
    found: list[str] = []
    in_word = False
    for character in text:
        category = unicodedata.category(character)
        if category[0] in "LMN":
            found = [*found[:-1], found[-1] + character] if in_word else [*found, character]
            in_word = True
            continue
        in_word = False
        if not (category[0] == "Z" or category in ("Cc", "Cs") or character == "\u200b"):
            found.append(character)
    return found


def stands_in(wanted: list[str], present: list[str]) -> bool:
    """Whether `wanted` is a contiguous run of `present`."""
    places = range(len(present) - len(wanted) + 1)
    return any(present[i : i + len(wanted)] == wanted for i in places)


def words_match(caption: str, queries: list[str]) -> list[int]:
    """Return the positions of the queries that `caption` contains by rules "words"."""
    present = tokens(caption)
    return [i for i, query in enumerate(queries) if stands_in(tokens(query), present)]


def metaclip_text(caption: str) -> str:
    """Return `caption` as MetaCLIP prepares it."""
    text = f" {caption} "
    for mark in (",", ".", ";", ":", "?", "!", "`"):
        text = text.replace(mark, f" {mark} ")
    for space in ("\t", "\n", "\r"):
        text = text.replace(space, " ")
    return text


def metaclip_match(caption: str, queries: list[str]) -> list[int]:
    """Return the positions of the queries that `caption` contains by MetaCLIP's published rule."""
    text = metaclip_text(caption)
    return [i for i, query in enumerate(queries) if f" {query} " in text]


def metaclip_entries(caption: str, entries: dict[str, int], longest: int) -> list[int]:
    """Return the positions of the entries that `caption` contains by MetaCLIP's published rule.

    ` entry ` stands in a text where two of its spaces have `entry` between them; `entries` gives each
    one's position, and `longest` is the length of the longest.
    """
    text = metaclip_text(caption)
    spaces = [i for i, character in enumerate(text) if character == " "]
    found = set()
    for n, first in enumerate(spaces):
        for second in spaces[n + 1 :]:
            if second - first - 1 > longest:
                break
            if (entry := text[first + 1 : second]) in entries:
                found.add(entries[entry])
    return sorted(found)
