"""The pictures by which pages want to be shown elsewhere: Open Graph's `og:image` and the texts for it.

An image goes with its own `og:image:alt`; without one, with `og:description` and with `og:title`.
"""

# ruff: noqa: SIM109
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from pipeline.inputs.pairs import Place, Reference, Skipped, make_references
from pipeline.matching.trie_tables import Bytes, Ids
from pipeline.pages.html_kernels import IN_FIGURE
from pipeline.pages.html_tokens import letters
from pipeline.pages.tags import ALT, SRC, TITLE
from pipeline.pages.urls import resolve
from pipeline.pages.value_kernels import is_blank
from pipeline.runtime.compiled import compiled, inlined

# What stands in place of an image's figure: that its text is its own, or that they are the page's.
OWN_TEXT, SHARED_TEXTS = -2, -3
_NAMES = (("og_alt",), ("og_description", "og_title"))
_AMPERSAND, _BACKSLASH = 0x26, 0x5C
_OTHER, _IMAGE, _IMAGE_ALT, _DESCRIPTION, _TITLE, _UNCLEAR = range(6)


def refer_open_graph(
    metas: Iterable[tuple[str, str]], place: Place
) -> Iterator[Reference | Skipped]:
    """Yield the pairs and drops of each `og:image`.

    Args:
        metas: property in lower case and content of the page's tags of Open Graph, in their order.
    """
    images: list[list[str]] = []
    about = {"og:description": "", "og:title": ""}
    for name, content in metas:
        if name in ("og:image", "og:image:url"):
            images.append([content, ""])
        elif name == "og:image:alt" and images:
            images[-1][1] = images[-1][1] or content
        elif name in about:
            about[name] = about[name] or content
    for url, alt in images:
        if alt.strip():
            yield from refer_shared(url, [alt], place)
        else:
            yield from refer_shared(url, list(about.values()), place)


def refer_shared(url: str, texts: Sequence[str], place: Place) -> list[Reference | Skipped]:
    """Return the pairs of an `og:image` with its own text, or with description and title of the page."""
    return make_references(
        resolve(url, place.base),
        zip(_NAMES[len(texts) - 1], texts, strict=True),
        place,
        seen=url,
    )


def refer_shown(
    attributes: Mapping[str, str | None], kind: int, place: Place
) -> list[Reference | Skipped]:
    """Return the pairs of a row that `add_open_graph` wrote, of the kind OWN_TEXT or SHARED_TEXTS."""
    alt, title = attributes.get("alt") or "", attributes.get("title") or ""
    texts = [alt] if kind == OWN_TEXT else [alt, title]
    return refer_shared(attributes.get("src") or "", texts, place)


_OG_IMAGE, _OG_TITLE, _OG_DESCR, _URL, _OWN_ALT, _REST = (
    np.uint64(int.from_bytes(word, "little"))
    for word in (b"og:image", b"og:title", b"og:descr", b":url", b":alt", b"iption")
)


@inlined
def meaning(page: Bytes, start: int, end: int) -> int:
    """Return what the property `page[start:end]`, which begins with `og:`, says."""
    for k in range(start, end):
        c = page[k]
        if c <= 32 or c >= 0x80 or c == _AMPERSAND or c == _BACKSLASH:
            return _UNCLEAR
    length = end - start
    head = letters(page, start, 8)
    if length == 8 and head == _OG_TITLE:
        return _TITLE
    if length == 14 and head == _OG_DESCR and letters(page, end - 6, 6) == _REST:
        return _DESCRIPTION
    if head != _OG_IMAGE or (length != 8 and length != 12):
        return _OTHER
    tail = letters(page, end - 4, 4)
    if length == 8 or tail == _URL:
        return _IMAGE
    return _IMAGE_ALT if tail == _OWN_ALT else _OTHER


@inlined
def is_visible(page: Bytes, start: int, end: int) -> int:
    """Return 1 if a text has more than white space, 0 if it has none, -1 where that is not plain."""
    for k in range(start, end):
        c = page[k]
        if c == _AMPERSAND or c == _BACKSLASH or c >= 0x80:
            return -1
        if not is_blank(c):
            return 1
    return 0


@compiled
def add_open_graph(page: Bytes, metas: Ids, images: Ids) -> int:
    """Write a row like those of `<img>` for each `og:image`; return how many, -1 where that is not plain.

    Its address stands as `src`, its texts as `alt` and `title`.
    """
    count = 0
    texts = np.full(4, -1, np.int32)
    for i in range(metas.shape[0]):
        said = meaning(page, metas[i, 0], metas[i, 1])
        start, end = metas[i, 2], metas[i, 3]
        if said == _UNCLEAR:
            return -1
        if said == _IMAGE:
            images[count] = -1
            images[count, IN_FIGURE] = SHARED_TEXTS
            images[count, 2 * SRC], images[count, 2 * SRC + 1] = start, end
            count += 1
        elif end > start and said == _IMAGE_ALT and count > 0 and images[count - 1, 2 * ALT] < 0:
            images[count - 1, 2 * ALT], images[count - 1, 2 * ALT + 1] = start, end
        elif end > start and (said == _DESCRIPTION or said == _TITLE):
            place = 0 if said == _DESCRIPTION else 2
            if texts[place] < 0:
                texts[place], texts[place + 1] = start, end
    for i in range(count):
        visible = is_visible(page, images[i, 2 * ALT], images[i, 2 * ALT + 1])
        if visible < 0:
            return -1
        if visible:
            images[i, IN_FIGURE] = OWN_TEXT
        else:
            images[i, 2 * ALT], images[i, 2 * ALT + 1] = texts[0], texts[1]
            images[i, 2 * TITLE], images[i, 2 * TITLE + 1] = texts[2], texts[3]
    return count
