import io
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipeline.download import DownloadConfig
from pipeline.pictures.examine import examine
from pipeline.pictures.images import Picture, decode
from pipeline.pictures.profiles import MAX_PROFILE_BYTES, find_profile, to_srgb
from tests.pipeline.pictures.colour_profiles import (
    ADOBE,
    SRGB,
    grey_profile,
    press_profile,
    rgb_profile,
)

WIDE = rgb_profile()
COLOUR = (200, 90, 60)


def flat(colour: tuple[int, ...] | int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (48, 32), colour)


def as_stored(data: bytes) -> Picture:
    return decode(examine(data, DownloadConfig(encode_format="png", image_size=24)).data)


def written(image: Image.Image, kind: str, profile: bytes, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, icc_profile=profile, **options)
    return file.getvalue()


def centre(picture: Picture) -> list[int]:
    height, width = picture.rgb.shape[:2]
    return [int(v) for v in picture.rgb[height // 2, width // 2]]


def in_srgb(colour: tuple[int, ...], gamma: float = 2.2) -> np.ndarray:
    """Return what a colour of Adobe's primaries is in sRGB, from the definitions."""
    linear = (np.array(colour) / 255) ** gamma @ np.array(ADOBE) @ np.linalg.inv(np.array(SRGB))
    linear = linear.clip(0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * coded


LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colours_of_a_wide_profile_become_srgb(kind):
    data = written(flat(COLOUR), kind, WIDE, **LOSSLESS.get(kind, {}))
    picture = as_stored(data)
    assert np.allclose(centre(picture), in_srgb(COLOUR), atol=3)
    assert abs(centre(picture)[0] - COLOUR[0]) > 8
    assert picture.profile == b""


def test_hashes_are_of_the_pixels_in_the_file_as_others_compute_them():
    plain, wide = written(flat(COLOUR), "PNG", b""), written(flat(COLOUR), "PNG", WIDE)
    assert decode(wide).profile == WIDE
    assert not decode(wide).is_plain
    one, other = (examine(data, DownloadConfig()).measured for data in (plain, wide))
    assert (one.pixel_hash, one.pdq) == (other.pixel_hash, other.pdq)


def test_an_srgb_profile_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = decode(written(flat(COLOUR), "PNG", srgb))
    assert centre(picture) == list(COLOUR)
    assert picture.is_plain


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        WIDE[:200],
        WIDE[:128] + bytes(len(WIDE) - 128),
        WIDE.replace(b"RGB ", b"CMYK"),
        WIDE.replace(b"mntr", b"link"),
        WIDE + bytes(MAX_PROFILE_BYTES),
        grey_profile(1.0),
    ],
)
def test_a_profile_that_is_broken_or_of_other_colours_is_ignored(profile):
    assert find_profile(profile, "RGB") == b""


def test_a_broken_profile_does_not_cost_the_picture():
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        picture = decode(written(flat(COLOUR), kind, WIDE[:300], **LOSSLESS.get(kind, {})))
        assert np.allclose(centre(picture), COLOUR, atol=2), kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_has_profiles_too(kind):
    picture = as_stored(written(flat(128, "L"), kind, grey_profile(1.0)))
    # Half the light of white is level 188 of sRGB.
    assert np.allclose(centre(picture), [188] * 3, atol=2)


def test_transparency_is_white_whatever_the_profile():
    image = Image.new("RGBA", (48, 32), (*COLOUR, 0))
    assert centre(as_stored(written(image, "PNG", WIDE))) == [255, 255, 255]


def inks_as_lab() -> np.ndarray:
    """A press whose inks all print as neutral grey: the more, the darker."""
    levels = [255 - 60 * sum(inks) for inks in itertools.product((0, 1), repeat=4)]
    return np.array([[level, 128, 128] for level in levels])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_printing_colours_follow_their_profile(kind):
    image = flat((255, 0, 0, 0), "CMYK")
    options = {"quality": 100} if kind == "JPEG" else {}
    picture = decode(written(image, kind, press_profile(inks_as_lab()), **options))
    red, green, blue = centre(picture)
    assert max(red, green, blue) - min(red, green, blue) <= 4
    assert 150 < green < 230
    without = decode(written(image, kind, b"", **options))
    assert centre(without)[0] < 20


def test_a_profile_in_several_segments_of_a_jpeg_is_put_together():
    long = WIDE + bytes(150_000)
    data = written(flat(COLOUR), "JPEG", long, **LOSSLESS["JPEG"])
    assert data.count(b"ICC_PROFILE\0") == 3
    assert np.allclose(centre(as_stored(data)), in_srgb(COLOUR), atol=3)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([WIDE, press_profile(inks_as_lab()), grey_profile(1.8)]), st.data())
def test_no_profile_stops_or_breaks_a_picture(profile, data):
    hostile = bytearray(profile)
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(hostile) - 1))
        hostile[at] = data.draw(st.integers(0, 255))
    begun = time.process_time()
    for mode, colour in (("RGB", COLOUR), ("L", 90), ("CMYK", (9, 8, 7, 6))):
        if found := find_profile(bytes(hostile), mode):
            assert to_srgb(flat(colour, mode), found).shape == (32, 48, 3)
    assert time.process_time() - begun < 2
