from html.entities import html5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from pipeline.pages.character_references import read_attribute

NAMES = [f"&{name}" for name in html5]
PIECES = [
    "&",
    "#",
    "x",
    "a",
    "1",
    "9",
    ";",
    "=",
    " ",
    "&#",
    "&#x",
    "&#0",
    "&#x80;",
    "&#150",
    "&#xD800;",
    "\r",
    "\n",
    "\0",
    "é",
]


@given(st.lists(st.sampled_from(PIECES) | st.sampled_from(NAMES), max_size=8).map("".join))
@settings(max_examples=500)
def test_an_attribute_reads_as_the_parser_reads_it(raw: str) -> None:
    image = LexborHTMLParser(f'<img alt="{raw}">').css_first("img")
    assert image is not None
    assert read_attribute(raw) == (image.attributes["alt"] or "")


@pytest.mark.parametrize("digits", ["9" * 5000, "0" * 5000 + "65", "x" + "f" * 5000])
def test_endless_numbers_are_read(digits: str) -> None:
    assert read_attribute(f"&#{digits};") == ("A" if digits.endswith("65") else "\ufffd")
