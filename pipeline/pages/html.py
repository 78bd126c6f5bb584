"""Find the images of one HTML page by building its tree: the exact way, for pages of any shape.

`pipeline.pages.reader` takes a faster way for most pages and comes here for the others.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser, LexborNode

from pipeline.inputs.pairs import BrokenRecord, Place, Reference, Skipped, make_references
from pipeline.pages.encodings import decode_page
from pipeline.pages.nesting import find_depth
from pipeline.pages.open_graph import refer_open_graph
from pipeline.pages.tags import LAZY_ATTRIBUTES, LAZY_SRCSETS
from pipeline.pages.urls import Address, resolve

MAX_IMAGES = 20_000
MAX_METAS = 1_000
MAX_PICTURE_SOURCES = 16

_MAX_SRCSET_CHARACTERS = 16_384
_MAX_TEXT_CHARACTERS = 65_536
# The parser's time grows with nesting times tags, and with the square of a tag's attributes: a page
# of 1 MB made for it takes a minute. Pages below these numbers take less than a second.
_SUSPECT_TAGS = 2_000
_MAX_DEPTH = 1000
_MAX_ATTRIBUTES = 20_000
_ATTRIBUTE = re.compile(r"""[\s"'/][^\s="'/>]""")
# A comma that ends the address ends the entry; one within it belongs to it.
_SRCSET_ENTRY = re.compile(r"([^\s,]\S*)(?:(?<!,)\s+([^,]*))?")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)[wx]")
_HIDDEN = {"script", "style", "template", "textarea", "title", "iframe", "noembed", "noframes"}
_BREAKING = set(
    [
        "br",
        "p",
        "div",
        "li",
        "dt",
        "dd",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "tr",
        "td",
        "th",
        "ul",
        "ol",
        "dl",
        "hr",
        "blockquote",
        "pre",
        "section",
        "header",
        "footer",
    ]
)


class Candidate(NamedTuple):
    """One address that an `<img>` offers, as written."""

    value: str
    is_lazy: bool


def find_images(
    page: bytes | memoryview, *, page_url: str | None, charset: str | None, offset: int
) -> Iterator[Reference | Skipped]:
    """Yield the pairs and drops of the images of `page`, in the order of the page, then Open Graph's.

    Args:
        charset: what the HTTP header says.
        offset: of the page's record, handed through.

    Raises:
        BrokenRecord: if the page would keep the parser busy without end, or has too many images.
    """
    text = decode_page(page, charset)
    check_structure(text)
    tree = LexborHTMLParser(text)
    images = tree.css("img")
    metas = [meta for meta in map(_open_graph, tree.css("meta[content]")) if meta]
    check_counts(len(images), len(metas))
    base = find_base(tree, page_url)
    place = Place(base, page_url, offset)
    pictures: dict[int, list[Candidate]] = {}
    captions = _captions_of_figures(tree)
    texts: dict[int | None, str] = {}
    for image in images:
        sources = _of_picture(image, pictures)
        figure = _figure_around(image) if captions else None
        if figure in captions and figure not in texts:
            texts[figure] = text_of(captions[figure])
        yield from refer_image(image.attributes, place, sources, texts.get(figure, ""))
    yield from refer_open_graph(metas, place)


def check_counts(images: int, metas: int) -> None:
    """Make sure that a page has no more images and metas than a page has.

    Raises:
        BrokenRecord: if it does.
    """
    if images > MAX_IMAGES:
        raise BrokenRecord(f"more than {MAX_IMAGES} images")
    if metas > MAX_METAS:
        raise BrokenRecord(f"more than {MAX_METAS} tags of Open Graph")


def refer_image(
    attributes: Mapping[str, str | None],
    place: Place,
    sources: Sequence[Candidate] = (),
    figcaption: str = "",
) -> list[Reference | Skipped]:
    """Return the pairs of one `<img>`, a text each, or the drop that says why it has none.

    Of the addresses it offers, the first that makes an http(s) URL counts: attributes of late loading,
    `src`, the largest of `srcset`, then `sources`, those of its `<picture>`.
    """
    chosen, address = choose([*own_candidates(attributes), *sources], place.base)
    texts = [(name, attributes.get(name)) for name in ("alt", "title")]
    return make_references(
        address,
        [*texts, ("figcaption", figcaption)],
        place,
        seen=chosen,
    )


def _open_graph(meta: LexborNode) -> tuple[str, str] | None:
    attributes = meta.attributes
    name = attributes["property"] if "property" in attributes else attributes.get("name")
    if name is None or name[:3].lower() != "og:" or len(name) == 3:
        return None
    return name.strip().lower(), attributes["content"] or ""


def _captions_of_figures(tree: LexborHTMLParser) -> dict[int | None, LexborNode]:
    captions: dict[int | None, LexborNode] = {}
    for caption in tree.css("figcaption"):
        captions.setdefault(_figure_around(caption), caption)
    captions.pop(None, None)
    return captions


def _figure_around(element: LexborNode) -> int | None:
    above = element.parent
    while above is not None and above.tag != "figure":
        above = above.parent
    return above.mem_id if above is not None else None


def caption_text(markup: str) -> str:
    """Return the visible text of what stands within a `<figcaption>`."""
    if "<" in markup or "&" in markup:
        caption = LexborHTMLParser(f"<figcaption>{markup}</figcaption>").css_first("figcaption")
        return text_of(caption) if caption is not None else ""
    return " ".join(markup.split())


def text_of(element: LexborNode) -> str:
    """Return the visible text of an element, a space for every run of white space, break or block."""
    pieces, length = [], 0
    for node in element.traverse(include_text=True):
        if length > _MAX_TEXT_CHARACTERS:
            break
        if node.tag == "-text" and node.parent is not None and node.parent.tag not in _HIDDEN:
            pieces.append(node.text_content or "")
            length += len(pieces[-1])
        elif node.tag in _BREAKING:
            pieces.append(" ")
    return " ".join("".join(pieces).split())


def own_candidates(attributes: Mapping[str, str | None]) -> Iterator[Candidate]:
    """Yield the addresses that an `<img>` itself offers, in the order in which they count."""
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
            for source in parent.css("source")[:MAX_PICTURE_SOURCES]
            for candidate in source_candidates(source.attributes)
        ]
    return known[parent.mem_id]


def source_candidates(attributes: Mapping[str, str | None]) -> Iterator[Candidate]:
    """Yield the addresses that a `<source>` of a `<picture>` offers."""
    for name in ("srcset", *LAZY_SRCSETS):
        yield from _largest(attributes.get(name), is_lazy=name != "srcset")


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


def check_structure(text: str) -> None:
    """Make sure that a page is neither nested too deeply nor has a tag with too many attributes.

    Raises:
        BrokenRecord: if it is.
    """
    if text.count("<") > _SUSPECT_TAGS and find_depth(text, _MAX_DEPTH + 1) > _MAX_DEPTH:
        raise BrokenRecord(f"elements are nested more than {_MAX_DEPTH} deep")
    for piece in text.split(">"):
        if len(piece) <= 2 * _MAX_ATTRIBUTES:
            continue
        tag = piece.rpartition("<")[2]
        if len(tag) > 2 * _MAX_ATTRIBUTES and len(_ATTRIBUTE.findall(tag)) > _MAX_ATTRIBUTES:
            raise BrokenRecord(f"a tag has more than {_MAX_ATTRIBUTES} attributes")


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
