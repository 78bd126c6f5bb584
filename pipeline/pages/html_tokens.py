"""Cut a page's bytes into tags, attributes, comments and raw text by HTML's rules for tokens.

A page is followed by PADDING zero bytes, so that words of eight bytes can be read up to its end.
"""

# ruff: noqa: C901, SIM109
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

import numpy as np

from pipeline.matching.trie_tables import Bytes, Ids
from pipeline.runtime.compiled import inlined
from pipeline.runtime.intrinsics import load_word, trailing_zeros

PADDING = 64

_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_LOWER = np.uint64(0x2020202020202020)
LESS, GREATER, EQUALS, SLASH = 0x3C, 0x3E, 0x3D, 0x2F
DOUBLE, SINGLE, BANG, QUESTION, DASH = 0x22, 0x27, 0x21, 0x3F, 0x2D
# Places in a span: start and end of an attribute's name and of its value, whether a tag closes itself.
NAME, NAME_END, VALUE, VALUE_END, CLOSES = range(5)
_SCRIPT = np.uint64(int.from_bytes(b"script", "little"))


@inlined
def is_space(c: int) -> bool:
    """Return whether HTML counts `c` as white space."""
    return c <= 32 and (c == 32 or c == 10 or c == 9 or c == 13 or c == 12)


@inlined
def is_letter(c: int) -> bool:
    """Return whether `c` is one of A-Z, a-z."""
    return 97 <= (c | 32) <= 122


@inlined
def find_byte(page: Bytes, i: int, end: int, wanted: int) -> int:
    """Return where `wanted` is next, or at least `end`."""
    pattern = np.uint64(wanted) * _ONES
    while i < end:
        word = load_word(page, i) ^ pattern
        hits = (word - _ONES) & ~word & _TOPS
        if hits:
            return i + (trailing_zeros(hits) >> 3)
        i += 8
    return end


@inlined
def letters(page: Bytes, start: int, length: int) -> np.uint64:
    """Return up to eight lower-cased bytes from `start` as a number, the first lowest."""
    word = load_word(page, start) | _LOWER
    if length < 8:
        word &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    return word


@inlined
def name_end(page: Bytes, i: int) -> int:
    """Return the end of the tag name at `i`."""
    while True:
        c = page[i]
        # Letters come behind ">".
        if c <= GREATER and (c == GREATER or c == SLASH or is_space(c) or c == 0):
            return i
        i += 1


@inlined
def next_attribute(page: Bytes, i: int, end: int, span: Ids) -> int:
    """Put the next attribute's name and value into `span`, each as start and end; return where it ends.

    Without one, span[NAME] is -1 and the place behind the tag is returned, or -1 where the page ends before;
    span[CLOSES] tells whether the tag closes itself.
    """
    span[NAME] = -1
    slash = False
    while i < end and (is_space(page[i]) or page[i] == SLASH):
        slash = page[i] == SLASH
        i += 1
    if i >= end:
        return -1
    if page[i] == GREATER:
        span[CLOSES] = slash
        return i + 1
    start = i
    i += 1
    while i < end:
        c = page[i]
        if c == EQUALS or c == GREATER or c == SLASH or is_space(c):
            break
        i += 1
    span[NAME], span[NAME_END], span[VALUE], span[VALUE_END] = start, i, i, i
    while i < end and is_space(page[i]):
        i += 1
    if i >= end or page[i] != EQUALS:
        return i
    i += 1
    while i < end and is_space(page[i]):
        i += 1
    quote = page[i]
    if quote == DOUBLE or quote == SINGLE:
        close = find_byte(page, i + 1, end, int(np.int64(quote)))
        span[VALUE], span[VALUE_END] = i + 1, close
        return close + 1
    span[VALUE] = i
    while i < end and page[i] != GREATER and not is_space(page[i]):
        i += 1
    span[VALUE_END] = i
    return i


@inlined
def skip_tag(page: Bytes, i: int, end: int) -> int:
    """Return the place behind a tag from behind its name, or -1 where the page ends before."""
    while i < end:
        c = page[i]
        if c == GREATER:
            return i + 1
        i += 1
        if c == SLASH or is_space(c):
            continue
        # The first character of a name may be anything, even "=".
        while i < end:
            c = page[i]
            if c <= GREATER and (c == EQUALS or c == GREATER or c == SLASH or is_space(c)):
                break
            i += 1
        while i < end and is_space(page[i]):
            i += 1
        if i >= end or page[i] != EQUALS:
            continue
        i += 1
        while i < end and is_space(page[i]):
            i += 1
        quote = page[i]
        if quote == DOUBLE or quote == SINGLE:
            i = find_byte(page, i + 1, end, int(np.int64(quote))) + 1
            continue
        while i < end and page[i] != GREATER and not is_space(page[i]):
            i += 1
    return -1


@inlined
def skip_attributes(page: Bytes, i: int, end: int, span: Ids) -> int:
    """Return the place behind a tag from within it, or -1 where the page ends before."""
    while True:
        i = next_attribute(page, i, end, span)
        if i < 0 or i > end:
            return -1
        if span[NAME] < 0:
            return i


@inlined
def same_letter(c: int, lower: int) -> bool:
    """Return whether `c` is the character `lower` in any case."""
    return c == lower or (65 <= c <= 90 and c + 32 == lower)


@inlined
def skip_raw(page: Bytes, i: int, end: int, word: np.uint64, length: int, span: Ids) -> int:
    """Return where the end tag of a script, style or the like begins, `end` where there is none.

    Whether a "<" stood before it goes into `span[NAME]`. Within `<!--` and `-->`, a script's `<script>` hides
    the next end tag.
    """
    is_script = word == _SCRIPT
    commented = nested = False
    since = i
    span[NAME] = 0
    while True:
        i = find_byte(page, i, end, LESS)
        if i >= end:
            return end
        if commented and ends_comment(page, since, i):
            commented = nested = False
        since = i
        c = page[i + 1]
        if c == SLASH and is_tag_at(page, i + 2, word, length):
            if not nested:
                return i
            nested = False
        elif commented and is_tag_at(page, i + 1, word, length):
            nested = True
        elif is_script and not commented and c == BANG:
            commented = page[i + 2] == DASH and page[i + 3] == DASH
            since = i + 2
        span[NAME] = 1
        i += 1


@inlined
def ends_comment(page: Bytes, i: int, end: int) -> bool:
    """Return whether `-->` stands in `page[i:end]`."""
    while True:
        i = find_byte(page, i, end, GREATER)
        if i >= end:
            return False
        if page[i - 1] == DASH and page[i - 2] == DASH:
            return True
        i += 1


@inlined
def is_tag_at(page: Bytes, i: int, word: np.uint64, length: int) -> bool:
    """Return whether the name `word` of a tag stands at `i`."""
    after = page[i + length]
    is_end = after == GREATER or after == SLASH or is_space(after)
    return is_end and letters(page, i, length) == word


@inlined
def skip_comment(page: Bytes, i: int, end: int) -> int:
    """Return the place behind what begins with "<!" at `i`, or `end`."""
    if page[i + 2] != DASH or page[i + 3] != DASH:
        return find_byte(page, i + 2, end, GREATER) + 1
    i += 4
    if page[i] == GREATER:
        return i + 1
    if page[i] == DASH and page[i + 1] == GREATER:
        return i + 2
    start = i
    while True:
        i = find_byte(page, i, end, GREATER)
        if i >= end:
            return end
        dashes = i - 2 if page[i - 1] == BANG else i - 1
        if dashes - 1 >= start and page[dashes] == DASH and page[dashes - 1] == DASH:
            return i + 1
        i += 1
