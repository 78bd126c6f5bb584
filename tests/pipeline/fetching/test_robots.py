import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fetching.robots import MAX_CRAWL_DELAY_S, MAX_ROBOTS_BYTES, cut_down, read_rules
from tests.reference import robots_match

AGENTS = ("witmill", "img2dataset")


def allows(text: str, path: str = "/a/b.jpg") -> bool:
    return all(rules.allows(path) for rules in read_rules(text, AGENTS))


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("User-agent: *\nDisallow:", True),
        ("User-agent: *\nDisallow: /", False),
        ("user-AGENT : *\n\n  DISALLOW:/a # all of it", False),
        ("User-agent: *\rDisallow: /a\r", False),
        ("\ufeffUser-agent: *\nDisallow: /", False),
        ("Disallow: /", True),
        ("User-agent: other\nDisallow: /", True),
        ("User-agent: witmill/9.9\nDisallow: /", False),
        ("User-agent: WitMill\nDisallow: /", False),
        ("User-agent: witmill*\nDisallow: /", False),
        ("User-agent: witmill;x\nDisallow: /", False),
        ("User-agent: witmillion\nDisallow: /", True),
        ("User-agent: img2dataset\nDisallow: /", False),
        ("User-agent: *\nDisallow: /\n\nUser-agent: witmill\nAllow: /", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: witmill\nDisallow:", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: img2dataset\nAllow: /", False),
        ("User-agent: witmill\nAllow: /\nUser-agent: img2dataset\nDisallow: /a", False),
        ("User-agent: other\nUser-agent: witmill\nDisallow: /a", False),
        ("User-agent: witmill\nSitemap: x\nUser-agent: other\nDisallow: /a", False),
        ("User-agent: witmill\nDisallow: /x\nUser-agent: *\nDisallow: /a", True),
        ("User-agent: witmill\nDisallow: /x\n\nUser-agent: witmill\nDisallow: /a", False),
        ("User-agent: *\nDisallow: /a\nAllow: /a/b", True),
        ("User-agent: *\nDisallow: /a/\nAllow: /a/b.jpg$", True),
        ("User-agent: *\nDisallow: /*.jpg$", False),
        ("User-agent: *\nDisallow: /*.jp$", True),
        ("User-agent: *\nDisallow: *b.j*", False),
        ("User-agent: *\nAllow: /a/b\nDisallow: /*/b", True),
        ("User-agent: *\nDisallow: a/", False),
        ("User-agent: *\nDisallow: /%61/", False),
    ],
)
def test_a_robots_txt_is_read_as_its_owner_meant(text, allowed):
    assert allows(text) is allowed
    assert allows(cut_down(text, AGENTS)) is allowed


def test_what_is_said_to_others_is_cut_out():
    text = "User-agent: a\nDisallow: /b\nUser-agent: *\nCrawl-delay: 2\nDisallow: /f\xfcr # x\n"
    assert cut_down(text, AGENTS) == "User-agent: *\nCrawl-delay: 2\nDisallow: /f%C3%BCr\n"
    both = "User-agent: witmill\nDisallow:\nUser-agent: img2dataset\nDisallow: /\nUser-agent: *\n"
    assert cut_down(both, AGENTS) == both.removesuffix("User-agent: *\n")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/für", "/f%C3%BCr"),
        ("/f%c3%bcr", "/f%C3%BCr"),
        ("/a%2fb", "/a%2Fb"),
        ("/~me", "/%7Eme"),
        ("/x?y=*", "/x?y=1"),
        ("/file-with-a-%2A.html", "/file-with-a-*.html"),
        ("/file-with-a-*.html", "/file-with-a-%2a.html"),
        ("/foo-%24", "/foo-$"),
        ("/a$b", "/a$b"),
        ("/a$$", "/a%24"),
    ],
)
def test_paths_are_compared_however_they_are_written(pattern, path):
    assert not allows(f"User-agent: *\nDisallow: {pattern}", path)


@pytest.mark.parametrize(("pattern", "path"), [("/a-%2A", "/a-b"), ("/a%24", "/a"), ("/a$$", "/a")])
def test_an_escaped_star_or_dollar_stands_for_itself(pattern, path):
    assert allows(f"User-agent: *\nDisallow: {pattern}", path)


def test_an_escaped_slash_is_no_slash():
    assert allows("User-agent: *\nDisallow: /a/b", "/a%2Fb")


patterns = st.text("ab*", max_size=8).map(lambda text: f"/{text}")
anchored = st.one_of(patterns, patterns.map(lambda text: f"{text}$"))


@given(
    st.lists(st.tuples(st.booleans(), anchored), max_size=5),
    st.text("ab", max_size=10).map(lambda text: f"/{text}"),
)
def test_rules_decide_as_a_slow_reader_decides(rules, path):
    # Several stars in a row mean one: only so does the length of a pattern mean anything.
    single = []
    for says_yes, pattern in rules:
        while "**" in pattern:
            pattern = pattern.replace("**", "*")
        single.append((says_yes, pattern))
    lines = [f"{'Allow' if says_yes else 'Disallow'}: {pattern}" for says_yes, pattern in single]
    text = "\n".join(["User-agent: *", *lines])
    assert allows(text, path) is robots_match.allowed(single, path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_robots_txt(data):
    text = "User-agent: *\n" + data.decode("utf-8", "replace")
    assert allows(text) in (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "User-agent: *\nDisallow: /" + "*a" * (MAX_ROBOTS_BYTES // 2),
        "User-agent: *\n" + "".join(f"Disallow: /{i:x}*a*b\n" for i in range(30_000)),
        "User-agent: *\n" + "".join(f"Disallow: *{i:x}\n" for i in range(30_000)),
        "".join(f"User-agent:{i:x}\n" for i in range(15_000)) + "Disallow:/\n" * 25_000,
        "User-agent: *\nDisallow: /a\n" * 15_000,
        "User-agent: witmill\n" * 20_000 + "Disallow: /a\n" * 10_000,
        "\0\xff" * (MAX_ROBOTS_BYTES // 2),
        " " * MAX_ROBOTS_BYTES,
        "User-agent" + " " * MAX_ROBOTS_BYTES,
    ],
    ids=["stars", "wild", "starred", "agents", "groups", "ours", "binary", "blank", "no-colon"],
)
def test_no_file_takes_long(text):
    begun = time.process_time()
    rules = read_rules(text, AGENTS)
    read = time.process_time() - begun
    for _ in range(10):
        all(found.allows("/" + "a" * 2000 + "zzz") for found in rules)
    matched = (time.process_time() - begun - read) / 10
    assert read < 2
    assert matched < 0.2


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("900", MAX_CRAWL_DELAY_S),
        ("x", 0),
        ("-1", 0),
        ("inf", 0),
        ("nan", 0),
    ],
)
def test_a_crawl_delay_is_heeded_up_to_a_bound(value, delay):
    [rules] = read_rules(f"User-agent: *\nCrawl-delay: {value}", AGENTS)
    assert rules.crawl_delay == delay
