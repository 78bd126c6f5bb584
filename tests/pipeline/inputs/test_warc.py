import gzip
import io
import random
import re
import time
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest import REASONS
from pipeline.inputs.crawls import read_crawl
from tests.pipeline.archives import (
    describe_page,
    members,
    outline,
    places,
    read_tables,
    record,
    response,
)

PAGE = b"<img src=a.jpg alt='A dog'>"
FOUND = "http://h.example/a.jpg"
INFO = record("warcinfo", b"software: test\r\n", "application/warc-fields")
REQUEST = record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request")


def test_a_page_gives_its_images_with_the_records_offset() -> None:
    archive = members(INFO, REQUEST, response(PAGE))
    offset = len(members(INFO, REQUEST))
    pairs, drops = read_tables(archive)
    assert pairs.drop_columns(["pair_id", "key"]).to_pylist() == [
        {
            "url": FOUND,
            "caption": "A dog",
            "caption_source": "alt",
            "page_url": "http://h.example/p",
            "source": "x",
            "source_offset": offset,
            "blur_boxes": None,
        }
    ]
    assert drops.num_rows == 0


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, lambda b: pa.compress(b, "zstd", asbytes=True)]
)
def test_plain_gzip_and_zstd_archives_are_read_alike(compress) -> None:  # type: ignore[no-untyped-def]
    parts = [compress(one) for one in (INFO, response(PAGE), response(PAGE))]
    offsets = [len(parts[0]), len(parts[0]) + len(parts[1])]
    assert read_tables(b"".join(parts))[0].column("source_offset").to_pylist() == offsets


PAGES = [response(b"<img src=%d.jpg alt='A dog'>" % i + b"<p>%d</p>" % i * 50) for i in range(4)]
URLS = [f"http://h.example/{i}.jpg" for i in range(4)]


@pytest.mark.parametrize(
    "pack", [members, lambda *records: b"".join(records)], ids=["gzip", "plain"]
)
def test_reading_goes_on_behind_junk(pack) -> None:  # type: ignore[no-untyped-def]
    archive = pack(*PAGES[:2]) + b"junk\r\n" * 300 + pack(*PAGES[2:])
    assert outline(archive) == [*URLS, "broken_record"]
    assert outline(pack(*PAGES) + b"\0" * 5000) == [*URLS, "broken_record"]


def test_a_damaged_member_is_named_and_the_next_is_read() -> None:
    archive = bytearray(members(*PAGES))
    start = len(members(PAGES[0]))
    archive[start + 60 : start + 70] = b"\xff" * 10
    pairs, drops = read_tables(bytes(archive))
    assert places(drops) == [("broken_record", len(members(*PAGES[:2])))]
    assert pairs.column("url").to_pylist() == [URLS[0], *URLS[2:]]


@pytest.mark.parametrize(
    "pack", [members, lambda *records: b"".join(records)], ids=["gzip", "plain"]
)
@pytest.mark.parametrize("last", [PAGES[3], REQUEST])
def test_a_cut_archive_says_so(pack, last: bytes) -> None:  # type: ignore[no-untyped-def]
    whole = pack(*PAGES[:3])
    archive = whole + pack(last)[:-12]
    pairs, drops = read_tables(archive)
    assert pairs.column("url").to_pylist() == URLS[:3]
    assert places(drops) == [("broken_record", len(whole))]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("size", [5000, 3 << 20])
@pytest.mark.parametrize(("kind", "status"), [("image/png", 200), ("text/html", 404)])
def test_a_cut_record_that_is_no_page_is_broken_and_no_capture(  # type: ignore[no-untyped-def]
    pack, size: int, kind: str, status: int
) -> None:
    content = random.Random(1).randbytes(size)
    picture = response(content, kind=kind, status=status)
    whole = pack(PAGES[0])
    archive = (whole + pack(picture))[:-900]
    [(pairs, drops, captures)] = read_crawl(io.BytesIO(archive), "warc", "x", 1000)
    assert pairs.column("url").to_pylist() == URLS[:1]
    assert not captures
    [drop] = drops.to_pylist()
    assert drop["reason"] == "broken_record"
    assert re.fullmatch(rf"x@{len(whole)}: \d+ of \d+ bytes", drop["detail"])


def long_record(content: bytes) -> bytes:
    """Return a page that announces 99,999,999 bytes."""
    return response(content).replace(b"Content-Length: ", b"Content-Length: 99999999\r\nX: ")


@pytest.mark.parametrize(
    "pack", [members, lambda *records: b"".join(records)], ids=["gzip", "plain"]
)
def test_records_that_announce_too_much_are_not_read_to_the_end_each(pack) -> None:  # type: ignore[no-untyped-def]
    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    content = random.Random(1).randbytes(5000)
    archive = pack(*[long_record(content)] * 400, PAGES[0])
    file = Counting(archive)
    [(pairs, drops, _)] = read_crawl(file, "warc", "x", 1000)
    assert pairs.column("url").to_pylist() == URLS[:1]
    assert drops.num_rows == 400
    assert file.count < 20 * len(archive)


def test_what_only_looks_compressed_is_passed_over_quickly() -> None:
    for junk in (b"\x1f\x8b\x08", b"\x1f\x8b\x08\xff", b"\x1f\x8b\x08\0\0\0\0\0\0\0"):
        archive = PAGES[0] + junk * (300_000 // len(junk)) + PAGES[1]
        before = time.process_time()
        assert outline(archive) == [*URLS[:2], "broken_record"]
        assert time.process_time() - before < 1.5


@pytest.mark.parametrize("length", ["99999999999999", "-5", "x", "9" * 40])
def test_a_wrong_length_stops_nothing(length: str) -> None:
    wrong = PAGES[0].replace(b"Content-Length: ", f"Content-Length: {length}\r\nX: ".encode())
    assert outline(members(wrong, *PAGES[1:])) == [*URLS[1:], "broken_record"]


def test_errors_of_the_disk_are_not_taken_for_broken_records() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise OSError(5, "Input/output error")
            return super().read(64)

    with pytest.raises(OSError, match="Input/output"):
        list(read_crawl(Failing(b"".join(PAGES)), "warc", "x", 1000))


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


STARTS = (b"WARC/", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")
PIECES = st.sampled_from(
    [
        *STARTS,
        b"1.0\r\n",
        b"\r\n",
        b"WARC-Type: response\r\n",
        b"Content-Length: 7\r\n",
        PAGES[0],
        PAGES[1][:-9],
        REQUEST,
        members(PAGES[2]),
        members(PAGES[3])[:-9],
        describe_page("<img src=a.jpg alt='A dog'>", "http://h.example/p"),
    ]
)


@pytest.mark.parametrize("kind", ["warc", "wat"])
@given(pieces=st.lists(PIECES | st.binary(max_size=40), max_size=9))
def test_of_any_bytes_pairs_and_drops_come_in_order_with_the_place_they_stood_at(
    kind: Literal["warc", "wat"], pieces: list[bytes]
) -> None:
    data = b"".join(pieces)
    pairs, drops = read_tables(data, kind)
    found = pairs.column("source_offset").to_pylist()
    dropped = [offset for _, offset in places(drops)]
    assert found == sorted(found)
    assert dropped == sorted(dropped)
    assert all(data.startswith(STARTS, offset) for offset in found)
    assert all(0 <= offset < len(data) for offset in dropped)
    assert set(drops.column("reason").to_pylist()) <= REASONS.keys()
