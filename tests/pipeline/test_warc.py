import gzip
import io
import zlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pairs import Reference, Skipped
from pipeline.warc import MAX_PAGE_BYTES, read_pages, read_records
from tests.pipeline.archives import members, record, response

PAGE = b"<img src=a.jpg alt='A dog'>"
FOUND = "http://h.example/a.jpg"
INFO = record("warcinfo", b"software: test\r\n", "application/warc-fields")
REQUEST = record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request")


def read(data: bytes) -> list[Reference | Skipped]:
    return list(read_pages(io.BytesIO(data)))


def outline(data: bytes) -> list[str]:
    """Return URLs and reasons, in order."""
    return [row.url if isinstance(row, Reference) else row.reason for row in read(data)]


def test_a_page_gives_its_images_with_the_records_offset() -> None:
    archive = members(INFO, REQUEST, response(PAGE))
    offset = len(members(INFO, REQUEST))
    expected = Reference(FOUND, "A dog", "alt", "http://h.example/p", offset)
    assert read(archive) == [expected]


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, lambda b: pa.compress(b, "zstd", asbytes=True)]
)
def test_plain_gzip_and_zstd_archives_are_read_alike(compress) -> None:  # type: ignore[no-untyped-def]
    parts = [compress(one) for one in (INFO, response(PAGE), response(PAGE))]
    offsets = [len(parts[0]), len(parts[0]) + len(parts[1])]
    assert [row.offset for row in read(b"".join(parts))] == offsets


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (response(PAGE, kind="TEXT/HTML"), FOUND),
        (response(PAGE, kind="application/xhtml+xml;charset=utf-8"), FOUND),
        (response(b"<!DOCTYPE html>" + PAGE, kind=None), FOUND),
        (response(PAGE, kind="image/jpeg"), "not_html"),
        (response(b"plain", kind=None), "not_html"),
        (response(PAGE, status=404), "http_error"),
        (response(b"", status=301, kind=None), "http_error"),
        (record("response", b"127.0.0.1", "text/dns"), "not_html"),
        (record("resource", PAGE, "text/html"), FOUND),
        (record("resource", PAGE, "image/png"), "not_html"),
        (record("response", b"no http at all", "application/http"), "broken_record"),
        (record("response", b"HTTP/1.1 200 OK\r\nA: b", "application/http"), "broken_record"),
        (response(PAGE).replace(b"\r\n", b"\n").replace(b"WARC/1.0\n", b"WARC/1.0\r\n"), None),
    ],
)
def test_each_record_is_a_page_or_a_reason(page: bytes, expected: str | None) -> None:
    if expected is not None:
        assert outline(page) == [expected]
    else:
        assert all(isinstance(row, Reference | Skipped) for row in read(page))


def test_requests_and_metadata_are_no_rows() -> None:
    other = record("metadata", b"{}", "application/json") + record(
        "revisit", b"", "application/http"
    )
    assert read(INFO + REQUEST + other) == []


def test_headers_that_end_with_bare_line_feeds_are_read() -> None:
    block = b"HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Encoding: gzip\n\n" + PAGE
    assert outline(record("response", block, "application/http;msgtype=response")) == [FOUND]


def test_a_target_in_angle_brackets_is_a_url() -> None:
    assert outline(response(PAGE, url="<http://h.example/p>")) == [FOUND]


def chunked(data: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(d), d) for d in (data[:9], data[9:])) + b"0\r\n\r\n"


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    ("payload", "headers"),
    [
        (gzip.compress(PAGE), "Content-Encoding: gzip\r\n"),
        (zlib.compress(b"<html>" + PAGE), "Content-Encoding: deflate\r\n"),
        (raw_deflate(b"<html>" + PAGE), "Content-Encoding: deflate\r\n"),
        (pa.compress(PAGE, "zstd", asbytes=True), "Content-Encoding: zstd\r\n"),
        (pa.compress(PAGE, "brotli", asbytes=True), "Content-Encoding: br\r\n"),
        (chunked(PAGE), "Transfer-Encoding: chunked\r\n"),
        (chunked(gzip.compress(PAGE)), "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n"),
        (PAGE, "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n"),
        (b"<html>" + PAGE, "Content-Encoding: br\r\n"),
    ],
)
def test_encodings_are_undone_where_they_are_really_there(payload: bytes, headers: str) -> None:
    assert outline(response(payload, headers=headers)) == [FOUND]


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_a_decompression_bomb_is_one_broken_record(encoding: str) -> None:
    large = b"\0" * (MAX_PAGE_BYTES + 1)
    bomb = (
        gzip.compress(large) if encoding == "gzip" else pa.compress(large, "brotli", asbytes=True)
    )
    page = response(bomb, headers=f"Content-Encoding: {encoding}\r\n")
    assert outline(page + response(PAGE)) == ["broken_record", FOUND]


def test_a_page_above_the_limit_is_broken_and_the_next_is_read() -> None:
    assert outline(response(b" " * MAX_PAGE_BYTES) + response(PAGE)) == ["broken_record", FOUND]


PAGES = [response(b"<img src=%d.jpg alt='A dog'>" % i + b"<p>%d</p>" % i * 50) for i in range(4)]
URLS = [f"http://h.example/{i}.jpg" for i in range(4)]


@pytest.mark.parametrize(
    "pack", [members, lambda *records: b"".join(records)], ids=["gzip", "plain"]
)
def test_reading_goes_on_behind_junk(pack) -> None:  # type: ignore[no-untyped-def]
    archive = pack(*PAGES[:2]) + b"junk\r\n" * 300 + pack(*PAGES[2:])
    assert outline(archive) == [*URLS[:2], "broken_record", *URLS[2:]]
    assert outline(pack(*PAGES) + b"\0" * 5000) == [*URLS, "broken_record"]


def test_a_damaged_member_is_named_and_the_next_is_read() -> None:
    archive = bytearray(members(*PAGES))
    start = len(members(PAGES[0]))
    archive[start + 60 : start + 70] = b"\xff" * 10
    rows = read(bytes(archive))
    following = len(members(*PAGES[:2]))
    assert [row.offset for row in rows if isinstance(row, Skipped)] == [following]
    assert [row.url for row in rows if isinstance(row, Reference)] == [URLS[0], *URLS[2:]]


@pytest.mark.parametrize(
    "pack", [members, lambda *records: b"".join(records)], ids=["gzip", "plain"]
)
@pytest.mark.parametrize("last", [PAGES[3], REQUEST])
def test_a_cut_archive_says_so(pack, last: bytes) -> None:  # type: ignore[no-untyped-def]
    whole = pack(*PAGES[:3])
    archive = whole + pack(last)[:-12]
    rows = read(archive)
    assert [row.url for row in rows if isinstance(row, Reference)] == URLS[:3]
    assert [(row.reason, row.offset) for row in rows if isinstance(row, Skipped)] == [
        ("broken_record", len(whole))
    ]


@pytest.mark.parametrize("length", ["99999999999999", "-5", "x", "9" * 40])
def test_a_wrong_length_stops_nothing(length: str) -> None:
    wrong = PAGES[0].replace(b"Content-Length: ", f"Content-Length: {length}\r\nX: ".encode())
    rows = outline(members(wrong, *PAGES[1:]))
    assert rows[0] == "broken_record"
    assert rows == ["broken_record", *URLS[1:]]


def test_errors_of_the_disk_are_not_taken_for_broken_records() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(5, "Input/output error")
            return super().read(64)

    with pytest.raises(OSError, match="Input/output"):
        list(read_pages(Failing(b"".join(PAGES))))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_leaves_every_other_page_readable(data: st.DataObject) -> None:
    archive = bytearray(members(*PAGES))
    hit = data.draw(st.integers(0, 3))
    start = len(members(*PAGES[:hit]))
    end = len(members(*PAGES[: hit + 1]))
    place = data.draw(st.integers(start, end - 1))
    archive[place] ^= data.draw(st.integers(1, 255))
    rows = outline(bytes(archive))
    assert [url for i, url in enumerate(URLS) if i != hit] == [
        row for row in rows if row in URLS and row != URLS[hit]
    ]


@given(st.binary(max_size=400))
def test_any_bytes_end(data: bytes) -> None:
    for one in read_records(io.BytesIO(b"WARC/1.0\r\n" + data)):
        if not isinstance(one, Skipped):
            one.body.head()
