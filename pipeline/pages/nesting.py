"""Tell how deeply the elements of a page are nested, before a parser is given it."""

import re
from collections import Counter

_SPACE = r"\t\n\f\r "
_VALUE = rf"""(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|[^{_SPACE}>]*+)"""
_NAMED = rf"(?:=[^{_SPACE}/>=]*+|[^{_SPACE}/>=]++)(?:[{_SPACE}]*+=[{_SPACE}]*+{_VALUE})?"
_TOKEN = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))|<(?:[!?]|/[^a-zA-Z>])[^>]*"
    rf"|<(/?)([a-zA-Z][^{_SPACE}/>]*)(?:[{_SPACE}/]++|{_NAMED})*+(?:>|\Z)",
    re.DOTALL,
)
_QUOTED = rf"""(?:"[^"]*+"|'[^']*+'|[^{_SPACE}"'<>/=]++(?=[{_SPACE}]))"""
_CLOSED = re.compile(
    rf"<[a-zA-Z][^{_SPACE}/>]*+(?:[{_SPACE}]*+[^{_SPACE}\"'<>/=]++(?:={_QUOTED})?)*+[{_SPACE}]*+/>"
)
_DATA = "<![CDATA["
_RAW = set(["script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"])
_RAW_ENDS = {name: re.compile(rf"</{name}(?=[{_SPACE}/>])", re.IGNORECASE) for name in _RAW}
_VOID = set(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "image",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    ]
)
# Those that end whatever is open of an SVG around them, and then themselves.
_VOID_ANYWHERE = set(["br", "embed", "hr", "img", "meta", "p", "body", "head"])
_NOT_NESTING = _VOID | set(["p", "html", "head", "body"])
_TABLE_PARTS = set(["tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "caption"])
_FOREIGN = {"svg", "math"}
_ITEMS = {"li": {"li"}, "dd": {"dd", "dt"}, "dt": {"dd", "dt"}, "option": {"option"}}
_FORMATTING = set(
    [
        "a",
        "b",
        "big",
        "code",
        "em",
        "font",
        "i",
        "nobr",
        "s",
        "small",
        "strike",
        "strong",
        "tt",
        "u",
    ]
)
_SCOPES = set(["applet", "marquee", "object", "table", "template"])
_BLOCKS = set(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "button",
        "center",
        "details",
        "dir",
        "div",
        "dl",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "frameset",
        "header",
        "heading",
        "hgroup",
        "iframe",
        "li",
        "dd",
        "dt",
        "listing",
        "main",
        "menu",
        "nav",
        "noscript",
        "ol",
        "pre",
        "search",
        "section",
        "select",
        "summary",
        "ul",
    ]
)
_SPECIAL = _BLOCKS | _SCOPES | _FOREIGN | set(["desc", "foreignobject", "title"])
_HEADING = re.compile("h[1-6]")
# An end tag for an element farther up than this is taken to end nothing, so that none takes long.
_FARTHEST = 64


def find_depth(text: str, enough: int) -> int:
    """Return about how deep the elements of a page are nested, counting no further than to `enough`.

    What an end tag does not surely end counts as open: the number is rather too high than too low.
    """
    opened = _Opened()
    deepest = at = 0
    while deepest < enough and (token := _TOKEN.search(text, at)):
        at = token.end()
        if token[2] is None:
            if opened.is_foreign and text.startswith(_DATA, token.start()):
                end_of_data = text.find("]]>", token.start())
                at = end_of_data if end_of_data >= 0 else len(text)
            continue
        name = "heading" if _HEADING.fullmatch(token[2].lower()) else token[2].lower()
        if token[1]:
            opened.end(name)
            continue
        if name in _RAW and not opened.is_foreign:
            end = _RAW_ENDS[name].search(text, at)
            at = end.start() if end else len(text)
        elif not ((opened.is_foreign or name in _FOREIGN) and _CLOSED.fullmatch(token[0])):
            opened.start(name)
            deepest = max(deepest, len(opened.names))
    return deepest


class _Opened:
    """The names of the elements open at a place of a page, outermost first."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._counts: Counter[str] = Counter()

    @property
    def is_foreign(self) -> bool:
        """Whether this may be within SVG or MathML, where every element nests."""
        return bool(self._counts["svg"] or self._counts["math"])

    def start(self, name: str) -> None:
        if name in (_VOID_ANYWHERE if self.is_foreign else _NOT_NESTING):
            return
        if name in _TABLE_PARTS and not self.is_foreign:
            table = self._find({"table"}, {"template"})
            if table >= 0:
                self._cut(table + 1)
            return
        if name in _ITEMS and not self.is_foreign:
            passed = {"div", "address"} if name != "option" else set()
            item = self._find(_ITEMS[name], _SPECIAL - passed)
            is_next = item >= 0 and (name != "option" or item == len(self.names) - 1)
            if is_next:
                self._cut(item)
        self.names.append(name)
        self._counts[name] += 1

    def end(self, name: str) -> None:
        if name in _FORMATTING:
            place = self._find({name}, _SCOPES)
            if place >= 0 and sum(n in _SPECIAL for n in self.names[place:]) < 8:
                del self.names[place]
                self._counts[name] -= 1
            return
        if name == "template":
            barriers = set[str]()
        elif name == "table":
            barriers = {"template"}
        else:
            barriers = _SCOPES if name in _SPECIAL else _SPECIAL
        place = self._find({name}, barriers)
        if place >= 0:
            self._cut(place)

    def _find(self, names: set[str], barriers: set[str]) -> int:
        if not any(self._counts[name] for name in names):
            return -1
        for place in range(len(self.names) - 1, max(-1, len(self.names) - 1 - _FARTHEST), -1):
            if self.names[place] in names:
                return place
            if self.names[place] in barriers:
                return -1
        return -1

    def _cut(self, place: int) -> None:
        self._counts.subtract(self.names[place:])
        del self.names[place:]
