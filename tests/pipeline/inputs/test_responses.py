import gzip
import zlib

import pyarrow as pa
import pytest

from pipeline.inputs.responses import MAX_PAGE_BYTES
from tests.pipeline.archives import outline, record, response

PAGE = b"<img src=a.jpg alt='A dog'>"
FOUND = "http://h.example/a.jpg"
INFO = record("warcinfo", b"software: test\r\n", "application/warc-fields")
REQUEST = record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request")


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
        assert set(outline(page)) <= {FOUND, "broken_record"}


def test_requests_and_metadata_are_no_rows() -> None:
    other = record("metadata", b"{}", "application/json") + record(
        "revisit", b"", "application/http"
    )
    assert outline(INFO + REQUEST + other) == []


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
        (gzip.compress(PAGE, mtime=0), "Content-Encoding: gzip\r\n"),
        (
            gzip.compress(PAGE[:9], mtime=0) + gzip.compress(PAGE[9:], mtime=0),
            "Content-Encoding: gzip\r\n",
        ),
        (
            gzip.compress(b"", mtime=0) * 5000 + gzip.compress(PAGE, mtime=0),
            "Content-Encoding: gzip\r\n",
        ),
        (gzip.compress(PAGE, mtime=0) + b"\0" * 50, "Content-Encoding: gzip\r\n"),
        (zlib.compress(b"<html>" + PAGE), "Content-Encoding: deflate\r\n"),
        (raw_deflate(b"<html>" + PAGE), "Content-Encoding: deflate\r\n"),
        (pa.compress(PAGE, "zstd", asbytes=True), "Content-Encoding: zstd\r\n"),
        (pa.compress(PAGE, "brotli", asbytes=True), "Content-Encoding: br\r\n"),
        (chunked(PAGE), "Transfer-Encoding: chunked\r\n"),
        (
            chunked(gzip.compress(PAGE, mtime=0)),
            "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n",
        ),
        (PAGE, "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n"),
        (b"<html>" + PAGE, "Content-Encoding: br\r\n"),
    ],
)
def test_encodings_are_undone_where_they_are_really_there(payload: bytes, headers: str) -> None:
    assert outline(response(payload, headers=headers)) == [FOUND]


@pytest.mark.parametrize(
    ("payload", "encoding"),
    [
        (gzip.compress(PAGE, mtime=0)[:-9], "gzip"),
        (gzip.compress(PAGE, mtime=0) + gzip.compress(PAGE, mtime=0)[:-9], "gzip"),
        (zlib.compress(b"<html>" + PAGE)[:-5], "deflate"),
    ],
)
def test_a_compressed_page_that_is_cut_is_broken(payload: bytes, encoding: str) -> None:
    page = response(payload, headers=f"Content-Encoding: {encoding}\r\n")
    assert outline(page + response(PAGE)) == [FOUND, "broken_record"]


def test_the_limit_counts_all_members() -> None:
    bomb = gzip.compress(b"\0" * (MAX_PAGE_BYTES // 2 + 1), mtime=0) * 2
    page = response(bomb, headers="Content-Encoding: gzip\r\n")
    assert outline(page + response(PAGE)) == [FOUND, "broken_record"]


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_a_decompression_bomb_is_one_broken_record(encoding: str) -> None:
    large = b"\0" * (MAX_PAGE_BYTES + 1)
    bomb = (
        gzip.compress(large, mtime=0)
        if encoding == "gzip"
        else pa.compress(large, "brotli", asbytes=True)
    )
    page = response(bomb, headers=f"Content-Encoding: {encoding}\r\n")
    assert outline(page + response(PAGE)) == [FOUND, "broken_record"]


def test_a_page_above_the_limit_is_broken_and_the_next_is_read() -> None:
    assert outline(response(b" " * MAX_PAGE_BYTES) + response(PAGE)) == [FOUND, "broken_record"]
