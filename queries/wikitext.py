"""Wikitext to the text that a reader of the article sees, for counting words.

One pass with a stack, in time proportional to the length whatever the input: no library measured
does that (docs/queries.md). What closes nothing and what is never closed stays as it stands.

Left out with all they hold: templates, tables, references, comments, categories, links to other
languages, addresses, formulas, galleries and source code. Kept: link texts, captions of pictures,
headings, lists. What is left out of a sentence leaves a line break behind, because the words on
either side of it are no neighbours. Apostrophes, `=`, `*` and other signs that mark up single
characters stay where the tokens of `queries.text` make nothing of them but a boundary.
"""

import re
from html import unescape

# Elements that are left out with what they hold, up to the first end of that name.
_WITH_CONTENT = """
ref math chem ce gallery timeline score syntaxhighlight source hiero imagemap graph mapframe maplink
templatedata templatestyles categorytree inputbox indicator style script table
"""
_IN_LINES = """
abbr b bdi bdo big cite code data del dfn em font i ins kbd mark nobr noinclude includeonly onlyinclude
nowiki q rp rt ruby s samp section small span strike strong sub sup time tt u var wbr
"""
_BETWEEN_LINES = """
blockquote br caption center col colgroup dd div dl dt h1 h2 h3 h4 h5 h6 hr li link meta ol p poem pre
references rb rtc tbody td tfoot th thead tr ul
"""
_UNSEEN = frozenset(_WITH_CONTENT.split())
_INLINE = frozenset(_IN_LINES.split())
_BLOCK = frozenset(_BETWEEN_LINES.split())
_CLOSING = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in (*_UNSEEN, "nowiki")}

_MARK = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|</?(?P<name>[A-Za-z][A-Za-z0-9]*)(?=[\s/>])[^<>]*>"
    r"|\n[ \t:*#]*\{\||\n[ \t]*\|\}"
)
_ADDRESS = re.compile(r"(?:https?://|ftp://|\[//)[^\s\[\]<>{}|\"]*")
# The last apostrophe after a title in italics is one to be seen: ''Iliad'''s.
_POSSESSIVE = re.compile(r"(?<!')''(?!')([^'\n]*)'''(?=s\b)")
_QUOTES = re.compile("''+")
_SWITCH = re.compile(r"__[A-Z]+__")
_LOOSE_ROW = re.compile(r"\n[ \t:*#]*(?:\{\||\|).*")

_FILE = frozenset({"file", "image"})
_FILE_OPTION = re.compile(
    r"|thumb|thumbnail|frame|framed|frameless|border|left|right|center|centre|none|baseline|sub|super"
    r"|top|text-top|middle|bottom|text-bottom|upright|[x\d]+\s*px"
    r"|(?:thumb|thumbnail|upright|alt|link|page|lang|class|start|end|thumbtime)\s*=.*",
    re.DOTALL,
)
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*|simple")

# A caption may hold links, those nothing. Every level copies what it holds once more.
_DEEPEST_LINK = 8
_TEMPLATE, _LINK, _TABLE = "{{", "[[", "{|"
_CLOSES = {"}}": _TEMPLATE, "]]": _LINK, "|}": _TABLE}


def article_text(wikitext: str) -> str:
    """Return the text of an article, a paragraph, heading or item of a list on each line."""
    page = _Page()
    text = "\n" + _ADDRESS.sub("", _without_comments(wikitext))
    at = 0
    while mark := _MARK.search(text, at):
        page.pieces.append(text[at : mark.start()])
        at = page.take(text, mark)
    page.pieces.append(text[at:])
    seen = _QUOTES.sub("", _POSSESSIVE.sub(r"\1'", "".join(page.pieces)))
    return _SWITCH.sub("", unescape(_LOOSE_ROW.sub("", seen)))


def _without_comments(text: str) -> str:
    pieces, at = [], 0
    while (begin := text.find("<!--", at)) >= 0:
        pieces.append(text[at:begin])
        end = text.find("-->", begin)
        at = end + 3 if end >= 0 else len(text)
    pieces.append(text[at:])
    return "".join(pieces)


class _Page:
    """What has been read of a page: the pieces of its text, and what is still open in it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._open: list[tuple[str, int]] = []
        self._depth = dict.fromkeys(_CLOSES.values(), 0)
        self._never_closed: set[str] = set()

    def take(self, text: str, mark: re.Match[str]) -> int:
        """Act on `mark`; return where reading goes on."""
        found = mark.group().lstrip("\n\t :*#")
        if name := mark.group("name"):
            return self._element(text, mark, name.lower())
        if found in _CLOSES:
            return self._close(mark, found)
        if found == _LINK and self._depth[_LINK] >= _DEEPEST_LINK:
            self.pieces.append(found)
            return mark.end()
        self._open.append((found, len(self.pieces)))
        self._depth[found] += 1
        self.pieces.append(mark.group())
        return mark.end()

    def _element(self, text: str, mark: re.Match[str], name: str) -> int:
        is_start = not mark.group().startswith("</")
        if is_start and name in _CLOSING and not mark.group().endswith("/>"):
            end = None if name in self._never_closed else _CLOSING[name].search(text, mark.end())
            if end is None:
                self._never_closed.add(name)
            elif name == "nowiki":
                self.pieces.append(text[mark.end() : end.start()])
                return end.end()
            else:
                self.pieces.append(" " if name == "ref" else "\n")
                return end.end()
        if name in _BLOCK:
            self.pieces.append("\n")
        elif name not in _INLINE and name not in _UNSEEN:
            self.pieces.append(mark.group())
        return mark.end()

    def _close(self, mark: re.Match[str], found: str) -> int:
        kind = _CLOSES[found]
        if kind == _TABLE and not self._is_in_table():
            # `|}` may be the end of a parameter and the begin of `}}`.
            self.pieces.append(mark.group()[:-1])
            return mark.end() - 1
        if not self._depth[kind]:
            self.pieces.append(mark.group())
            return mark.end()
        while True:
            opened, position = self._open.pop()
            self._depth[opened] -= 1
            if opened == kind:
                break
        held = self.pieces[position + 1 :]
        del self.pieces[position:]
        self.pieces.append(_link_text("".join(held)) if kind == _LINK else "\n")
        return mark.end()

    def _is_in_table(self) -> bool:
        for opened, _ in reversed(self._open):
            if opened != _LINK:
                return opened == _TABLE
        return False


def _link_text(link: str) -> str:
    target, piped, label = link.partition("|")
    prefix, has_prefix, _ = target.strip().partition(":")
    prefix = prefix.strip().lower()
    if has_prefix and prefix in _FILE:
        caption = label.rpartition("|")[2].strip()
        return "\n" if _FILE_OPTION.fullmatch(caption) else f"\n{caption}\n"
    if has_prefix and (prefix == "category" or (not piped and _LANGUAGE.fullmatch(prefix))):
        return ""
    return label if piped else target.removeprefix(":")
