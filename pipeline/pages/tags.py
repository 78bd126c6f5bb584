"""The tags and attributes that matter, as tables for the loops of `pipeline.runtime.compiled`."""

import numpy as np
import numpy.typing as npt

# Where scripts that load images late keep the address, the most common first.
LAZY_ATTRIBUTES = (
    "data-src",
    "data-lazy-src",
    "data-original",
    "data-lazy",
    "data-original-src",
    "data-actualsrc",
    "data-echo",
    "data-lazyload",
    "data-img-src",
    "data-cfsrc",
    "data-ezsrc",
    "data-pagespeed-lazy-src",
)
LAZY_SRCSETS = ("data-srcset", "data-lazy-srcset")
ADDRESS_ATTRIBUTES = (*LAZY_ATTRIBUTES, *LAZY_SRCSETS, "src", "srcset")
"""What an `<img>` may keep its address in, in the order in which it is looked for."""

ATTRIBUTES = (*ADDRESS_ATTRIBUTES, "alt", "title")
SRC, SRCSET = (ADDRESS_ATTRIBUTES.index(name) for name in ("src", "srcset"))
ALT, TITLE = (ATTRIBUTES.index(name) for name in ("alt", "title"))
FIRST_SRCSET = len(LAZY_ATTRIBUTES)

# What the loop does at a tag.
OTHER, IMG, META, BASE, RAW, TEMPLATE, FOREIGN, SELECT, PICTURE, SOURCE, HOPELESS = range(11)
# Elements whose ends decide where a figure ends.
FIGURE, FIGCAPTION, BUTTON, BLOCK, LOOSE, LI, DD, HEADING, TABLE, CELL, ROW, BARRIER = range(11, 23)

_BY_CODE = {
    IMG: "img",
    META: "meta",
    BASE: "base",
    RAW: "script style title textarea xmp iframe noembed noframes",
    TEMPLATE: "template",
    FOREIGN: "svg math desc foreignobject",
    SELECT: "select",
    PICTURE: "picture",
    SOURCE: "source",
    HOPELESS: "image frameset plaintext",
    FIGURE: "figure",
    FIGCAPTION: "figcaption",
    BUTTON: "button",
    BLOCK: "article aside blockquote center details dialog dir dl fieldset footer header hgroup "
    "listing main menu nav ol pre search section summary ul",
    LOOSE: "div address",
    LI: "li",
    DD: "dd dt",
    HEADING: "h1 h2 h3 h4 h5 h6",
    TABLE: "table",
    CELL: "td th caption",
    ROW: "tr tbody thead tfoot col colgroup",
    BARRIER: "object applet marquee",
}
TAGS = {name: code for code, names in _BY_CODE.items() for name in names.split()}

# A tag's slot is the top byte of its first eight letters times this, which puts no two into the same.
SLOT_FACTOR = 0x91C1059411A92AE7


def word_of(name: str) -> int:
    """Return the first eight letters of `name` as a number, the first letter lowest."""
    return int.from_bytes(name.encode()[:8], "little")


def slot_of(word: int) -> int:
    """Return where in the tables of tags `word` stands, if it is one."""
    return ((word * SLOT_FACTOR) & 0xFFFFFFFFFFFFFFFF) >> 56


def _tables() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    heads, tails = (np.zeros(256, np.uint64) for _ in range(2))
    codes = np.zeros(256, np.uint8)
    for name, code in TAGS.items():
        slot = slot_of(word_of(name))
        assert codes[slot] == OTHER
        heads[slot], tails[slot], codes[slot] = word_of(name), word_of(name[8:]), code
    return heads, tails, codes


HEADS, TAILS, CODES = _tables()
"""By slot: the first eight letters of the tag, those behind them, and its code."""

NAMES = np.array([list(name.encode().ljust(24, b"\0")) for name in ATTRIBUTES], np.uint8)
LENGTHS = np.array([len(name) for name in ATTRIBUTES], np.int64)
