import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.pairs import Place, Reference, Skipped
from pipeline.pages.html import refer_image
from pipeline.pages.page_rows import PageRows, split_base
from pipeline.pages.row_tables import tabulate
from pipeline.pages.scans import Scan
from pipeline.pages.tags import ATTRIBUTES

BASES = [
    None,
    "http://h.example",
    "https://h.example:8080/a/b/page.html?q=/x",
    "http://h.example/a//b/c",
    "http://h.example/a/./b",
    "http://h.example/a;b/c;d",
    "http://bücher.example/x/",
    "HTTP://h.example/a",
    "file:///a/b",
]
PIECES = [
    "a",
    "b.jpg",
    "/",
    "//",
    ".",
    "..",
    "./",
    "../",
    "?",
    "#",
    ":",
    ";",
    "&",
    "=",
    " ",
    "%20",
    "é",
    "\\",
    "\t",
]
PIECES += [
    "http://h.example",
    "https://x:80",
    "data:",
    "DATA:,",
    "ftp:",
    "[",
    "]",
    "@",
    "\x7f",
    "犬",
    ",",
    "2x",
    "1.5x",
]
references = st.lists(st.sampled_from(PIECES), max_size=7).map("".join) | st.text(max_size=10)
ROWS = PageRows("x", 1000)
SCAN = Scan(ROWS)


def rows_of(values: dict[str, str], place: Place) -> tuple[object, object, bool]:
    """Return the pairs and drops of an image, and whether the compiled loop made them alone."""
    content, spans = b"", [-1] * SCAN.images.shape[1]
    for name, value in values.items():
        raw = value.replace("&", "&amp;").encode("utf-8", "replace")
        k = ATTRIBUTES.index(name)
        spans[2 * k], spans[2 * k + 1] = len(content), len(content) + len(raw)
        content += raw
    SCAN.load(content)
    SCAN.images[0] = np.array(spans, np.int32)
    was_plain = True

    def refer(*_: object) -> list[Reference | Skipped]:
        nonlocal was_plain
        was_plain = False
        return refer_image(values, place)  # type: ignore[arg-type]

    SCAN.add_rows((1, 0), place, read=lambda a, b: "", refer=refer)
    pairs, drops, _ = ROWS.take()
    return pairs.to_pylist(), drops.to_pylist(), was_plain


def expected(values: dict[str, str], place: Place) -> tuple[object, object]:
    pairs, drops, _ = tabulate(refer_image(values, place), "x")  # type: ignore[arg-type]
    return pairs.to_pylist(), drops.to_pylist()


@given(
    st.dictionaries(
        st.sampled_from(["src", "data-src", "srcset", "data-srcset", "data-lazy"]),
        references,
        max_size=3,
    ),
    st.sampled_from(BASES),
    st.text(st.sampled_from(" \xa0\u3000\x1fab犬é\ufeff\n\x85"), max_size=5),
    st.text(max_size=4),
)
@settings(max_examples=800)
def test_the_loop_makes_the_urls_and_texts_that_python_makes(
    values: dict[str, str], base: str | None, alt: str, title: str
) -> None:
    values = {name: v.replace("\r", "").replace("\0", "") for name, v in values.items()}
    values |= {"alt": alt, "title": title.replace("\r", "").replace("\0", "")}
    place = Place(base, "http://h.example/p", 7)
    assert rows_of(values, place)[:2] == expected(values, place)


@pytest.mark.parametrize(
    ("reference", "base"),
    [
        ("http://x.example/a.jpg?b=c", None),
        ("/a/b.jpg", "http://h.example/x"),
        ("a b/é.jpg", "http://h.example/x/y"),
        ("./a.jpg", "http://h.example/x/y"),
        ("//x.example/a", "https://h.example"),
        (" a.jpg\n", "https://h.example"),
        ("/.content/a.jpg", "https://h.example"),
    ],
)
def test_what_most_pages_have_is_plain(reference: str, base: str | None) -> None:
    assert rows_of({"src": reference, "alt": "A dog"}, Place(base, None, 0))[2]


def test_a_srcset_is_plain_too() -> None:
    values = {"srcset": "a.jpg 1x, b,c.jpg 2.5x,d.jpg 300w, e.jpg", "alt": "A dog"}
    place = Place("http://h.example/", None, 0)
    assert rows_of(values, place) == (*expected(values, place), True)


def test_a_folder_is_plain_only_if_joining_leaves_it_as_it_is() -> None:
    assert split_base("http://h.example/a/b?c")[1].tolist() == [5, 16, 19]
    assert split_base("http://h.example/a/../b")[1].tolist() == [5, 16, 0]
    assert split_base("http://h.example//b")[1].tolist() == [5, 16, 0]
    assert split_base("ftp://h.example/")[1].tolist() == [0, 0, 0]
