"""Trim and check the texts of images."""

# ruff: noqa: C901, SIM110
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

from pipeline.inputs.pairs import MAX_CAPTION_CHARACTERS
from pipeline.matching.trie_tables import Bytes, Offsets
from pipeline.pages.value_kernels import count_characters, is_blank, unescape
from pipeline.runtime.compiled import inlined


@inlined
def is_wide_white(text: Bytes, i: int) -> bool:
    """Return whether a character that is white space beyond ASCII begins at `i`."""
    c, d, e = text[i], text[i + 1], text[i + 2]
    if c == 0xC2:
        return bool(d == 0x85 or d == 0xA0)
    if c == 0xE1:
        return bool(d == 0x9A and e == 0x80)
    if c == 0xE3:
        return bool(d == 0x80 and e == 0x80)
    if c != 0xE2:
        return False
    is_space = e <= 0x8A or e == 0xA8 or e == 0xA9 or e == 0xAF
    return bool((d == 0x80 and is_space) or (d == 0x81 and e == 0x9F))


@inlined
def write_text(
    page: Bytes, i: int, end: int, texts: Bytes, start: int, is_json: bool, seen: Offsets
) -> int:
    """Write the text `page[i:end]`, trimmed, to `texts` from `start`; return its end, -1 if not plain."""
    stop = unescape(page, i, end, texts, start, is_json, seen)
    if stop < 0:
        return -1
    first = start
    while first < stop and is_blank(texts[first]):
        first += 1
    while stop > first and is_blank(texts[stop - 1]):
        stop -= 1
    if first == stop:
        return start
    # So that nothing before or behind the text is taken for a part of it.
    texts[stop] = texts[stop + 1] = texts[stop + 2] = 0
    if is_wide_white(texts, first):
        return -1
    if stop - first > 1 and is_wide_white(texts, stop - 2):
        return -1
    if stop - first > 2 and is_wide_white(texts, stop - 3):
        return -1
    count = count_characters(texts, first, stop)
    if count < 0 or count > MAX_CAPTION_CHARACTERS:
        return -1
    if first > start:
        for k in range(stop - first):
            texts[start + k] = texts[first + k]
    return start + stop - first


@inlined
def are_equal(texts: Bytes, a: int, b: int, end: int) -> bool:
    """Return whether `texts[a:b]` and `texts[b:end]` are the same."""
    if b - a != end - b:
        return False
    for k in range(b - a):
        if texts[a + k] != texts[b + k]:
            return False
    return True
