"""Find the images of one HTML page, with their addresses and alternative texts."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
from selectolax.lexbor import LexborHTMLParser, LexborNode

from pipeline.pairs import BrokenRecord, Reference, Skipped, make_reference
from pipeline.urls import Address, resolve

# Where scripts that load images late keep the address, the most common first.
LAZY_ATTRIBUTES = (
    "data-src",
    "data-lazy-src",
    "data-original",
    "data-lazy",
    "data-original-src",
    "data-actualsrc",
    "data-echo",
)
LAZY_SRCSETS = ("data-srcset", "data-lazy-srcset")

_MAX_SRCSET_CHARACTERS = 16_384
_MAX_PICTURE_SOURCES = 16
# The parser's time grows with nesting times tags, and with the square of a tag's attributes: a page
# of 1 MB made for it takes a minute. Pages below these numbers take less than a second.
_SUSPECT_TAGS = 20_000
_MAX_DEPTH = 1000
_MAX_ATTRIBUTES = 20_000
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_ATTRIBUTE = re.compile(r"""[\s"'/][^\s="'/>]""")
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "image", "input", "link", "meta", "wbr"}
_VOID_IN_OTHERS = {"param", "source", "track"}
_END_BY_THEMSELVES = {
    "p",
    "li",
    "dt",
    "dd",
    "option",
    "optgroup",
    "rp",
    "rt",
    "html",
    "head",
    "body",
}
_TABLE_PARTS = {"tr", "td", "th", "thead", "tbody", "tfoot", "colgroup"}
_SHAPES = {"path", "circle", "ellipse", "line", "polygon", "polyline", "rect", "stop", "use", "g"}
_NOT_NESTING = _VOID | _VOID_IN_OTHERS | _END_BY_THEMSELVES | _TABLE_PARTS | _SHAPES
# A comma that ends the address ends the entry; one within it belongs to it.
_SRCSET_ENTRY = re.compile(r"([^\s,]\S*)(?:(?<!,)\s+([^,]*))?")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)[wx]")
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", re.IGNORECASE
)
_DECLARED_BYTES = 4096
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# Guesses that on the web are nearly always the other encoding, equal but for a few letters.
_LIKELIER = {"mac-cyrillic": "cp1251", "iso8859-1": "cp1252"}
_HAS_IMAGE = re.compile(r"<ima?ge?[\s/>]", re.IGNORECASE)


class Candidate(NamedTuple):
    """One address that an `<img>` offers, as written."""

    value: str
    is_lazy: bool


def find_images(
    page: bytes, *, page_url: str | None, charset: str | None, offset: int
) -> Iterator[Reference | Skipped]:
    """Yield one pair or drop per `<img>` of `page`, in the order of the page.

    Of the addresses an image offers, the first that makes an http(s) URL counts: attributes of late
    loading, `src`, the largest of `srcset`, the largest of each `<source>` of its `<picture>`.

    Args:
        charset: what the HTTP header says.
        offset: of the page's record, handed through.

    Raises:
        BrokenRecord: if the page would keep the parser busy without end.
    """
    text = decode_page(page, charset)
    if not _HAS_IMAGE.search(text):
        return
    check_structure(text)
    tree = LexborHTMLParser(text)
    base = find_base(tree, page_url)
    pictures: dict[int, list[Candidate]] = {}
    for image in tree.css("img"):
        chosen, address = choose([*_own_candidates(image), *_of_picture(image, pictures)], base)
        yield make_reference(
            address,
            image.attributes.get("alt"),
            seen=chosen,
            caption_source="alt",
            page_url=page_url,
            offset=offset,
        )


def check_structure(text: str) -> None:
    """Make sure that a page is neither nested too deeply nor has a tag with too many attributes.

    Raises:
        BrokenRecord: if it is.
    """
    if text.count("<") > _SUSPECT_TAGS and find_depth(text) > _MAX_DEPTH:
        raise BrokenRecord(f"elements are nested more than {_MAX_DEPTH} deep")
    longest = max(text.split(">"), key=len).rpartition("<")[2]
    if len(longest) > 2 * _MAX_ATTRIBUTES and len(_ATTRIBUTE.findall(longest)) > _MAX_ATTRIBUTES:
        raise BrokenRecord(f"a tag has more than {_MAX_ATTRIBUTES} attributes")


def find_depth(text: str) -> int:
    """Return about how deep the elements of a page are nested; those that end by themselves do not count."""
    depth = deepest = 0
    for is_closing, name in _TAG.findall(text):
        if name.lower() in _NOT_NESTING:
            continue
        depth = max(0, depth - 1) if is_closing else depth + 1
        deepest = max(deepest, depth)
    return deepest


def decode_page(page: bytes, charset: str | None) -> str:
    """Return the text of `page`; what its encoding cannot mean becomes U+FFFD.

    The byte order mark counts first, then `charset`, then the page's `<meta>`; without those, UTF-8
    if it is valid, else what the bytes look like.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding, "replace")
    declared = _known(charset) or _declared_inside(page)
    if declared:
        return str(bytes_to_str(page, declared, "replace", ()))
    try:
        return page.decode("utf-8")
    except UnicodeDecodeError:
        guess = detect_encoding(page, html5_compatible=False) or "cp1252"
        return str(bytes_to_str(page, _LIKELIER.get(guess, guess), "replace", ()))


def _known(label: str | None) -> str | None:
    cleaned = (label or "").strip(" \t\"'")
    return map_encoding_to_html5(cleaned, fallback_utf8=False) if cleaned else None


def _declared_inside(page: bytes) -> str | None:
    found = _META_CHARSET.search(page, 0, _DECLARED_BYTES)
    encoding = _known(found[1].decode("ascii", "replace")) if found else None
    # A page whose <meta> could be read is not in UTF-16, whatever it says.
    return "utf-8" if encoding and encoding.startswith("utf-16") else encoding


def find_base(tree: LexborHTMLParser, page_url: str | None) -> str | None:
    """Return what relative addresses of the page stand relative to: `<base href>` or the page's URL."""
    node = tree.css_first("base[href]")
    if node is None:
        return page_url
    return choose_base(node.attributes.get("href"), page_url)


def choose_base(href: str | None, page_url: str | None) -> str | None:
    """Return the URL that `<base href>` gives on the page `page_url`, or else the page's own."""
    return resolve(href, page_url).url or page_url if href else page_url


def choose(candidates: list[Candidate], base: str | None) -> tuple[str, Address]:
    """Return the first candidate that makes a URL, else the first that is no script's guess, and its problem."""
    failed = []
    for candidate in candidates:
        address = resolve(candidate.value, base)
        if address.url:
            return candidate.value, address
        failed.append((candidate, address))
    failed.sort(key=lambda pair: pair[0].is_lazy)
    return (failed[0][0].value, failed[0][1]) if failed else ("", Address(None, "no_url"))


def _own_candidates(image: LexborNode) -> Iterator[Candidate]:
    attributes = image.attributes
    for name in LAZY_ATTRIBUTES:
        value = attributes.get(name)
        # A bare word there is a script's own business, such as "true" or "gallery-3".
        if value and ("/" in value or "." in value):
            yield Candidate(value, is_lazy=True)
    for name in LAZY_SRCSETS:
        yield from _largest(attributes.get(name), is_lazy=True)
    if attributes.get("src"):
        yield Candidate(attributes["src"] or "", is_lazy=False)
    yield from _largest(attributes.get("srcset"), is_lazy=False)


def _of_picture(image: LexborNode, known: dict[int, list[Candidate]]) -> list[Candidate]:
    parent = image.parent
    if parent is None or parent.tag != "picture":
        return []
    if parent.mem_id not in known:
        known[parent.mem_id] = [
            candidate
            for source in parent.css("source")[:_MAX_PICTURE_SOURCES]
            for name in ("srcset", *LAZY_SRCSETS)
            for candidate in _largest(source.attributes.get(name), is_lazy=name != "srcset")
        ]
    return known[parent.mem_id]


def _largest(srcset: str | None, *, is_lazy: bool) -> Iterator[Candidate]:
    best = largest_of_srcset(srcset) if srcset else None
    if best:
        yield Candidate(best, is_lazy=is_lazy)


def largest_of_srcset(srcset: str) -> str | None:
    """Return the entry of a `srcset` with the largest width or density, the first of equals."""
    if len(srcset) > _MAX_SRCSET_CHARACTERS:
        return None
    best, best_size = None, -1.0
    for url, descriptor in _SRCSET_ENTRY.findall(srcset):
        size = _SIZE.fullmatch(descriptor.strip())
        # An entry without a descriptor is the "1x" of the set.
        value = float(size[1]) if size else 1.0
        if value > best_size:
            best, best_size = url.rstrip(","), value
    return best
