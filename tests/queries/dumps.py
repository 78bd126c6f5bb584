"""Small Wikipedia dumps: real XML, real bzip2."""

import bz2
import random
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n'
    "  <siteinfo>\n    <sitename>Wikipedia</sitename>\n    <dbname>enwiki</dbname>\n  </siteinfo>\n"
)
TAIL = "</mediawiki>\n"


def page(
    title: str,
    text: str = "",
    *,
    namespace: int = 0,
    redirect_to: str | None = None,
    model: str = "wikitext",
) -> str:
    redirect = "" if redirect_to is None else f"    <redirect title={quoteattr(redirect_to)} />\n"
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n    <ns>{namespace}</ns>\n    <id>1</id>\n{redirect}"
        "    <revision>\n      <id>2</id>\n      <timestamp>2026-01-01T00:00:00Z</timestamp>\n"
        f"      <model>{model}</model>\n"
        f'      <text bytes="{len(text.encode())}" xml:space="preserve">{escape(text)}</text>\n'
        "    </revision>\n  </page>\n"
    )


def dump(pages: Sequence[str]) -> bytes:
    return (HEAD + "".join(pages) + TAIL).encode()


def multistream(pages: Sequence[str], *, size: int, level: int = 9) -> bytes:
    """Return a dump of many bzip2 streams: the head, so many pages each, the tail."""
    pieces = [HEAD, *("".join(pages[i : i + size]) for i in range(0, len(pages), size)), TAIL]
    return b"".join(bz2.compress(piece.encode(), level) for piece in pieces)


def articles(count: int, *, words: int, seed: int = 0) -> list[str]:
    """Return articles of random words, the first of them often, and some redirects and others."""
    chance = random.Random(seed)
    vocabulary = [f"{'bcdfghjklm'[i % 10]}{'aeiou'[i // 10 % 5]}{i}" for i in range(4000)]
    pages = []
    for i in range(count):
        if i % 7 == 3:
            pages.append(page(f"Alias {i}", "#REDIRECT", redirect_to=f"Article {i - 1}"))
        elif i % 11 == 5:
            pages.append(page(f"Template:{i}", "'''not''' counted", namespace=10))
        else:
            picked = (vocabulary[int(chance.paretovariate(0.7)) % 4000] for _ in range(words))
            pages.append(
                page(f"Article {i}", f"'''{i}''' is [[a link|golden gate]]. {' '.join(picked)}")
            )
    return pages
