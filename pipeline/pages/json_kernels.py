"""Find the images that Common Crawl lists of a page, walking over the JSON without taking it apart.

The walk keeps to the grammar of JSON's objects and arrays; where it meets something else, or a rare way
to write a key, that is a doubt, and the record is left to the JSON parser. How numbers are written, and
the escapes in strings of no use, it does not check: there it takes some records that are not JSON.
"""

# ruff: noqa: C901, PLR0915, SIM109
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

import numpy as np

from pipeline.matching.trie_tables import Bytes, Ids, Offsets
from pipeline.pages.html_kernels import BASE_START, DOUBT, FULL, IMAGES, METAS, is_open_graph
from pipeline.pages.tags import ALT, LENGTHS, NAMES, SRCSET, TITLE
from pipeline.pages.value_kernels import is_digit, is_text
from pipeline.runtime.compiled import compiled, inlined
from pipeline.runtime.intrinsics import load_word, trailing_zeros

# Places in `found`, behind those of `html_kernels`: what is there, and where these values start and end.
SEEN, TARGET, STATUS, MEDIA_TYPE = 20, 21, 23, 25
LISTED_SIZE = 27
HAS_ENVELOPE, HAS_RESPONSE, HAS_HTML = 1, 2, 4

MAX_DEPTH = 64

# What a container is; those from _ARRAY on are arrays.
_OTHER, _ROOT, _ENVELOPE, _TARGETS, _PAYLOAD, _RESPONSE, _MESSAGE, _HEADERS, _HTML, _HEAD = range(
    10
)
_META, _LINK, _ARRAY, _METAS, _LINKS = range(10, 15)
# What a string is: of no use, the path of a link, one of the values of `item`, or a value to be found.
_NOTHING, _PATH, _ITEM, _FOUND = -1, 0, 1, 8
# Places in `item`, the link or meta at hand: start and end of address, text and title of a link; of
# name, property and content of a meta.
_URL, _ALT, _TITLE = 0, 2, 4
_NAME, _PROPERTY, _CONTENT = 0, 2, 4

_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES = np.uint64(0x22) * _ONES, np.uint64(0x5C) * _ONES
_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _LEFT, _RIGHT, _COMMA, _COLON = b'"\\{}[],:'
# What may come next; behind a value, and at the beginning of a container, its end.
_VALUE, _KEY, _AFTER, _FIRST_KEY, _FIRST_VALUE = range(5)
_PATH_WORD, _URL_WORD, _ALT_WORD, _TITLE_WORD, _NAME_WORD, _PROPERTY_WORD, _CONTENT_WORD = (
    np.uint64(int.from_bytes(name, "little"))
    for name in (b"path", b"url", b"alt", b"title", b"name", b"property", b"content")
)


@inlined
def string_end(page: Bytes, i: int, end: int) -> int:
    """Return where the string whose content begins at `i` ends, or -1."""
    while i < end:
        word = load_word(page, i)
        quotes, escapes = word ^ _QUOTES, word ^ _BACKSLASHES
        hits = ((quotes - _ONES) & ~quotes | (escapes - _ONES) & ~escapes) & _TOPS
        if not hits:
            i += 8
            continue
        i += trailing_zeros(hits) >> 3
        if page[i] == _QUOTE:
            return i if i < end else -1
        i += 2
    return -1


@inlined
def literal_end(page: Bytes, i: int, end: int) -> int:
    """Return the end of the number, true, false or null at `i`, or -1."""
    if is_text(page, i, b"true") or is_text(page, i, b"null"):
        return i + 4
    if is_text(page, i, b"false"):
        return i + 5
    start = i
    while i < end and (is_digit(page[i]) or is_sign(page[i])):
        i += 1
    return i if i > start else -1


@inlined
def is_sign(c: int) -> bool:
    """Return whether `c` stands in numbers beside digits."""
    return c == 0x2B or c == 0x2D or c == 0x2E or c == 0x45 or c == 0x65


@inlined
def is_key(page: Bytes, start: int, end: int, key: bytes) -> bool:
    """Return whether `page[start:end]` is `key`."""
    return end - start == len(key) and is_text(page, start, key)


@inlined
def item_place(page: Bytes, start: int, length: int, role: int) -> int:
    """Return what the value of a key of a link or meta is."""
    word = load_word(page, start)
    if length < 8:
        word &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    if role == _LINK:
        if word == _PATH_WORD and length == 4:
            return _PATH
        if word == _URL_WORD and length == 3:
            return _ITEM + _URL
        if word == _ALT_WORD and length == 3:
            return _ITEM + _ALT
        return _ITEM + _TITLE if word == _TITLE_WORD and length == 5 else _NOTHING
    if word == _NAME_WORD and length == 4:
        return _ITEM + _NAME
    if word == _PROPERTY_WORD and length == 8:
        return _ITEM + _PROPERTY
    return _ITEM + _CONTENT if word == _CONTENT_WORD and length == 7 else _NOTHING


@inlined
def inner_role(page: Bytes, start: int, end: int, role: int) -> int:
    """Return what the container under the key `page[start:end]` is."""
    if role == _ROOT and is_key(page, start, end, b"Envelope"):
        return _ENVELOPE
    if role == _ENVELOPE and is_key(page, start, end, b"WARC-Header-Metadata"):
        return _TARGETS
    if role == _ENVELOPE and is_key(page, start, end, b"Payload-Metadata"):
        return _PAYLOAD
    if role == _PAYLOAD and is_key(page, start, end, b"HTTP-Response-Metadata"):
        return _RESPONSE
    if role == _RESPONSE and is_key(page, start, end, b"Response-Message"):
        return _MESSAGE
    if role == _RESPONSE and is_key(page, start, end, b"Headers"):
        return _HEADERS
    if role == _RESPONSE and is_key(page, start, end, b"HTML-Metadata"):
        return _HTML
    if role == _HTML and is_key(page, start, end, b"Head"):
        return _HEAD
    if role == _HTML and is_key(page, start, end, b"Links"):
        return _LINKS
    if role == _HEAD and is_key(page, start, end, b"Metas"):
        return _METAS
    return _OTHER


@inlined
def found_place(page: Bytes, start: int, end: int, role: int) -> int:
    """Return what the string under the key `page[start:end]` is."""
    if role == _TARGETS and is_key(page, start, end, b"WARC-Target-URI"):
        return _FOUND + TARGET
    if role == _MESSAGE and is_key(page, start, end, b"Status"):
        return _FOUND + STATUS
    if role == _HEADERS and is_key(page, start, end, b"Content-Type"):
        return _FOUND + MEDIA_TYPE
    if role == _HEAD and is_key(page, start, end, b"Base"):
        return _FOUND + BASE_START
    return _NOTHING


@inlined
def attribute_of(page: Bytes, start: int, end: int) -> int:
    """Return which attribute of an `<img>` the path of a link names, -1 if none that holds an address."""
    if page[start] != 0x49 or end - start < 8 or not is_text(page, start, b"IMG@/"):
        return -1
    start += 5
    for known in range(SRCSET + 1):
        if LENGTHS[known] == end - start:
            k = 0
            while k < end - start and page[start + k] == NAMES[known, k]:
                k += 1
            if k == end - start:
                return known
    return -1


@compiled
def open_container(
    is_array: bool, its: int, images: Ids, metas: Ids, item: Offsets, found: Offsets
) -> int:
    """Return what a container is that stands where one of the role `its` is expected."""
    if is_array:
        return its if its >= _ARRAY else _ARRAY
    if its >= _ARRAY:
        return _OTHER
    if its == _LINK or its == _META:
        item[:] = -1
        if found[IMAGES] == images.shape[0] or found[METAS] == metas.shape[0]:
            found[FULL] = 1
    elif its == _ENVELOPE or its == _RESPONSE or its == _HTML:
        bit = HAS_ENVELOPE if its == _ENVELOPE else HAS_RESPONSE if its == _RESPONSE else HAS_HTML
        if found[SEEN] & bit:
            found[DOUBT] = 1
        found[SEEN] |= bit
    return its


@compiled
def keep_link(attribute: int, images: Ids, item: Offsets, found: Offsets) -> None:
    """Keep the link at hand, whose path names an attribute of an `<img>`."""
    image = images[found[IMAGES]]
    image[:] = -1
    image[2 * attribute], image[2 * attribute + 1] = item[_URL], item[_URL + 1]
    image[2 * ALT], image[2 * ALT + 1] = item[_ALT], item[_ALT + 1]
    image[2 * TITLE], image[2 * TITLE + 1] = item[_TITLE], item[_TITLE + 1]
    found[IMAGES] += 1


@compiled
def keep_meta(page: Bytes, metas: Ids, item: Offsets, found: Offsets) -> None:
    """Keep the meta at hand if it is Open Graph's."""
    meta = metas[found[METAS]]
    name = _PROPERTY if item[_PROPERTY] >= 0 else _NAME
    meta[0], meta[1] = item[name], item[name + 1]
    meta[2], meta[3] = item[_CONTENT], item[_CONTENT + 1]
    if is_open_graph(page, meta):
        found[METAS] += 1


@inlined
def skip_white(page: Bytes, i: int) -> int:
    """Return the next place that is no white space."""
    while page[i] == 32 or page[i] == 10 or page[i] == 13 or page[i] == 9:
        i += 1
    return i


@compiled
def scan_list(page: Bytes, end: int, images: Ids, metas: Ids, found: Offsets) -> None:
    """Find the images, metas of Open Graph and what else matters in the metadata `page[:end]`.

    Args:
        page: the JSON and PADDING zero bytes behind it.
        images, metas, found: to be filled as by `scan_page`; `found` has LISTED_SIZE places.
    """
    found[:] = 0
    found[BASE_START] = found[TARGET] = found[STATUS] = found[MEDIA_TYPE] = -1
    roles = np.zeros(MAX_DEPTH, np.int64)
    item = np.zeros(6, np.int64)
    mode, depth, role, i = _VALUE, 0, _OTHER, 0
    inner, place, attribute = _ROOT, _NOTHING, -1
    while not found[DOUBT] and not found[FULL]:
        i = skip_white(page, i)
        if i >= end:
            break
        c = page[i]
        if mode == _AFTER and c == _COMMA and depth > 0:
            mode = _VALUE if role >= _ARRAY else _KEY
            i += 1
        elif mode >= _AFTER and depth > 0 and c == (_RIGHT if role >= _ARRAY else _CLOSE):
            if role == _LINK and attribute >= 0:
                keep_link(attribute, images, item, found)
            elif role == _META:
                keep_meta(page, metas, item, found)
            depth -= 1
            role = roles[depth]
            inner = _LINK if role == _LINKS else _META if role == _METAS else _OTHER
            place, mode = _NOTHING, _AFTER
            i += 1
        elif mode == _AFTER:
            found[DOUBT] = 1
        elif mode == _KEY or mode == _FIRST_KEY:
            start = i + 1
            close = string_end(page, start, end) if c == _QUOTE else -1
            i = skip_white(page, close + 1) + 1
            if close < 0 or page[i - 1] != _COLON:
                found[DOUBT] = 1
            elif role == _LINK or role == _META:
                inner, place = _OTHER, item_place(page, start, close - start, role)
            elif role != _OTHER:
                inner = inner_role(page, start, close, role)
                place = found_place(page, start, close, role)
            mode = _VALUE
        elif c == _QUOTE:
            start = i + 1
            close = string_end(page, start, end)
            if close < 0:
                found[DOUBT] = 1
            elif place == _PATH:
                attribute = attribute_of(page, start, close)
                # Nothing else of a link to a page matters.
                role = role if attribute >= 0 else _OTHER
            elif place >= _FOUND:
                found[place - _FOUND], found[place - _FOUND + 1] = start, close
            elif place > _PATH:
                item[place - _ITEM], item[place - _ITEM + 1] = start, close
            place = place if role >= _ARRAY else _NOTHING
            mode, i = _AFTER, close + 1
        elif c == _OPEN or c == _LEFT:
            if depth == MAX_DEPTH:
                found[DOUBT] = 1
                break
            roles[depth] = role
            depth += 1
            if inner == _OTHER:
                role = _OTHER if c == _OPEN else _ARRAY
            else:
                role = open_container(c == _LEFT, inner, images, metas, item, found)
                attribute = -1
            inner = _LINK if role == _LINKS else _META if role == _METAS else _OTHER
            place = _NOTHING
            mode = _FIRST_VALUE if role >= _ARRAY else _FIRST_KEY
            i += 1
        else:
            close = literal_end(page, i, end)
            if close < 0:
                found[DOUBT] = 1
            elif place == _FOUND + STATUS and is_digit(page[i]):
                found[STATUS], found[STATUS + 1] = i, close
            place = _NOTHING
            mode, i = _AFTER, close
    if mode != _AFTER or depth != 0:
        found[DOUBT] = 1
