import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.page_names import REASONS, article_title


@pytest.mark.parametrize(
    ("page", "title"),
    [
        (b"Golden_Retriever", "Golden Retriever"),
        (b"golden_retriever", "Golden retriever"),
        (b"Caf%C3%A9", "Café"),
        ("Café".encode(), "Café"),
        (b"%22Heroes%22_(David_Bowie_album)", '"Heroes" (David Bowie album)'),
        (b'"Heroes"', '"Heroes"'),
        (b"AC/DC", "AC/DC"),
        (b"100%", "100%"),
        (b"_Dog__house_", "Dog house"),
        (b"Star_Wars:_Episode_IV", "Star Wars: Episode IV"),
        (b"Talking_Heads:_77", "Talking Heads: 77"),
        (b"ISO:9001", "ISO:9001"),
        ("ßeta".encode(), "ßeta"),
        ("ёлка".encode(), "Ёлка"),
    ],
)
def test_a_page_is_named_as_wikipedia_names_it(page: bytes, title: str) -> None:
    assert article_title(page) == (title, None)


@pytest.mark.parametrize(
    "page",
    [b"Talk:Dog", b"User:Jane", b"user_talk:Jane", b"Special:Search", b"File:Dog.jpg", b"SPECIAL:Random",
     b"File%3ADog.jpg", b":Category:Dogs", b"WP:RS", b"Wikipedia:About", b"Template_talk:Dog", b"Portal:Dogs",
     b"Draft:Dog", b"MOS:NUM", b"TimedText:Dog.ogg.en.srt", b"Module:Dog", b"Image:Dog.jpg", b"Help_:Dog",
     b"Main_Page", b"-", b"main_Page", b"_"],
)  # fmt: skip
def test_other_namespaces_and_the_main_page_are_no_articles(page: bytes) -> None:
    assert article_title(page) == (None, "namespace")


@pytest.mark.parametrize("page", [b"Dog#History", b"Dog[1]", b"<script>", b"{{dog}}", b"a%0Ab", b"D" * 256, b"a|b"])  # fmt: skip
def test_what_no_title_can_hold_is_not_one(page: bytes) -> None:
    assert article_title(page) == (None, "not_a_title")


@pytest.mark.parametrize("page", [b"Caf\xe9", b"Caf%E9", b"%FF"])
def test_bytes_that_are_not_utf8_are_broken(page: bytes) -> None:
    assert article_title(page) == (None, "broken")


@given(st.binary(max_size=300) | st.text("%4Aa:_# é\x00", max_size=12).map(str.encode))
def test_any_bytes_are_a_title_or_have_a_reason(page: bytes) -> None:
    title, reason = article_title(page)
    assert (title is None) == (reason in REASONS)
    if title is not None:
        assert title == title.strip()
        assert "_" not in title
        title.encode()
