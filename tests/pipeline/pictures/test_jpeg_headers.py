import struct
import time

import pytest

from pipeline.pictures.jpeg_headers import Blocks, exif_orientation, has_more_scans, read_blocks


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


START, SCAN = b"\xff\xd8", b"\xff\xda\0\x08"
EXIF = segment(0xE1, b"Exif\0\0II*\0 and more")


def chunk(number: int, content: bytes) -> bytes:
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 2]) + content)


@pytest.mark.parametrize(
    "block",
    [b"", b"Exif\0\0", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"x" * 20],
)
def test_broken_exif_means_upright(block):
    assert exif_orientation(block) == 1


def test_exif_and_profile_are_found_among_other_segments():
    other = segment(0xE0, b"JFIF\0") + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    data = START + other + chunk(2, b"file") + EXIF + b"\xff\xff" + chunk(1, b"pro")[1:] + SCAN
    assert read_blocks(data) == Blocks(b"Exif\0\0II*\0 and more", b"profile", False)


def test_what_follows_the_first_scan_is_not_read():
    assert read_blocks(START + SCAN + EXIF) == Blocks(b"", b"", False)


@pytest.mark.parametrize("length", range(len(EXIF) + 2))
def test_a_header_that_ends_early_is_no_error(length):
    assert read_blocks((START + EXIF)[:length]).profile == b""


def test_millions_of_segments_cost_nothing():
    data = START + segment(0xFE, b"") * 4_000_000 + EXIF
    begun = time.process_time()
    assert read_blocks(data).exif == b""
    assert time.process_time() - begun < 0.1


def test_scans_are_counted_up_to_the_end_of_the_picture():
    picture = START + EXIF + (SCAN + bytes(6) + b"pixels\xff\0\xff\xd0more") * 3 + b"\xff\xd9"
    assert has_more_scans(picture, 2)
    assert not has_more_scans(picture + SCAN * 50, 3)


def test_what_looks_like_a_scan_inside_a_segment_is_none():
    assert not has_more_scans(START + segment(0xE1, SCAN * 50) + SCAN, 1)


def test_an_index_of_further_pictures_is_seen():
    assert read_blocks(START + segment(0xE2, b"MPF\0II*\0")).names_more_pictures
