"""The one normaliser: what a token of a query or of a caption is.

Rules "words", the default. A text is brought to Unicode's NFKC_Casefold form (compatibility
characters replaced, case folded, invisible characters such as soft hyphens, joiners and variation
selectors removed), then cut into tokens:

* a maximal run of letters, marks and numbers (categories L, M and N, all of them) is one token;
* white space, controls and the zero-width space only separate;
* any other character is a token of its own.

Rules "metaclip" repeat MetaCLIP's published matching: case-sensitive, ASCII punctuation of seven
kinds set off by spaces, and consecutive spaces significant.
"""

import re
import unicodedata
from typing import Literal, get_args

Rules = Literal["words", "metaclip"]
RULES: tuple[Rules, ...] = get_args(Rules)

# Unicode's Default_Ignorable_Code_Point, less U+200B: a zero-width space marks a boundary between words.
IGNORABLE = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200C, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
_INVISIBLE = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in IGNORABLE) + "]")
_WORD_CATEGORIES = "LMN"
_SEPARATORS = ("Zs", "Zl", "Zp", "Cc", "Cs")
_ZERO_WIDTH_SPACE = "\u200b"


class _Spacing(dict[int, str]):
    """What `str.translate` puts for each character, worked out the first time it is met."""

    def __missing__(self, code: int) -> str:
        self[code] = spaced = _space(chr(code))
        return spaced


def _space(character: str) -> str:
    category = unicodedata.category(character)
    if category in _SEPARATORS or character == _ZERO_WIDTH_SPACE:
        return " "
    return character if category[0] in _WORD_CATEGORIES else f" {character} "


_SPACING = _Spacing()


def tokens(text: str) -> list[str]:
    """Return the tokens of `text` by rules "words"."""
    return space_out(fold(text)).split()


def normalize(text: str) -> str:
    """Return the tokens of `text` joined by single spaces; a text so normalised stays as it is."""
    return " ".join(tokens(text))


def fold(text: str) -> str:
    """Return `text` in NFKC_Casefold form: equal for texts that differ in case, width or invisibles.

    Folding case can undo NFKC and the reverse, hence the repetition; a second pass settles nearly all.
    """
    if text.isascii():
        return text.lower()
    while True:
        folded = unicodedata.normalize("NFKC", strip_invisible(text)).casefold()
        if folded == text:
            return folded
        text = folded


def strip_invisible(text: str) -> str:
    """Return `text` without the characters that change nothing but how others are drawn."""
    return _INVISIBLE.sub("", text)


def space_out(folded: str) -> str:
    """Return `folded` with every token of one character between spaces, and no white space but spaces."""
    return folded.translate(_SPACING)


def metaclip_text(text: str) -> str:
    """Return `text` as MetaCLIP prepares a caption, with the space it puts at either end."""
    spaced = re.sub(r"[\t\n\r]", " ", re.sub(r"([,.;:?!`])", r" \1 ", text))
    return f" {spaced} "


def metaclip_tokens(text: str) -> list[str]:
    """Return the pieces between the single spaces of `metaclip_text`, empty ones included.

    The rule "` entry ` occurs in the text" is the same as: the entry's pieces, cut at single spaces,
    stand in these as a contiguous run.
    """
    return metaclip_text(text)[1:-1].split(" ")


def query_tokens(query: str, rules: Rules) -> list[str]:
    """Return the tokens that must stand side by side in a caption for `query` to match it."""
    return tokens(query) if rules == "words" else query.split(" ")


def caption_tokens(caption: str, rules: Rules) -> list[str]:
    """Return the tokens of `caption` that queries are looked up in."""
    return tokens(caption) if rules == "words" else metaclip_tokens(caption)
