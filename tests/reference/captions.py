"""The caption rules one caption at a time, in the words of docs/captions.md; only patterns are shared."""

import re
import unicodedata
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.caption_text import patterns as patterns
from pipeline.caption_text.characters import (
    JOINERS,
    LATIN_RANGES,
    SEPARATORS,
    UNSPACED_RANGES,
    WHITE_SPACE,
)
from pipeline.caption_text.rules import CaptionsConfig


def kind(character: str) -> str:
    """Return one letter: a in a word, u a word of its own, m mark, j joiner, c cut, i invisible, - else."""
    category = unicodedata.category(character)
    if category[0] == "L":
        unspaced = any(low <= ord(character) <= high for low, high in UNSPACED_RANGES)
        return "u" if unspaced else "a"
    if character in JOINERS:
        return "j"
    if character in SEPARATORS:
        return "c"
    return {"N": "a", "M": "m", "Cf": "i"}.get(category, {"N": "a", "M": "m"}.get(category[0], "-"))


def words(caption: str) -> list[str]:
    """Return the words of a caption, without letter case, joiners alike and nothing invisible."""
    kinds = "".join(map(kind, caption))
    found = []
    for match in re.finditer("u|a[ami]*(?:ja[ami]*)*", kinds):
        characters = zip(caption[match.start() : match.end()], match[0], strict=True)
        word = ["-" if k == "j" else fold(c) for c, k in characters if k != "i"]
        found.append("".join(word))
    return found


def fold(character: str) -> str:
    folded = character.casefold()
    return folded if len(folded) == 1 else character


def items(caption: str) -> list[int]:
    """Return the number of words of each item that has any."""
    pieces = re.split("[" + re.escape(SEPARATORS) + "]", caption)
    return [count for count in map(len, map(words, pieces)) if count]


def plain_words(caption: str) -> int:
    visible = "".join(c for c in caption if unicodedata.category(c) != "Cf")

    def in_run(character: str) -> bool:
        return unicodedata.category(character)[0] in "LMN" or character == "_"

    def is_latin(character: str) -> bool:
        return any(low <= ord(character) <= high for low, high in LATIN_RANGES)

    found = 0
    for inside, run in groupby(visible, in_run):
        letters = [c for c in run if unicodedata.category(c)[0] != "M"] if inside else []
        foreign = [c for c in letters if c.isalpha() and not is_latin(c)]
        foreign = [c for c in foreign if unicodedata.category(c)[0] == "L"]
        latin = [c for c in letters if c not in foreign]
        is_name = any(unicodedata.category(c)[0] == "N" or c == "_" for c in latin)
        found += len(foreign) + (len(latin) >= 3 and not is_name)
    return found


def categories(caption: str, wanted: str) -> int:
    return sum(unicodedata.category(c)[0] in wanted for c in caption)


def controls(caption: str) -> int:
    return sum(
        (unicodedata.category(c) in ("Cc", "Co") and c not in WHITE_SPACE) or c == "\ufffd"
        for c in caption
    )


def holds(caption: str, pattern: str) -> bool:
    return bool(pc.match_substring_regex(pa.scalar(caption), pattern).as_py())


def number(caption: str, pattern: str) -> int:
    return int(pc.count_substring_regex(pa.scalar(caption), pattern).as_py())


def has_markup(caption: str, config: CaptionsConfig) -> bool:
    tags, formatting = number(caption, patterns.TAG), number(caption, patterns.FORMATTING)
    return holds(caption, patterns.CODE) or tags > formatting or formatting > config.max_tags


def is_file_name(caption: str) -> bool:
    with_underscore = (patterns.ENDS_IN_FILE, patterns.UNDERSCORED) if "_" in caption else ()
    return any(holds(caption, p) for p in (patterns.FILE_NAME_OR_URL, *with_underscore))


def has_contact(caption: str) -> bool:
    may = "@" in caption or categories(caption, "N") >= 7
    return may and any(holds(caption, pattern) for pattern in patterns.CONTACTS)


def is_keyword_list(caption: str, config: CaptionsConfig) -> bool:
    lengths = items(caption)
    if len(lengths) <= config.max_items or max(lengths) > 6:
        return False
    mean = sum(lengths) / len(lengths)
    return mean <= 2 or (mean <= 3 and len(lengths) > 2 * config.max_items)


def reason(caption: str, config: CaptionsConfig) -> str | None:
    """Return the first rule that a caption breaks."""
    found = words(caption)
    visible = categories(caption, "LMNPS") + sum(unicodedata.category(c) == "Cn" for c in caption)
    visible -= "".join(caption).count("\ufffd")
    letters = categories(caption, "LM")
    has_digit = categories(caption, "N") > 0
    repeats = len(found) - len(set(found))
    answers = {
        "control_characters": controls(caption) > config.max_controls,
        "markup": has_markup(caption, config),
        "file_name_or_url": is_file_name(caption),
        "placeholder": holds(caption, patterns.PLACEHOLDER),
        "too_short": len(found) < config.min_words or len(caption) < config.min_characters,
        "price_or_code": has_digit
        and (plain_words(caption) == 0 or holds(caption, patterns.PRICE)),
        "too_long": len(caption) > config.max_characters,
        "mostly_symbols": (letters / visible if visible else 0) < config.min_letter_share,
        "contact": config.contacts == "drop" and has_contact(caption),
        "keyword_list": is_keyword_list(caption, config),
        "repetition": len(found) >= 8 and repeats / len(found) > config.max_repeated_share,
    }
    broken = [name for name, is_broken in answers.items() if is_broken]
    return next((name for name in broken if name not in config.disabled), None)
