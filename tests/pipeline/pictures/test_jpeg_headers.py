import struct
import time

import numpy as np
import pytest
import simplejpeg

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


def frame(kind, colours):
    return segment(0xC0 + kind, b"\x08\0\x10\0\x10" + bytes([colours]) + b"\1\x11\0" * colours)


def scan_of(colours):
    return segment(0xDA, bytes([colours]) + b"\1\0" * colours + b"\0\x3f\0") + b"pixels"


@pytest.mark.parametrize("colours", [1, 3])
def test_a_first_scan_of_all_colours_is_the_whole_picture(colours):
    picture = START + EXIF + frame(0, colours) + scan_of(colours)
    assert read_blocks(picture) == Blocks(EXIF[4:], b"", False, True)


@pytest.mark.parametrize(
    "picture", [frame(2, 3) + scan_of(3), frame(0, 3) + scan_of(1), scan_of(0), frame(0, 3)]
)
def test_no_other_first_scan_is(picture):
    assert not read_blocks(START + picture).is_one_scan


def test_decoders_refuse_a_second_scan_of_a_whole_picture():
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = simplejpeg.encode_jpeg(rgb, 90)
    assert read_blocks(data).is_one_scan
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="more than one scan"):
        simplejpeg.decode_jpeg(data[:-2] + scan * 200 + data[-2:])


def test_an_index_of_further_pictures_is_seen():
    assert read_blocks(START + segment(0xE2, b"MPF\0II*\0")).names_more_pictures
