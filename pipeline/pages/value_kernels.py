"""Read the values of attributes and of JSON strings, as far as they are plain.

What is not, such as a reference to a rare character, is left to `pipeline.pages.character_references` and
the JSON parser: a value that is not plain has the end -1.
"""

# ruff: noqa: SIM109, SIM110
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

import numpy as np

from pipeline.matching.trie_tables import Bytes, Offsets
from pipeline.pages.character_references import ENTITY_CODES, ENTITY_NAMES
from pipeline.pages.html_tokens import is_letter
from pipeline.runtime.compiled import inlined

_AMPERSAND, _BACKSLASH, _SEMICOLON, _EQUALS, _HASH, _SLASH = 0x26, 0x5C, 0x3B, 0x3D, 0x23, 0x2F


@inlined
def is_digit(c: int) -> bool:
    """Return whether `c` is one of 0-9."""
    return 48 <= c <= 57


@inlined
def is_blank(c: int) -> bool:
    """Return whether `c` is ASCII white space as Python has it."""
    return c == 32 or 9 <= c <= 13 or 28 <= c <= 31


@inlined
def hex_digit(c: int) -> int:
    """Return the value of a hexadecimal digit, or -1."""
    if is_digit(c):
        return c - 48
    return (c | 32) - 87 if 97 <= (c | 32) <= 102 else -1


@inlined
def put_character(out: Bytes, o: int, code: int) -> int:
    """Write a character in UTF-8; return the end, or -1 for a code that none has or that means another."""
    if code < 32 or 0x7F <= code < 0xA0 or code > 0xFFFF or 0xD800 <= code < 0xE000:
        return -1
    if code < 0x80:
        out[o] = code
        return o + 1
    if code < 0x800:
        out[o], out[o + 1] = 0xC0 | code >> 6, 0x80 | code & 63
        return o + 2
    out[o], out[o + 1], out[o + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 63, 0x80 | code & 63
    return o + 3


@inlined
def is_text(page: Bytes, i: int, text: bytes) -> bool:
    """Return whether `text` stands at `i`."""
    for k in range(len(text)):
        if page[i + k] != text[k]:
            return False
    return True


@inlined
def named_character(page: Bytes, start: int, length: int) -> int:
    """Return the character of a name of up to eight letters, or -1."""
    if length > 8:
        return -1
    word = np.uint64(0)
    for k in range(length):
        word |= np.uint64(page[start + k]) << np.uint64(8 * k)
    low, high = 0, ENTITY_NAMES.size
    while low < high:
        middle = (low + high) >> 1
        if ENTITY_NAMES[middle] < word:
            low = middle + 1
        else:
            high = middle
    is_known = low < ENTITY_NAMES.size and ENTITY_NAMES[low] == word
    return int(ENTITY_CODES[low]) if is_known else -1


@inlined
def read_number(page: Bytes, k: int, end: int, seen: Offsets) -> int:
    """Return the number of a character, written at `k`, -1 if that is not plain; see `read_reference`."""
    base = 10
    if k < end and (page[k] | 32) == 0x78:
        base, k = 16, k + 1
    first, code = k, 0
    while k < end and k - first < 6:
        digit = hex_digit(int(np.int64(page[k])))
        if digit < 0 or digit >= base:
            break
        code, k = code * base + digit, k + 1
    if k == first or k == end or page[k] != _SEMICOLON:
        return -1
    seen[0] = k + 1
    return code


@inlined
def read_reference(page: Bytes, i: int, end: int, seen: Offsets) -> int:
    """Return the character that the reference at `i` means in an attribute, -1 if that is not plain.

    The place behind it goes into `seen[0]`.
    """
    seen[0] = i + 1
    k = i + 1
    if k < end and page[k] == _HASH:
        return read_number(page, k + 1, end, seen)
    while k < end and (is_letter(page[k]) or is_digit(page[k])):
        k += 1
    # Not a reference: nothing follows, or the name of a parameter.
    if k == i + 1 or (k < end and page[k] == _EQUALS):
        return _AMPERSAND
    if k == end or page[k] != _SEMICOLON:
        return -1
    seen[0] = k + 1
    return named_character(page, i + 1, k - i - 1)


@inlined
def read_escape(page: Bytes, i: int, seen: Offsets) -> int:
    """Return the character that the escape at `i` means in JSON, -1 if that is not plain.

    The place behind it goes into `seen[0]`.
    """
    seen[0] = i + 2
    c = page[i + 1]
    if c == 0x22 or c == _SLASH or c == _BACKSLASH:
        return int(np.int64(c))
    if c == 0x6E:
        return 10
    if c == 0x74:
        return 9
    if c != 0x75:
        return -1
    code = 0
    for k in range(4):
        digit = hex_digit(int(np.int64(page[i + 2 + k])))
        if digit < 0:
            return -1
        code = code * 16 + digit
    seen[0] = i + 6
    return code


@inlined
def unescape(
    page: Bytes, i: int, end: int, out: Bytes, o: int, is_json: bool, seen: Offsets
) -> int:
    """Write the value `page[i:end]` to `out` from `o`; return its end, or -1 if it is not plain."""
    while i < end:
        c = page[i]
        if c == 0 or c == 13:
            return -1
        if is_json and c == _BACKSLASH:
            code = read_escape(page, i, seen)
        elif c == _AMPERSAND and not is_json:
            code = read_reference(page, i, end, seen)
        else:
            out[o] = c
            i, o = i + 1, o + 1
            continue
        if code == 9 or code == 10:
            out[o] = code
            o += 1
        else:
            o = put_character(out, o, code) if code >= 0 else -1
            if o < 0:
                return -1
        i = seen[0]
    return o


@inlined
def count_characters(text: Bytes, i: int, end: int) -> int:
    """Return how many characters `text[i:end]` has, or -1 if it is no UTF-8."""
    count = 0
    while i < end:
        c = text[i]
        count += 1
        if c < 0x80:
            i += 1
            continue
        more = 1 if 0xC2 <= c < 0xE0 else 2 if 0xE0 <= c < 0xF0 else 3 if 0xF0 <= c < 0xF5 else 0
        if more == 0 or i + more >= end:
            return -1
        d = text[i + 1]
        if (c == 0xE0 and d < 0xA0) or (c == 0xED and d > 0x9F):
            return -1
        if (c == 0xF0 and d < 0x90) or (c == 0xF4 and d > 0x8F):
            return -1
        for k in range(1, more + 1):
            if text[i + k] & 0xC0 != 0x80:
                return -1
        i += more + 1
    return count
