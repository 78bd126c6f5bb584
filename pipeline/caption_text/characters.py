"""What each character is to the caption rules, the same for every script: flags by code point."""

import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import chain

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.uint16]
Codes = npt.NDArray[np.int32]

# numba makes these part of the compiled loops. Several may be true of a character. FOREIGN: a letter of another script than Latin.
IN_WORD, UNSPACED, MARK, INVISIBLE, JOINER, SEPARATOR = (np.uint16(1 << i) for i in range(6))
LETTER, NUMBER, VISIBLE, CONTROL, AT, ANGLE = (np.uint16(1 << i) for i in range(6, 12))
LATIN, FOREIGN, UNDERSCORE = (np.uint16(1 << i) for i in range(12, 15))

JOINERS = "'’-"
SEPARATORS = ",;|#、，،؛；"
WHITE_SPACE = "\t\n\v\f\r"
REPLACEMENT = "\ufffd"
# Scripts that put no spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1B000, 0x1B16F),
    (0x20000, 0x323AF),
)
LATIN_RANGES = (
    (0x0041, 0x02FF),
    (0x1D00, 0x1DBF),
    (0x1E00, 0x1EFF),
    (0x2071, 0x214F),
    (0x2C60, 0x2C7F),
    (0xA720, 0xA7FF),
    (0xAB30, 0xAB6F),
    (0xFB00, 0xFB06),
    (0xFF21, 0xFF5A),
)
# The two first planes hold every letter that has two cases.
_FOLDED = 0x20000
# Beyond the ideographs nothing is assigned but invisible tags and private characters.
_ASSIGNED, _TAGS = range(0x323B0), range(0xE0000, 0xE1000)
_PRIVATE = (slice(0xF0000, 0xFFFFE), slice(0x100000, 0x10FFFE))


@cache
def character_tables() -> tuple[Flags, Codes]:
    """Return the flags of every code point, and what each of the first is without letter case."""
    # What is not assigned yet is mostly new emoji.
    known = np.full(0x110000, VISIBLE, np.uint16)
    for code in chain(_ASSIGNED, _TAGS):
        known[code] = flags_of(chr(code))
    for private in _PRIVATE:
        known[private] = CONTROL
    return known, np.fromiter(map(fold, range(_FOLDED)), np.int32, _FOLDED)


def flags_of(character: str) -> int:
    """Return what a character is to the rules."""
    category = unicodedata.category(character)
    kind = category[0]
    if kind == "Z" or character in WHITE_SPACE:
        return 0
    if category in ("Cc", "Co", "Cs") or character == REPLACEMENT:
        return int(CONTROL)
    if category == "Cf":
        return int(INVISIBLE)
    if kind == "L":
        return int(LETTER | VISIBLE | _script(ord(character)))
    if kind == "M":
        return int(LETTER | VISIBLE | MARK)
    if kind == "N":
        return int(NUMBER | VISIBLE | IN_WORD)
    return int(VISIBLE | _sign(character))


def _script(code: int) -> np.uint16:
    if _is_within(code, UNSPACED_RANGES):
        return UNSPACED | FOREIGN
    return IN_WORD | (LATIN if _is_within(code, LATIN_RANGES) else FOREIGN)


def _sign(character: str) -> np.uint16:
    signs = {"@": AT, "<": ANGLE, "&": ANGLE, "_": UNDERSCORE}
    signs |= dict.fromkeys(JOINERS, JOINER) | dict.fromkeys(SEPARATORS, SEPARATOR)
    return signs.get(character, np.uint16(0))


def fold(code: int) -> int:
    """Return the code point without letter case, where that is a single one."""
    folded = chr(code).casefold()
    return ord(folded) if len(folded) == 1 else code


def _is_within(code: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= code <= last for first, last in ranges)
