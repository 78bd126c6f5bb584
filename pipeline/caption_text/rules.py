"""The rules that captions are judged by: each has a reason, a threshold where it counts, and a measure.

Thresholds were set by reading what they drop of real alternative texts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from pipeline.caption_text import patterns
from pipeline.caption_text.measures import Measures, measure
from pipeline.runtime.settings import Settings

Mask = npt.NDArray[np.bool_]

MASK = "***"

# Fewer words repeat by chance, as in "New York, New York".
_MIN_WORDS_FOR_REPETITION = 8
# Names have two words or more, and a long item is a sentence that happens to list something.
_ITEM_WORDS, _MANY_ITEMS_WORDS, _LONGEST_ITEM = 2, 3, 6
_MIN_PHONE_DIGITS = 7


class CaptionsConfig(Settings):
    """Drop captions that describe no image: file names, placeholders, keyword lists, codes, markup."""

    preset: Literal["witmill", "datacomp", "laion"] = "witmill"
    """rules to start from; settings given beside it win"""
    min_words: int = Field(2, ge=0)
    """fewest words of a caption; where words are not spaced, each letter is one"""
    min_characters: int = Field(5, ge=0)
    """fewest characters of a caption"""
    max_characters: int = Field(1000, ge=1)
    """most characters of a caption; the text encoder reads about 300"""
    max_tags: int = Field(4, ge=0)
    """most tags for bold, italics, line ends and the like, which good sentences have at times; other tags are never allowed"""
    max_controls: int = Field(4, ge=0)
    """most control characters, private characters and U+FFFD"""
    max_items: int = Field(9, ge=1)
    """most short items between commas before a caption is a list of keywords"""
    max_repeated_share: float = Field(0.5, ge=0, le=1)
    """most that repeats may make up of a caption's words, from eight words on"""
    min_letter_share: float = Field(0.4, ge=0, le=1)
    """fewest letters among the characters that are not white space"""
    contacts: Literal["drop", "mask"] = "drop"
    """what to do about e-mail addresses and telephone numbers: drop the caption, or put *** in their place"""
    boilerplate_urls: int = Field(20, ge=2)
    """fewest images of a site that one caption stands for before it describes none of them"""
    disabled: tuple[str, ...] = ()
    """rules not to apply, by the reason they give"""

    @model_validator(mode="after")
    def _start_from_the_preset(self) -> Self:
        for name, value in PRESETS[self.preset].items():
            if name not in self.model_fields_set:
                # Not by assignment, which would count the setting as given.
                self.__dict__[name] = value
        return self


@dataclass(frozen=True)
class Captions:
    """Captions to be judged, with what was counted of each; a string array without nulls."""

    texts: pa.Array

    @cached_property
    def counts(self) -> Measures:
        """What the rules count, counted once for all of them."""
        return measure(self.texts)

    def find(self, pattern: str, among: Mask | None = None) -> Mask:
        """Return which captions hold a match of `pattern`, looking only at those `among` says."""
        if among is None:
            found: Mask = _mask(pc.match_substring_regex(self.texts, pattern))
            return found
        result = among.copy()
        result[among] = _mask(pc.match_substring_regex(self.texts.filter(among), pattern))
        return result


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A reason to drop a caption.

    Attributes:
        about: what the reason means, one line.
        applies: which captions it meets.
        measured: what it sees in the first caption, in words.
        allowed: what it lets pass.
    """

    reason: str
    about: str
    applies: Callable[[Captions, CaptionsConfig], Mask]
    measured: Callable[[Captions], str]
    allowed: Callable[[CaptionsConfig], str]


def _mask(answers: pa.Array) -> Mask:
    mask: Mask = answers.to_numpy(zero_copy_only=False).astype(bool)
    return mask


def _share(part: npt.NDArray[np.int32], whole: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return part / whole, 0 of nothing."""
    shares: npt.NDArray[np.float64] = part / np.maximum(whole, 1)
    return shares


def _control_characters(captions: Captions, config: CaptionsConfig) -> Mask:
    too_many: Mask = captions.counts.controls > config.max_controls
    return too_many


def _markup(captions: Captions, config: CaptionsConfig) -> Mask:
    tagged = captions.find(patterns.TAG, captions.counts.angles > 0)
    texts = captions.texts.filter(tagged)
    tags = _number(texts, patterns.TAG)
    formatting = _number(texts, patterns.FORMATTING)
    bad = captions.find(patterns.CODE)
    bad[tagged] |= (tags > formatting) | (formatting > config.max_tags)
    return bad


def _number(texts: pa.Array, pattern: str) -> npt.NDArray[np.int32]:
    counts: npt.NDArray[np.int32] = pc.count_substring_regex(texts, pattern).to_numpy()
    return counts


def _file_name_or_url(captions: Captions, _: CaptionsConfig) -> Mask:
    underscored = captions.counts.underscores > 0
    names = captions.find(f"{patterns.ENDS_IN_FILE}|{patterns.UNDERSCORED}", underscored)
    return names | captions.find(patterns.FILE_NAME_OR_URL)


def _placeholder(captions: Captions, _: CaptionsConfig) -> Mask:
    return captions.find(patterns.PLACEHOLDER)


def _too_short(captions: Captions, config: CaptionsConfig) -> Mask:
    counts = captions.counts
    few: Mask = (counts.words < config.min_words) | (counts.characters < config.min_characters)
    return few


def _price_or_code(captions: Captions, _: CaptionsConfig) -> Mask:
    has_digit: Mask = captions.counts.numbers > 0
    is_code: Mask = has_digit & (captions.counts.plain_words == 0)
    return is_code | captions.find(patterns.PRICE, has_digit & ~is_code)


def _too_long(captions: Captions, config: CaptionsConfig) -> Mask:
    too_long: Mask = captions.counts.characters > config.max_characters
    return too_long


def _mostly_symbols(captions: Captions, config: CaptionsConfig) -> Mask:
    counts = captions.counts
    return _share(counts.letters, counts.visible) < config.min_letter_share


def _contact(captions: Captions, config: CaptionsConfig) -> Mask:
    if config.contacts == "mask":
        return np.zeros(len(captions.texts), bool)
    return has_contact(captions)


def has_contact(captions: Captions) -> Mask:
    """Return which captions hold an e-mail address or a telephone number."""
    counts = captions.counts
    candidates = (counts.ats > 0) | (counts.numbers >= _MIN_PHONE_DIGITS)
    return captions.find("|".join(patterns.CONTACTS), candidates)


def mask_contacts(texts: pa.Array) -> pa.Array:
    """Return the captions with each e-mail address and telephone number replaced by `***`."""
    found = has_contact(Captions(texts))
    masked = texts.filter(found)
    for pattern in patterns.CONTACTS_IN_PLACE:
        # Contacts side by side share what stands between them, so one may be left for another round.
        while pc.any(pc.match_substring_regex(masked, pattern)).as_py():
            masked = pc.replace_substring_regex(masked, pattern, rf"\1{MASK}\2")
    return pc.replace_with_mask(texts, pa.array(found), masked)


def _keyword_list(captions: Captions, config: CaptionsConfig) -> Mask:
    counts = captions.counts
    are_short = counts.words <= _ITEM_WORDS * counts.items
    are_many = (counts.items > 2 * config.max_items) & (
        counts.words <= _MANY_ITEMS_WORDS * counts.items
    )
    is_list = (counts.items > config.max_items) & (counts.longest_item <= _LONGEST_ITEM)
    return is_list & (are_short | are_many)


def _repetition(captions: Captions, config: CaptionsConfig) -> Mask:
    counts = captions.counts
    repeated = _share(counts.repeated_words, counts.words)
    return (counts.words >= _MIN_WORDS_FOR_REPETITION) & (repeated > config.max_repeated_share)


def _first_match(captions: Captions, *alternatives: str) -> str:
    for pattern in alternatives:
        flags, _, body = pattern.partition(")")
        found = pc.extract_regex(captions.texts, f"{flags})(?P<found>{body})")[0]["found"].as_py()
        if found is not None:
            return f"found {found!r}"
    return "nothing found"


def _plural(number: int, what: str) -> str:
    return f"{number:,} {what if number == 1 else what + 's'}"


def _describe_file_name(captions: Captions) -> str:
    spaced = (patterns.ENDS_IN_FILE, patterns.UNDERSCORED)
    with_spaces = spaced if captions.counts.underscores[0] else ()
    return _first_match(captions, patterns.FILE_NAME_OR_URL, *with_spaces)


def _describe_markup(captions: Captions) -> str:
    tags = int(_number(captions.texts, patterns.TAG)[0])
    formatting = int(_number(captions.texts, patterns.FORMATTING)[0])
    others = f"{_plural(formatting, 'plain tag')}, {tags - formatting} others"
    return f"{others}, code: {_first_match(captions, patterns.CODE)}"


def _describe_items(captions: Captions) -> str:
    counts = captions.counts
    items, words, longest = int(counts.items[0]), int(counts.words[0]), int(counts.longest_item[0])
    return f"{_plural(items, 'item')} of {words / max(items, 1):.1f} words, at most {longest}"


def _describe_repetition(captions: Captions) -> str:
    counts = captions.counts
    return f"{counts.repeated_words[0]} of {_plural(int(counts.words[0]), 'word')} are repeats"


def _describe_code(captions: Captions) -> str:
    counts = captions.counts
    digits, plain = int(counts.numbers[0]), int(counts.plain_words[0])
    price = _first_match(captions, patterns.PRICE)
    return f"{_plural(digits, 'digit')}, {_plural(plain, 'plain word')}, price: {price}"


RULES = (
    Rule(
        reason="control_characters",
        about="characters that show nothing, of a broken encoding or of an icon font",
        applies=_control_characters,
        measured=lambda c: _plural(int(c.counts.controls[0]), "character"),
        allowed=lambda s: f"at most {s.max_controls}",
    ),
    Rule(
        reason="markup",
        about="HTML, template or script code stands in it",
        applies=_markup,
        measured=_describe_markup,
        allowed=lambda s: f"at most {_plural(s.max_tags, 'plain tag')}, nothing else",
    ),
    Rule(
        reason="file_name_or_url",
        about="it is the name of a file or an address",
        applies=_file_name_or_url,
        measured=_describe_file_name,
        allowed=lambda _: "nothing",
    ),
    Rule(
        reason="placeholder",
        about="it says only that there is an image, or what a button does",
        applies=_placeholder,
        measured=lambda c: _first_match(c, patterns.PLACEHOLDER),
        allowed=lambda _: "nothing",
    ),
    Rule(
        reason="too_short",
        about="fewer characters or words than the least",
        applies=_too_short,
        measured=lambda c: (
            f"{_plural(int(c.counts.words[0]), 'word')}, "
            f"{_plural(int(c.counts.characters[0]), 'character')}"
        ),
        allowed=lambda s: (
            f"at least {_plural(s.min_words, 'word')}, {_plural(s.min_characters, 'character')}"
        ),
    ),
    Rule(
        reason="price_or_code",
        about="it is a price, or has digits and no word",
        applies=_price_or_code,
        measured=_describe_code,
        allowed=lambda _: "a plain word where there are digits, no bare price",
    ),
    Rule(
        reason="too_long",
        about="more characters than the most",
        applies=_too_long,
        measured=lambda c: _plural(int(c.counts.characters[0]), "character"),
        allowed=lambda s: f"at most {s.max_characters:,}",
    ),
    Rule(
        reason="mostly_symbols",
        about="digits and symbols outnumber letters",
        applies=_mostly_symbols,
        measured=lambda c: f"{_share(c.counts.letters, c.counts.visible)[0]:.2f} letters",
        allowed=lambda s: f"at least {s.min_letter_share:g}",
    ),
    Rule(
        reason="contact",
        about="an e-mail address or telephone number stands in it",
        applies=_contact,
        measured=lambda c: _first_match(c, *patterns.CONTACTS),
        allowed=lambda s: "nothing" if s.contacts == "drop" else "masked",
    ),
    Rule(
        reason="keyword_list",
        about="many short items between commas",
        applies=_keyword_list,
        measured=_describe_items,
        allowed=lambda s: f"at most {s.max_items} short ones",
    ),
    Rule(
        reason="repetition",
        about="most of its words are repeats",
        applies=_repetition,
        measured=_describe_repetition,
        allowed=lambda s: (
            f"at most {s.max_repeated_share:g} of {_MIN_WORDS_FOR_REPETITION} words or more"
        ),
    ),
)

BOILERPLATE = "boilerplate"
REASONS = {rule.reason: rule.about for rule in RULES} | {
    BOILERPLATE: "the same caption stands for many images of a site"
}

_ALL_BUT_LENGTH = tuple(reason for reason in REASONS if reason != "too_short")
# DataComp's basic filter asks for more than two words and five characters, LAION for five characters.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "witmill": {},
    "datacomp": {"min_words": 3, "min_characters": 6, "disabled": _ALL_BUT_LENGTH},
    "laion": {"min_words": 0, "min_characters": 5, "disabled": _ALL_BUT_LENGTH},
}
