"""Turn the images that a scan found into rows of URLs and texts, without a Python object for any of them.

Only what is plain is done here, nineteen images in twenty; the others are left to `pipeline.pages.reader`,
which does the same more slowly. Tests hold the two together.
"""

# ruff: noqa: C901, SIM109
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

import numpy as np

from pipeline.inputs.pairs import MAX_CAPTION_CHARACTERS
from pipeline.matching.trie_tables import Bytes, Ids, Offsets
from pipeline.pages.address_kernels import NO_ADDRESS, NOT_PLAIN, write_address
from pipeline.pages.html_kernels import IN_FIGURE, IN_PICTURE
from pipeline.pages.open_graph import OWN_TEXT, SHARED_TEXTS
from pipeline.pages.tags import ALT, SRCSET, TITLE
from pipeline.pages.text_kernels import are_equal, write_text
from pipeline.runtime.compiled import compiled

# What a row is.
ALT_ROW, TITLE_ROW, OG_ALT_ROW, OG_DESCRIPTION_ROW, OG_TITLE_ROW = range(5)
NO_CAPTION_ROW, NO_URL_ROW, DATA_URL_ROW = range(5, 8)
# Places in `filled`: rows written, bytes of their addresses and texts, images left over.
ROWS, URL_BYTES, TEXT_BYTES, LEFT = range(4)

_MAX_TEXT_BYTES = 4 * MAX_CAPTION_CHARACTERS


@compiled
def room_for_addresses(images: Ids, base_size: int) -> int:
    """Return how many bytes `assemble` writes at most of the addresses of `images`, twice where texts are two."""
    room = 0
    for i in range(images.shape[0]):
        longest = 0
        for k in range(SRCSET + 1):
            longest = max(longest, images[i, 2 * k + 1] - images[i, 2 * k])
        room += 2 * (3 * longest + base_size)
    return room


@compiled
def room_for_texts(images: Ids) -> int:
    """Return how many bytes `assemble` writes at most of the texts of `images`, which may share them.

    A text that is too long is written too, but the next one over it.
    """
    room = longest = 0
    for i in range(images.shape[0]):
        alt = images[i, 2 * ALT + 1] - images[i, 2 * ALT]
        title = images[i, 2 * TITLE + 1] - images[i, 2 * TITLE]
        longest = max(longest, alt, title)
        room += min(alt, _MAX_TEXT_BYTES) + min(title, _MAX_TEXT_BYTES)
    return int(room + longest)


@compiled
def assemble(
    page: Bytes,
    images: Ids,
    captions: Ids,
    base: Bytes,
    lengths: Offsets,
    is_json: bool,
    may_have_sources: bool,
    number: int,
    kinds: Bytes,
    pages: Ids,
    url_ends: Ids,
    text_ends: Ids,
    urls: Bytes,
    texts: Bytes,
    left: Ids,
    filled: Offsets,
) -> None:
    """Append a row for each text of each image whose address and texts are plain; list the others.

    Args:
        captions: start and end of each figure's caption; an image in a figure that has one is left over.
        base: what relative addresses stand behind; of it, scheme, origin and folder are `lengths` long.
        is_json: whether values are written as in JSON, rather than in HTML.
        may_have_sources: whether images without an address may stand in a `<picture>` that has one.
        number: of the page.
        kinds, pages, url_ends, text_ends: of each row.
        left: of each image left over, its number and how many rows come before it.
    """
    seen = np.zeros(1, np.int64)
    row, u, t = filled[ROWS], filled[URL_BYTES], filled[TEXT_BYTES]
    over = 0
    for i in range(images.shape[0]):
        figure = images[i, IN_FIGURE]
        is_plain = figure < 0 or captions[figure, 0] < 0
        may_have = may_have_sources or images[i, IN_PICTURE] >= 0
        first_kind, second_kind = ALT_ROW, TITLE_ROW
        if figure == OWN_TEXT or figure == SHARED_TEXTS:
            may_have = False
            first_kind = OG_ALT_ROW if figure == OWN_TEXT else OG_DESCRIPTION_ROW
            second_kind = OG_TITLE_ROW
        url_end = NOT_PLAIN
        if is_plain:
            url_end = write_address(page, images, i, base, lengths, urls, u, is_json, seen)
        if url_end <= NO_ADDRESS and may_have:
            url_end = NOT_PLAIN
        if url_end <= NO_ADDRESS:
            kinds[row] = NO_URL_ROW if url_end == NO_ADDRESS else DATA_URL_ROW
            u = u if url_end == NO_ADDRESS else seen[0]
            pages[row], url_ends[row], text_ends[row] = number, u, t
            row += 1
            continue
        alt_end = title_end = t
        if url_end >= 0 and images[i, 2 * ALT] >= 0:
            alt_end = write_text(
                page, images[i, 2 * ALT], images[i, 2 * ALT + 1], texts, t, is_json, seen
            )
            title_end = alt_end
        if url_end >= 0 and alt_end >= 0 and images[i, 2 * TITLE] >= 0:
            title_end = write_text(
                page, images[i, 2 * TITLE], images[i, 2 * TITLE + 1], texts, alt_end, is_json, seen
            )
        if url_end < 0 or title_end < 0:
            left[over, 0], left[over, 1] = i, row
            over += 1
            continue
        if are_equal(texts, t, alt_end, title_end):
            title_end = alt_end
        kind = first_kind if alt_end > t else second_kind if title_end > t else NO_CAPTION_ROW
        first_end = alt_end if alt_end > t else title_end
        kinds[row], pages[row], url_ends[row], text_ends[row] = kind, number, url_end, first_end
        row += 1
        if title_end > first_end:
            for k in range(url_end - u):
                urls[url_end + k] = urls[u + k]
            url_end += url_end - u
            kinds[row], pages[row] = second_kind, number
            url_ends[row], text_ends[row] = url_end, title_end
            row += 1
        u, t = url_end, title_end
    filled[ROWS], filled[URL_BYTES], filled[TEXT_BYTES], filled[LEFT] = row, u, t, over
