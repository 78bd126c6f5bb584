"""The pairs of a page by the letter of docs/ingest.md, over the tree of another parser."""

from collections.abc import Iterator

from resiliparse.parse.html import DOMNode, HTMLTree, NodeType

from pipeline.pages.html import largest_of_srcset
from pipeline.pages.tags import LAZY_ATTRIBUTES, LAZY_SRCSETS
from pipeline.pages.urls import resolve

Found = tuple[str, str, str]
"""Address, text and where it stood; or the reason, and nothing."""

HIDDEN = ("script", "style", "template", "textarea", "title", "iframe", "noembed", "noframes")
BREAKING = (
    "br p div li dt dd h1 h2 h3 h4 h5 h6 tr td th ul ol dl hr blockquote pre section header footer"
)


def find_pairs(page: str, page_url: str) -> list[Found]:
    """Return the pairs and reasons of a page, sorted."""
    tree = HTMLTree.parse(page)
    base = next((b["href"] for b in tree.document.query_selector_all("base[href]")), None)
    where = (resolve(base, page_url).url if base else None) or page_url
    found = [
        row for image in tree.document.query_selector_all("img") for row in rows_of(image, where)
    ]
    return sorted(found + list(open_graph(tree, where)))


def rows_of(image: DOMNode, base: str) -> list[Found]:
    problems, url = [], None
    for value, is_lazy in addresses(image):
        url, problem = resolve(value, base)
        if url:
            break
        problems.append((is_lazy, problem))
    if not url:
        problems.sort(key=lambda pair: pair[0])
        return [(problems[0][1] if problems else "no_url", "", "")]
    texts = {
        "alt": image.getattr("alt"),
        "title": image.getattr("title"),
        "figcaption": caption(image),
    }
    return pairs(url, texts)


def pairs(url: str, texts: dict[str, str | None]) -> list[Found]:
    found: dict[str, Found] = {}
    for source, text in texts.items():
        cleaned = (text or "").replace("\0", "\ufffd").strip()
        if cleaned and len(cleaned) <= 4096:
            found.setdefault(cleaned, (url, cleaned, source))
        elif cleaned:
            found.setdefault(cleaned, ("caption_too_large", "", ""))
    return list(found.values()) or [("no_caption", "", "")]


def addresses(image: DOMNode) -> Iterator[tuple[str, bool]]:
    for name in LAZY_ATTRIBUTES:
        value = image.getattr(name)
        if value and ("/" in value or "." in value):
            yield value, True
    for name in (*LAZY_SRCSETS, "src", "srcset"):
        value = image.getattr(name)
        if value and "srcset" in name:
            value = largest_of_srcset(value)
        if value:
            yield value, name in LAZY_SRCSETS
    if image.parent is not None and image.parent.tag == "picture":
        for source in image.parent.query_selector_all("source")[:16]:
            for name in ("srcset", *LAZY_SRCSETS):
                value = largest_of_srcset(source.getattr(name) or "")
                if value:
                    yield value, name != "srcset"


def nearest_figure(node: DOMNode) -> DOMNode | None:
    above = node.parent
    while above is not None and above.tag != "figure":
        above = above.parent
    return above


def caption(image: DOMNode) -> str:
    figure = nearest_figure(image)
    if figure is None:
        return ""
    for one in figure.query_selector_all("figcaption"):
        if nearest_figure(one) == figure:
            return " ".join("".join(visible(one)).split())
    return ""


def visible(node: DOMNode) -> Iterator[str]:
    for child in node.child_nodes:
        if child.type == NodeType.TEXT:
            yield child.text
        elif child.type == NodeType.ELEMENT:
            if child.tag in BREAKING.split():
                yield " "
            if child.tag not in HIDDEN:
                yield from visible(child)


def open_graph(tree: HTMLTree, base: str) -> Iterator[Found]:
    images: list[dict[str, str]] = []
    about: dict[str, str] = {}
    for meta in tree.document.query_selector_all("meta[content]"):
        name, content = meta.getattr("property"), meta["content"]
        name = (meta.getattr("name") if name is None else name) or ""
        name = name.strip().lower() if name[:3].lower() == "og:" else ""
        if name in ("og:image", "og:image:url"):
            images.append({"url": content})
        elif content and name == "og:image:alt" and images:
            images[-1].setdefault("alt", content)
        elif content and name in ("og:title", "og:description"):
            about.setdefault(name.replace(":", "_"), content)
    for image in images:
        url, problem = resolve(image["url"], base)
        own = image.get("alt", "")
        shared = {name: about.get(name) for name in ("og_description", "og_title")}
        if url:
            yield from pairs(url, {"og_alt": own} if own.strip() else shared)
        else:
            yield problem, "", ""
