"""Find the images of a page by its tags, without building its tree.

Where tags alone cannot tell what a page means, as within an unclosed `<select>` or a figure across
the cells of a table, that is a doubt, and the page is left to the parser (`pipeline.pages.html`).
"""

# ruff: noqa: C901
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

import numpy as np

from pipeline.matching.trie_tables import Bytes, Ids, Offsets
from pipeline.pages.figures import (
    CAPTIONS,
    DEPTH,
    FIGURE_DOUBT,
    FIGURE_NOW,
    OPEN_BUTTONS,
    STACK_ROWS,
    cut,
    enter,
    leave,
)
from pipeline.pages.html_tokens import (
    BANG,
    CLOSES,
    DASH,
    GREATER,
    LESS,
    NAME,
    NAME_END,
    QUESTION,
    SLASH,
    VALUE,
    VALUE_END,
    find_byte,
    is_letter,
    letters,
    name_end,
    next_attribute,
    same_letter,
    skip_attributes,
    skip_comment,
    skip_raw,
    skip_tag,
)
from pipeline.pages.tags import (
    ATTRIBUTES,
    BASE,
    BUTTON,
    CODES,
    FIGCAPTION,
    FIGURE,
    FOREIGN,
    HEADS,
    HOPELESS,
    IMG,
    LENGTHS,
    META,
    NAMES,
    OTHER,
    PICTURE,
    RAW,
    SELECT,
    SLOT_FACTOR,
    SOURCE,
    TAILS,
    TEMPLATE,
)
from pipeline.runtime.compiled import compiled, inlined

# Columns of an image: start and end of each of ATTRIBUTES, -1 where it has none; its figure and its
# picture, or -1. A picture's source has the same.
IN_FIGURE = 2 * len(ATTRIBUTES)
IN_PICTURE = IN_FIGURE + 1
IMAGE_COLUMNS = IN_PICTURE + 1
# Columns of a meta: start and end of its property or name and of its content.
META_COLUMNS = 4

# Places in `found`, behind those of `pipeline.pages.figures`: how many rows there are; the first base; which
# doubts there are; open elements that matter.
IMAGES, METAS, SOURCES, BASE_START, BASE_END, DOUBT, FULL, PICTURE_DOUBT = range(6, 14)
TEMPLATES, FOREIGNS, SELECTS, PICTURE_NOW, PICTURES = range(14, 19)
FOUND_SIZE = 19

_FACTOR, _U56 = np.uint64(SLOT_FACTOR), np.uint64(56)
_CONTENT, _PROPERTY, _META_NAME, _HREF, _OG = (
    np.uint64(int.from_bytes(name, "little"))
    for name in (b"content", b"property", b"name", b"href", b"og:")
)


@inlined
def code_of(page: Bytes, start: int, length: int) -> int:
    """Return the code of the tag whose name is at `start`."""
    word = letters(page, start, length)
    slot = (word * _FACTOR) >> _U56
    if HEADS[slot] != word or length > 16:
        return OTHER
    tail = letters(page, start + 8, length - 8) if length > 8 else np.uint64(0)
    return int(np.int64(CODES[slot])) if tail == TAILS[slot] else OTHER


@inlined
def read_image(page: Bytes, i: int, end: int, image: Ids, span: Ids) -> int:
    """Put the attributes of an `<img>` or `<source>` into `image`; return the place behind it."""
    image[:] = -1
    while True:
        i = next_attribute(page, i, end, span)
        if i < 0 or i > end:
            return -1
        if span[NAME] < 0:
            return i
        length = span[NAME_END] - span[NAME]
        for known in range(LENGTHS.size):
            if LENGTHS[known] != length or image[2 * known] >= 0:
                continue
            k = 0
            while k < length and same_letter(page[span[NAME] + k], NAMES[known, k]):
                k += 1
            if k == length:
                image[2 * known], image[2 * known + 1] = span[VALUE], span[VALUE_END]
                break


@inlined
def read_meta(page: Bytes, i: int, end: int, meta: Ids, span: Ids) -> int:
    """Put property (else name) and content of a `<meta>` into `meta`; return the place behind it."""
    meta[:] = -1
    has_property = False
    while True:
        i = next_attribute(page, i, end, span)
        if i < 0 or i > end:
            return -1
        if span[NAME] < 0:
            return i
        length = span[NAME_END] - span[NAME]
        name = letters(page, span[NAME], length) if length <= 8 else np.uint64(0)
        if name == _CONTENT and meta[2] < 0:
            meta[2], meta[3] = span[VALUE], span[VALUE_END]
        elif (name == _PROPERTY and not has_property) or (name == _META_NAME and meta[0] < 0):
            meta[0], meta[1] = span[VALUE], span[VALUE_END]
            has_property = has_property or name == _PROPERTY


@inlined
def is_open_graph(page: Bytes, meta: Ids) -> bool:
    """Return whether a `<meta>` has a property that begins with `og:`, and a content."""
    name = meta[0]
    return bool(name >= 0 and meta[2] >= 0 and meta[1] - name > 3 and letters(page, name, 3) == _OG)


@inlined
def read_base(page: Bytes, i: int, end: int, found: Offsets, span: Ids) -> int:
    """Keep the `href` of the first `<base>` that has one; return the place behind it."""
    while True:
        i = next_attribute(page, i, end, span)
        if i < 0 or i > end:
            return -1
        if span[NAME] < 0:
            return i
        is_href = span[NAME_END] - span[NAME] == 4 and letters(page, span[NAME], 4) == _HREF
        if is_href and found[BASE_START] < 0:
            found[BASE_START], found[BASE_END] = span[VALUE], span[VALUE_END]


@inlined
def start_image(
    page: Bytes, i: int, end: int, code: int, rows: Ids, found: Offsets, span: Ids
) -> int:
    """Read an `<img>`, or a `<source>` of a picture, into the next of `rows`; return the place behind it."""
    count = IMAGES if code == IMG else SOURCES
    row = found[count]
    if row == rows.shape[0]:
        found[FULL if code == IMG else DOUBT] = 1
        return -1
    i = read_image(page, i, end, rows[row], span)
    if i >= 0:
        rows[row, IN_FIGURE], rows[row, IN_PICTURE] = found[FIGURE_NOW], found[PICTURE_NOW]
        found[count] += 1
        if found[SELECTS] > 0:
            found[DOUBT] = 1
    return i


@inlined
def start_meta(page: Bytes, i: int, end: int, metas: Ids, found: Offsets, span: Ids) -> int:
    """Read a `<meta>` into the next row, if it is Open Graph's; return the place behind it."""
    row = found[METAS]
    if row == metas.shape[0]:
        found[FULL] = 1
        return -1
    i = read_meta(page, i, end, metas[row], span)
    if i >= 0 and is_open_graph(page, metas[row]):
        found[METAS] = row + 1
        if found[SELECTS] > 0:
            found[DOUBT] = 1
    return i


@inlined
def start_raw(
    page: Bytes, i: int, end: int, name: int, length: int, found: Offsets, span: Ids
) -> int:
    """Return where the content of a `<script>`, `<style>` or the like ends."""
    is_closed = span[CLOSES]
    i = skip_raw(page, i, end, letters(page, name, length), length, span)
    # Within these, tags may stand in a style or title.
    if (found[FOREIGNS] > 0 and (is_closed or span[NAME])) or (found[SELECTS] > 0 and span[NAME]):
        found[DOUBT] = 1
    return i


@inlined
def start_special(code: int, found: Offsets, span: Ids) -> None:
    """Note the start of an element that changes what the tags within it mean."""
    if code == FOREIGN:
        if not span[CLOSES]:
            found[FOREIGNS] += 1
        return
    if code == HOPELESS or (found[FOREIGNS] > 0 and code != PICTURE):
        found[DOUBT] = 1
    elif code == TEMPLATE:
        found[TEMPLATES] += 1
        if found[SELECTS] > 0:
            found[DOUBT] = 1
    elif code == SELECT:
        found[SELECTS] = 1
    elif found[TEMPLATES] == 0:
        if found[PICTURE_NOW] >= 0 or found[FOREIGNS] > 0:
            found[PICTURE_DOUBT] = 1
        found[PICTURE_NOW] = found[PICTURES]
        found[PICTURES] += 1


@inlined
def start_element(
    page: Bytes,
    name: int,
    length: int,
    code: int,
    after: int,
    stack: Offsets,
    captions: Ids,
    found: Offsets,
) -> None:
    """Note the start of an element that may begin or end a figure or caption."""
    if found[TEMPLATES] > 0:
        return
    if code == FIGCAPTION:
        found[CAPTIONS] = 1
    if found[DEPTH] > 0 or code == FIGURE:
        if found[FOREIGNS] > 0 or found[SELECTS] > 0:
            found[FIGURE_DOUBT] = 1
        word = int(np.int64(letters(page, name, length)))
        enter(stack, captions, found, word, code, name - 1, after)
    elif code == BUTTON:
        found[OPEN_BUTTONS] = 1


@compiled
def start_tag(
    page: Bytes,
    name: int,
    i: int,
    end: int,
    code: int,
    images: Ids,
    sources: Ids,
    metas: Ids,
    captions: Ids,
    stack: Offsets,
    found: Offsets,
    span: Ids,
) -> int:
    """Take in the start tag with the name `page[name:i]`; return the place behind it, -1 for the end."""
    length = i - name
    if found[TEMPLATES] == 0:
        if code == IMG:
            return start_image(page, i, end, code, images, found, span)
        if code == SOURCE and found[PICTURE_NOW] >= 0:
            return start_image(page, i, end, code, sources, found, span)
        if found[PICTURE_NOW] >= 0:
            found[PICTURE_DOUBT] = 1
        if code == META:
            return start_meta(page, i, end, metas, found, span)
        if code == BASE:
            if found[FOREIGNS] > 0 or found[SELECTS] > 0:
                found[DOUBT] = 1
            return read_base(page, i, end, found, span)
    i = skip_attributes(page, i, end, span)
    if i < 0:
        return i
    if code == RAW:
        return start_raw(page, i, end, name, length, found, span)
    if code >= FIGURE:
        start_element(page, name, length, code, i, stack, captions, found)
    elif code > RAW and code != SOURCE:
        start_special(code, found, span)
    return i


@compiled
def end_tag(
    page: Bytes,
    name: int,
    i: int,
    end: int,
    code: int,
    stack: Offsets,
    captions: Ids,
    found: Offsets,
) -> int:
    """Take in the end tag with the name `page[name:i]`; return the place behind it, -1 for the end."""
    length = i - name
    i = skip_tag(page, i, end)
    if i < 0:
        return i
    if found[PICTURE_NOW] >= 0 and found[TEMPLATES] == 0:
        if code == PICTURE:
            found[PICTURE_NOW] = -1
        elif code != SOURCE:
            found[PICTURE_DOUBT] = 1
    if code == TEMPLATE:
        found[TEMPLATES] = max(0, found[TEMPLATES] - 1)
    elif code == FOREIGN:
        found[FOREIGNS] = max(0, found[FOREIGNS] - 1)
    elif code == SELECT:
        found[SELECTS] = 0
    elif code >= FIGURE and found[TEMPLATES] == 0:
        if found[DEPTH] > 0:
            if found[FOREIGNS] > 0 or found[SELECTS] > 0:
                found[FIGURE_DOUBT] = 1
            word = int(np.int64(letters(page, name, length)))
            leave(stack, captions, found, word, code, name - 2)
        elif code == BUTTON:
            found[OPEN_BUTTONS] = 0
    return i


@compiled
def scan_page(
    page: Bytes,
    end: int,
    images: Ids,
    sources: Ids,
    metas: Ids,
    captions: Ids,
    found: Offsets,
) -> None:
    """Find the images of `page[:end]`, the sources of its pictures, Open Graph's metas, base and figures.

    Args:
        page: the page in UTF-8 and PADDING zero bytes behind it.
        images, sources, metas, captions: tables to fill; of captions, start and end by figure.
        found: to be filled with counts, with DOUBT if the tags alone do not tell what the page means,
            and with FULL if a table has too few rows.
    """
    found[:] = 0
    found[FIGURE_NOW] = found[BASE_START] = found[PICTURE_NOW] = -1
    stack = np.empty((STACK_ROWS, 3), np.int64)
    span = np.zeros(5, np.int32)
    i = 0
    while i >= 0 and found[DOUBT] == 0:
        i = find_byte(page, i, end, LESS)
        if i + 2 >= end:
            break
        c = page[i + 1]
        if c == BANG:
            if found[FOREIGNS] > 0 and page[i + 2] != DASH:
                found[DOUBT] = 1
            i = skip_comment(page, i, end)
            continue
        is_end = c == SLASH
        name = i + 2 if is_end else i + 1
        if not is_letter(page[name]):
            if c == QUESTION or (is_end and page[name] != GREATER):
                i = find_byte(page, name, end, GREATER)
            i += 1
            continue
        i = name_end(page, name)
        if page[i] == 0:
            # The page ends here, or a zero byte stands in a name.
            if i < end:
                found[DOUBT] = 1
            break
        code = code_of(page, name, i - name)
        if code == OTHER or (code > BUTTON and found[DEPTH] == 0):
            if found[PICTURE_NOW] >= 0:
                found[PICTURE_DOUBT] = 1
            i = skip_tag(page, i, end)
        elif is_end:
            i = end_tag(page, name, i, end, code, stack, captions, found)
        else:
            i = start_tag(
                page, name, i, end, code, images, sources, metas, captions, stack, found, span
            )
    cut(stack, captions, found, 0, end)
    if found[FIGURE_DOUBT] and found[CAPTIONS]:
        found[DOUBT] = 1
