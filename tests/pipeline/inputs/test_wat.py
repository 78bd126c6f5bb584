import json
import re
from collections.abc import Callable
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.crawl_files import Page, read_pages, warc_records, wat_records
from pipeline.inputs.pairs import BrokenRecord
from pipeline.inputs.wat import find_listed
from pipeline.pages.row_tables import tabulate
from tests.pipeline.archives import (
    describe_page,
    members,
    metadata,
    outline,
    read_tables,
    record,
    response,
)

URL = "http://h.example/d/p.html"
KEYS = st.sampled_from(
    ["Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata", "Links"]
) | st.text(max_size=5)


def envelope(links: object, **response_metadata: object) -> dict[str, object]:
    answer = {
        "Response-Message": {"Status": "200"},
        "HTML-Metadata": {"Head": {}, "Links": links},
        **response_metadata,
    }
    return {
        "Envelope": {
            "WARC-Header-Metadata": {"WARC-Target-URI": URL},
            "Payload-Metadata": {"HTTP-Response-Metadata": answer},
        }
    }


def rows(*records: bytes) -> list[str]:
    return outline(members(*records), "wat")


def test_listed_images_are_pairs_and_other_links_are_not() -> None:
    links = [
        {"path": "IMG@/src", "url": "a.jpg", "alt": "A dog"},
        {"path": "A@/href", "url": "b.jpg", "alt": "A link"},
        {"path": "IMG@/longdesc", "url": "c.html"},
        {"path": "IMG@/data-src", "url": "d.jpg", "alt": "A cat"},
        {"path": "IMG@/src", "url": "e.jpg"},
    ]
    assert rows(metadata(envelope(links))) == [
        "http://h.example/d/a.jpg",
        "http://h.example/d/d.jpg",
        "no_caption",
    ]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (metadata(envelope([], **{"Response-Message": {"Status": "404"}})), ["http_error"]),
        (metadata(envelope([], **{"HTML-Metadata": None})), ["not_html"]),
        (metadata({"Envelope": {"Payload-Metadata": {"HTTP-Request-Metadata": {}}}}), []),
        (metadata({"Container": {}}), ["broken_record"]),
        (metadata([1]), ["broken_record"]),
        (record("metadata", b'{"Envelope": {', "application/json"), ["broken_record"]),
        (record("metadata", b"[" * 100_000, "application/json"), ["broken_record"]),
        (record("metadata", b"fetchTimeMs: 5", "application/warc-fields"), []),
        (metadata(envelope("no list")), []),
        (metadata(envelope([None, 5, {"path": ["IMG@/src"]}])), []),
        (metadata(envelope([{"path": "IMG@/src", "url": 5, "alt": 6}])), ["no_url"]),
    ],
)
def test_hostile_and_other_metadata_does_no_harm(one: bytes, expected: list[str]) -> None:
    good = metadata(envelope([{"path": "IMG@/src", "url": "/z", "alt": "z"}]))
    assert rows(one, good) == ["http://h.example/z", *expected]


def test_lone_surrogates_are_replaced() -> None:
    one = metadata(envelope([{"path": "IMG@/src", "url": "/z", "alt": "a\ud800b"}]))
    assert read_tables(members(one), "wat")[0].column("caption").to_pylist() == ["a\ufffdb"]


@pytest.mark.parametrize(
    "page",
    [
        "<img src=a.jpg alt='A dog &amp; a cat'><img src=b alt=''><img src='data:,x' alt=y>",
        "<base href='//cdn.example/x/'><p><img src=z alt=z><img src='../a b.jpg' alt=' é '><img alt='no address'>",
        "<base href='/r/'><base href='/s/'><img src=a alt=b><img src=a alt=b><img src='' alt=c>",
    ],
)
def test_a_wat_gives_what_its_warc_gives(page: str) -> None:
    from_warc = read_tables(response(page.encode(), url=URL))
    from_wat = read_tables(members(describe_page(page, URL)), "wat")
    assert from_warc[0].drop("source_offset").equals(from_wat[0].drop("source_offset"))
    # An image without src is not listed in a WAT.
    assert reasons(from_warc[1]) == reasons(from_wat[1])
    assert len(from_warc[0]) >= 1


def reasons(drops: pa.Table) -> list[str]:
    return [reason for reason in drops.column("reason").to_pylist() if reason != "no_url"]


def listed_alone(page: Page) -> Page:
    """Return the page without what Common Crawl does not list: other addresses and figures' captions."""
    text = page.content.decode("utf-8", "replace")
    text = re.sub(r"(?i)\b(data-|src)(?=[\w-]+=)", r"x\1", text)
    text = re.sub(r"(?i)<(/?)figcaption", r"<\1div", text)
    # A mark, since the page may name the encoding that it had.
    return page._replace(content=text.encode("utf-8-sig"))


@pytest.mark.slow
def test_real_pages_give_the_same_pairs_from_both(shared_data) -> None:  # type: ignore[no-untyped-def]
    pages = [
        listed_alone(page) for page in list(read_pages(shared_data / "crawl/pages.tar.xz"))[::3]
    ]
    for page in pages:
        assert pairs(page, warc_records, "warc") == pairs(page, wat_records, "wat"), page.url


def pairs(
    page: Page, describe: Callable[[Page], list[bytes]], kind: Literal["warc", "wat"]
) -> list[tuple[str, ...]]:
    found = read_tables(b"".join(describe(page)), kind)[0].select(
        ["url", "caption", "caption_source"]
    )
    return sorted(set(zip(*(column.to_pylist() for column in found.columns), strict=True)))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["200", "IMG@/src", "a.jpg", "og:image"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
LINKS = st.lists(
    st.dictionaries(
        st.sampled_from(["path", "url", "alt", "title", "text"]),
        st.sampled_from(
            ["IMG@/src", "IMG@/data-src", "IMG@/srcset", "A@/href", "a b.jpg 2x, c.jpg"]
        )
        | st.text(max_size=12)
        | JSON,
    )
    | JSON,
    max_size=4,
)
METAS = st.lists(
    st.dictionaries(
        st.sampled_from(["name", "property", "content"]),
        st.sampled_from(["og:image", "OG:Image:alt", "og:title ", "og:description", "og:image:url"])
        | st.text(max_size=6),
    ),
    max_size=5,
)


@given(LINKS, METAS, JSON, st.sampled_from(["200", 200, "404", None]), st.booleans())
def test_the_walk_finds_what_the_json_parser_finds(links, metas, other, status, ascii) -> None:  # type: ignore[no-untyped-def]
    about = {"Head": {"Metas": metas, "Base": "/b/", "x": other}, "Links": links}
    answer = {"HTML-Metadata": about, "Response-Message": {"Status": status}}
    block = json.dumps(envelope([], **answer), ensure_ascii=ascii).encode("utf-8", "replace")
    assert_same(block)


@given(JSON, st.data())
def test_any_json_cut_anywhere_gives_the_same(value, data) -> None:  # type: ignore[no-untyped-def]
    block = json.dumps(value).encode()
    assert_same(block)
    whole = json.dumps(envelope([{"path": "IMG@/src", "url": "a", "alt": "b"}], x=value)).encode()
    assert_same(whole[: data.draw(st.integers(1, len(whole)))])


def assert_same(block: bytes) -> None:
    try:
        expected = tabulate(list(find_listed(block, 0)), "x")
    except BrokenRecord:
        expected = None
    found = read_tables(record("metadata", block, "application/json", URL), "wat")
    if expected is None:
        assert found[1].column("reason").to_pylist() == ["broken_record"]
    else:
        assert found[0].equals(expected[0])
        assert found[1].equals(expected[1])
