"""Read the pages of a MediaWiki XML dump from any stretch of the file, as written or bzip2.

A page belongs to the stretch in which it begins; reading goes on behind the end of the stretch until
its last page is whole. So stretches side by side give every page once, wherever they are cut.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from xml.etree import ElementTree

from pipeline.errors import InputError
from queries import bzip2

# MediaWiki refuses articles over 2 MiB; escaped for XML they may be longer.
MAX_PAGE_BYTES = 16 << 20

_BEGIN, _END = b"<page>", b"</page>"
_PIECE = 1 << 20
_TITLE = re.compile(rb"<title>([^<]{1,255})</title>")

# Templates that mark a page as a list of what its title may mean, and not as an article.
_DISAMBIGUATION = re.compile(
    # At most ten spaces, never tried again with fewer: a page of spaces would take hours.
    r"\{\{\s{0,9}+(?:template:\s{0,9}+)?(?:(?:[^{}|\n]{1,60}[\s_])?disambig(?:uation)?(?:[\s_-](?:page|cleanup))?"
    r"|disamb|dab|geodis|hndis|numberdis|schooldis|hospitaldis|roadis|shipindex|mathdab|mil-unit-dis|stndis)"
    r"\s{0,9}(?:\||\}\})",
    re.IGNORECASE,
)


class Page(NamedTuple):
    """A page: title, number of its namespace, where it leads to if it is a redirect, wikitext."""

    title: str
    namespace: int
    redirect_to: str | None
    is_wikitext: bool
    text: str


class Unreadable(NamedTuple):
    """Something that is no page: the reason code, and what was seen."""

    reason: str
    detail: str


class _Piece(NamedTuple):
    offset: int
    content: bytes | None


def read_pages(file: BinaryIO, start: int, end: int) -> Iterator[Page | Unreadable]:
    """Yield the pages that begin in the bytes from `start` to `end` of a dump.

    Of a bzip2 file those bytes count in which a page's block begins.

    Raises:
        InputError: if the file is neither bzip2 nor XML.
    """
    for raw in _cut(_pieces(file, start, end), end):
        yield raw if isinstance(raw, Unreadable) else parse_page(raw)


def is_bzip2(file: BinaryIO) -> bool:
    """Return whether a dump is compressed with bzip2, and not plain XML.

    Raises:
        InputError: if it is neither.
    """
    file.seek(0)
    head = file.read(512).removeprefix(b"\xef\xbb\xbf")
    if head.startswith(bzip2.HEADER):
        return True
    if head.lstrip().startswith(b"<"):
        return False
    raise InputError("neither bzip2 nor XML; expected a dump such as enwiki-pages-articles.xml.bz2")


def parse_page(raw: bytes) -> Page | Unreadable:
    """Return the page in `raw`, an element `page`, with the text of its last revision."""
    try:
        page = ElementTree.fromstring(raw)
        title, namespace = page.findtext("title"), int(page.findtext("ns") or "")
    except (ElementTree.ParseError, ValueError) as error:
        return _unreadable("broken_page", raw, str(error))
    if not title:
        return _unreadable("broken_page", raw, "no title")
    redirect, revision = page.find("redirect"), page.find("revision[last()]")
    text = (revision.findtext("text") if revision is not None else None) or ""
    model = revision.findtext("model", "wikitext") if revision is not None else "wikitext"
    redirect_to = None if redirect is None else redirect.get("title", "")
    return Page(title, namespace, redirect_to, model == "wikitext", text)


def is_disambiguation(page: Page) -> bool:
    """Return whether the page lists what its title may mean."""
    if page.redirect_to is not None:
        return False
    return page.title.endswith(" (disambiguation)") or bool(_DISAMBIGUATION.search(page.text))


def _pieces(file: BinaryIO, start: int, end: int) -> Iterator[_Piece]:
    """Yield the file's content from `start` on, to the end of the file; none straddles `end`."""
    if is_bzip2(file):
        for block in bzip2.read_blocks(file, start):
            yield _Piece(*block)
        return
    while True:
        file.seek(start)
        content = file.read(min(_PIECE, end - start) if start < end else _PIECE)
        if not content:
            return
        yield _Piece(start, content)
        start += len(content)


def _cut(pieces: Iterator[_Piece], end: int) -> Iterator[bytes | Unreadable]:
    """Yield the elements `page` that begin in pieces before `end`, and a note for what cannot be read."""
    held = b""
    for offset, content in pieces:
        is_beyond = offset >= end
        if content is None:
            if held.startswith(_BEGIN):
                yield _unreadable("broken_page", held, "a damaged block follows")
            if is_beyond:
                return
            yield Unreadable("damaged_block", f"at byte {offset}")
            held = b""
            continue
        text = held + content
        begins_before = len(held) if is_beyond else len(text)
        at = 0
        while (begin := text.find(_BEGIN, at)) >= 0:
            if begin >= begins_before:
                return
            at, found = _page_end(text, begin)
            if found is None:
                break
            yield found
        held = text[at:] if begin >= 0 else text[max(at, len(text) - len(_BEGIN) + 1) :]
        if is_beyond and begin < 0:
            return
    if held.startswith(_BEGIN):
        yield _unreadable("broken_page", held, "the file ends here")


def _page_end(text: bytes, begin: int) -> tuple[int, bytes | Unreadable | None]:
    """Return where to go on behind the page that begins at `begin`, and the page; None if it goes on."""
    limit = begin + MAX_PAGE_BYTES
    close = text.find(_END, begin, limit)
    another = text.find(_BEGIN, begin + 1, limit if close < 0 else close)
    if another >= 0:
        return another, _unreadable("broken_page", text[begin:another], "another page begins in it")
    if close >= 0:
        return close + len(_END), text[begin : close + len(_END)]
    if len(text) < limit:
        return begin, None
    return limit, _unreadable("page_too_large", text[begin:limit], f"over {MAX_PAGE_BYTES} bytes")


def _unreadable(reason: str, raw: bytes, what: str) -> Unreadable:
    title = _TITLE.search(raw[:4096])
    seen = title.group(1) if title else raw[:60]
    return Unreadable(reason, f"{seen.decode(errors='replace')}: {what}")
