import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pages.urls import MAX_URL_CHARACTERS, Address, resolve

BASE = "https://h.example:8080/a/b/page.html?q=1"


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("http://x.example/a.jpg", "http://x.example/a.jpg"),
        ("HTTP://x.example/a.jpg", "http://x.example/a.jpg"),
        ("c.jpg", "https://h.example:8080/a/b/c.jpg"),
        ("../c.jpg", "https://h.example:8080/a/c.jpg"),
        ("/c.jpg?w=1&h=2", "https://h.example:8080/c.jpg?w=1&h=2"),
        ("//cdn.example/c.jpg", "https://cdn.example/c.jpg"),
        ("  c.jpg\n", "https://h.example:8080/a/b/c.jpg"),
        ("c\n.jpg", "https://h.example:8080/a/b/c.jpg"),
        ("c.jpg#top", "https://h.example:8080/a/b/c.jpg"),
        ("my cat.jpg?a b", "https://h.example:8080/a/b/my%20cat.jpg?a%20b"),
        ("é%20.jpg", "https://h.example:8080/a/b/%C3%A9%20.jpg"),
        ("img\\c.jpg?a\\b", "https://h.example:8080/a/b/img/c.jpg?a\\b"),
        ("http://bücher.example/ü", "http://bücher.example/%C3%BC"),
        ("http://[::1]/a", "http://[::1]/a"),
    ],
)
def test_an_address_becomes_the_url_a_browser_would_load(reference: str, url: str) -> None:
    assert resolve(reference, BASE) == Address(url)


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("", "no_url"),
        (" \t\n", "no_url"),
        ("data:image/gif;base64,R0lG", "data_url"),
        (" DATA:,x", "data_url"),
        ("javascript:void(0)", "bad_scheme"),
        ("ftp://h.example/a.jpg", "bad_scheme"),
        ("C:\\pictures\\a.jpg", "bad_scheme"),
        ("http:///a.jpg", "bad_url"),
        ("http://[::1/a.jpg", "bad_url"),
        ("http://h.example:99999/a", "bad_url"),
        ("http://h.example:0/a", "bad_url"),
        ("http://a b.example/", "bad_url"),
        ("http://h\ud800.example/", "bad_url"),
        ("/\ud800", "bad_url"),
        ("/" + "a" * MAX_URL_CHARACTERS, "bad_url"),
        ("/" + "é" * 1000, "bad_url"),
    ],
)
def test_what_makes_no_url_says_why(reference: str, problem: str) -> None:
    assert resolve(reference, BASE) == Address(None, problem)


def test_a_relative_address_needs_a_page() -> None:
    assert resolve("a.jpg", None) == Address(None, "bad_url")
    assert resolve("a.jpg", "file:///page.html") == Address(None, "bad_scheme")


@given(st.text(), st.sampled_from([None, BASE]))
def test_any_text_gives_a_plain_url_or_a_known_problem(reference: str, base: str | None) -> None:
    url, problem = resolve(reference, base)
    if url is None:
        assert problem in {"no_url", "data_url", "bad_scheme", "bad_url"}
    else:
        assert url.startswith(("http://", "https://"))
        path = url.split("/", 3)[3:]
        assert set("".join(path)) <= set(string.printable) - set(string.whitespace)
        assert "#" not in url


@given(st.text(string.ascii_letters + string.punctuation + " é", max_size=40))
def test_a_url_resolves_to_itself(tail: str) -> None:
    once = resolve(f"http://h.example/{tail}", None).url
    assert once is not None
    assert resolve(once, BASE).url == once
