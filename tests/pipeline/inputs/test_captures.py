import gzip
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.inputs.captures import capture_record, tabulate_captures
from tests.pipeline.archives import response

HEADERS = {"content-length": "100"}


@pytest.mark.parametrize(
    ("media_type", "kept"),
    [
        ("image/png", "image/png"),
        ("Image/JPEG; charset=binary", "image/jpeg"),
        ("application/octet-stream", "application/octet-stream"),
        ("", ""),
        ("text/css", None),
        ("application/pdf", None),
        ("imagery/x", None),
    ],
)
def test_what_may_be_a_picture_is_noted(media_type: str, kept: str | None) -> None:
    found = capture_record("http://x/a", 7, HEADERS, media_type)
    assert (found and found.media_type) == kept


@pytest.mark.parametrize("target", [None, "", "ftp://x/a", "dns:x", "http:///a"])
def test_what_has_no_address_that_a_pair_could_have_is_not_noted(target: str | None) -> None:
    assert capture_record(target, 0, HEADERS, "image/png") is None


@pytest.mark.parametrize("length", [None, "", "-1", "x", "9" * 11, "9" * 5000])
def test_a_record_without_a_sound_length_is_not_noted(length: str | None) -> None:
    headers = {} if length is None else {"content-length": length}
    assert capture_record("http://x/a", 0, headers, "image/png") is None


def test_addresses_are_written_as_those_of_pairs() -> None:
    found = capture_record(" http://x/ä b.jpg#top ", 0, HEADERS, "image/png")
    assert found is not None
    assert found.url == "http://x/%C3%A4%20b.jpg"


@given(st.integers(0, 70_000), st.booleans(), st.integers(0, 9))
def test_the_length_covers_the_record_however_it_is_compressed(
    size: int, is_noise: bool, level: int
) -> None:
    body = os.urandom(size) if is_noise else bytes(size)
    record = response(body, kind="image/png")
    block = len(record.partition(b"\r\n\r\n")[2]) - 4
    found = capture_record("http://h.example/p", 0, {"content-length": str(block)}, "image/png")
    assert found is not None
    assert found.length >= len(record)
    assert found.length >= len(gzip.compress(record, level))
    assert found.length >= len(zlib.compress(record, level))


def test_captures_make_a_table() -> None:
    found = capture_record("http://x/a", 7, HEADERS, "image/png")
    assert found is not None
    table = tabulate_captures([found], "a.warc")
    assert table.schema == schemas.CAPTURES
    assert table.to_pylist()[0]["source"] == "a.warc"
    assert tabulate_captures([], "a.warc").num_rows == 0
