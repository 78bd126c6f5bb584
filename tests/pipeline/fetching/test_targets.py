import pytest

from pipeline.fetching.refusals import FetchRefused
from pipeline.fetching.targets import parse_target, redirected


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("HTTP://EXAMPLE.com:80/a b?q=ü#x", "http://example.com/a%20b?q=%C3%BC"),
        ("https://user:secret@h.example:8443", "https://h.example:8443/"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://h.example?x", "http://h.example/?x"),
        ("http://h.example/../a/./b", "http://h.example/a/b"),
        (r"http://h.example\@evil.example/", "http://h.example/%5C@evil.example/"),
        ("http://%65xample.com/", "http://example.com/"),
        ("http://[2001:DB8::1]/", "http://[2001:db8::1]/"),
    ],
)
def test_a_url_is_read_as_it_will_be_asked_for(url, asked):
    assert parse_target(url).url == asked
    assert parse_target(asked).url == asked


@pytest.mark.parametrize("url", ["http://h.example:0/", "http://a b/", "gopher://h/", "http:///x"])
def test_what_cannot_be_asked_for_is_refused(url):
    with pytest.raises(FetchRefused, match="bad_url"):
        parse_target(url)


def test_manners_are_owed_to_a_server_whatever_the_scheme():
    servers = [parse_target(u).server for u in ("http://h.example/a", "https://h.example./b")]
    assert servers == ["h.example"] * 2
    assert parse_target("http://h.example:8080").server == "h.example:8080"


def test_origins_differ_by_scheme_and_port():
    origins = [parse_target(u).origin for u in ("http://h.example/a", "https://h.example:443/")]
    assert origins == ["http://h.example", "https://h.example"]
    assert parse_target("https://h.example:80/").origin == "https://h.example:80"


def test_a_redirect_is_relative_to_where_it_stands():
    place = parse_target("https://h.example/a/b?c")
    assert redirected(place, "../x").url == "https://h.example/x"
    assert redirected(place, "//o.example").url == "https://o.example/"
    assert redirected(place, "?d").url == "https://h.example/a/b?d"
