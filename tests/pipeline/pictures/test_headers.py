import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.pictures.headers import read_header


def saved(kind: str, width: int, height: int, mode: str = "RGB", **options) -> bytes:
    rng = np.random.default_rng(width)
    channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
    pixels = rng.integers(0, 255, (height, width, *channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("side", [(1, 1), (7, 300), (300, 7), (256, 255)])
@pytest.mark.parametrize(
    ("kind", "extension", "options"),
    [
        ("JPEG", "jpg", {}),
        ("JPEG", "jpg", {"progressive": True}),
        ("JPEG", "jpg", {"exif": Image.Exif(), "comment": b"x" * 60_000}),
        ("JPEG", "jpg", {"mode": "L"}),
        ("PNG", "png", {}),
        ("PNG", "png", {"mode": "RGBA"}),
        ("WEBP", "webp", {}),
        ("WEBP", "webp", {"lossless": True}),
        ("WEBP", "webp", {"mode": "RGBA"}),
        ("WEBP", "webp", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}),
    ],
)
def test_format_and_size_are_those_that_pillow_sees(kind, extension, options, side):
    assert read_header(saved(kind, *side, **options)) == (extension, *side)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_cut_short_gives_nothing_or_what_its_header_says(kind):
    whole = saved(kind, 30, 20)
    for length in range(len(whole)):
        seen = read_header(whole[:length])
        assert seen is None or seen[1:] == (30, 20)


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBPVP8X"]), st.binary()
)
def test_any_bytes_are_read_or_refused(start, rest):
    seen = read_header(start + rest)
    assert seen is None or seen.extension in ("jpg", "png", "webp")


def test_a_picture_of_another_kind_is_refused():
    assert read_header(saved("GIF", 5, 5, "L")) is None
