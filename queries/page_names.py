"""Whether the page of a line of the page views is an article of English Wikipedia, and its title."""

import re
from typing import Literal
from urllib.parse import unquote_to_bytes

# Every namespace that English Wikipedia has or had since page views are published, and its aliases.
_SUBJECTS = (
    "user", "wikipedia", "wp", "project", "file", "image", "mediawiki", "template", "tm", "help", "category",
    "portal", "draft", "mos", "timedtext", "module", "gadget", "gadget definition", "book", "event",
    "education program", "course",
)  # fmt: skip
NAMESPACES = frozenset(
    ["media", "special", "talk", "wt", "topic", "thread", "summary"]
    + [name for subject in _SUBJECTS for name in (subject, f"{subject} talk")]
)
NO_ARTICLES = frozenset({"", "-", "Main Page", "Main page"})

MAXIMUM_BYTES = 255
_FORBIDDEN = re.compile(r"[#<>\[\]|{}\x00-\x1f\x7f\ufffd]")
_SPACES = re.compile(r"[ _]+")

NoArticle = Literal["broken", "namespace", "not_a_title"]
REASONS: dict[NoArticle, str] = {
    "broken": "lines of English Wikipedia without a page and a count, or not UTF-8",
    "namespace": "lines of talk, special and other pages that are no articles, and of the main page",
    "not_a_title": "lines whose page cannot be a title",
}


def article_title(page: bytes) -> tuple[str, None] | tuple[None, NoArticle]:
    """Return the title that `page` names, with spaces, or why it names no article's.

    The first letter is made a capital, as Wikipedia does: `apple` and `Apple` are one page.
    """
    if b"%" in page:
        page = unquote_to_bytes(page)
    try:
        text = page.decode("utf-8")
    except UnicodeDecodeError:
        return None, "broken"
    title = _SPACES.sub(" ", text).strip(" ")
    if ":" in title:
        title = title.lstrip(": ")
        if title.partition(":")[0].strip().lower() in NAMESPACES:
            return None, "namespace"
    first = title[:1].upper()
    if len(first) == 1:
        title = first + title[1:]
    if title in NO_ARTICLES:
        return None, "namespace"
    if len(page) > MAXIMUM_BYTES or _FORBIDDEN.search(title):
        return None, "not_a_title"
    return title, None
