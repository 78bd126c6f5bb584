import io

import pytest

from pipeline.pairs import Reference, Skipped
from pipeline.warc import read_pages
from pipeline.wat import read_metadata
from tests.pipeline.archives import describe_page, members, metadata, record, response

URL = "http://h.example/d/p.html"


def read(*records: bytes) -> list[Reference | Skipped]:
    return list(read_metadata(io.BytesIO(members(*records))))


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


def reasons(*records: bytes) -> list[str]:
    return [r.reason if isinstance(r, Skipped) else r.url for r in read(*records)]


def test_listed_images_are_pairs_and_other_links_are_not() -> None:
    links = [
        {"path": "IMG@/src", "url": "a.jpg", "alt": "A dog"},
        {"path": "A@/href", "url": "b.jpg", "alt": "A link"},
        {"path": "IMG@/longdesc", "url": "c.html"},
        {"path": "IMG@/data-src", "url": "d.jpg", "alt": "A cat"},
        {"path": "IMG@/src", "url": "e.jpg"},
    ]
    assert reasons(metadata(envelope(links))) == [
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
    assert reasons(one, good) == [*expected, "http://h.example/z"]


def test_lone_surrogates_are_replaced() -> None:
    one = metadata(envelope([{"path": "IMG@/src", "url": "/z", "alt": "a\ud800b"}]))
    found = read(one)[0]
    assert isinstance(found, Reference)
    assert found.caption == "a\ufffdb"


@pytest.mark.parametrize(
    "page",
    [
        "<img src=a.jpg alt='A dog &amp; a cat'><img src=b alt=''><img src='data:,x' alt=y>",
        "<base href='//cdn.example/x/'><p><img src=z alt=z><img src='../a b.jpg' alt=' é '><img alt='no address'>",
        "<base href='/r/'><base href='/s/'><img src=a alt=b><img src=a alt=b><img src='' alt=c>",
    ],
)
def test_a_wat_gives_what_its_warc_gives(page: str) -> None:
    from_warc = [
        row._replace(offset=0)
        for row in read_pages(io.BytesIO(response(page.encode(), url=URL)))
        # An image without src is not listed in a WAT.
        if not (isinstance(row, Skipped) and row.reason == "no_url" and "alt='no" in page)
    ]
    assert [row._replace(offset=0) for row in read(describe_page(page, URL))] == from_warc
    assert len(from_warc) >= 2


def test_real_pages_give_the_same_pairs_from_both(shared_data) -> None:  # type: ignore[no-untyped-def]
    with (shared_data / "crawl/aut_example.warc.gz").open("rb") as file:
        rows = [r for r in read_pages(file) if isinstance(r, Reference)]
    links = [{"path": "IMG@/src", "url": r.url, "alt": r.caption} for r in rows]
    found = read(metadata(envelope(links)))
    assert [r[:3] for r in found] == [r[:3] for r in rows]
    assert len(rows) > 500
