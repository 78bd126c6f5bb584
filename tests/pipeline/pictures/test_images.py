import contextlib
import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline import download
from pipeline.pictures import images
from pipeline.pictures.images import HASHED_SIDE, ImageRefused, decode, pixel_hash
from tests.pipeline.pictures.colour_profiles import rgb_profile


def photograph(width: int, height: int) -> np.ndarray:
    """Something smooth with detail, so that JPEG and PDQ have work to do."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (7 + c) + c) * np.cos(y / (11 + c)) + x / width for c in range(3)]
    return ((np.stack(waves, axis=2) + 1) / 3 * 255).clip(0, 255).astype(np.uint8)


def encoded(rgb: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind, **options)
    return file.getvalue()


def reason_of(data: bytes, **options) -> str:
    with pytest.raises(ImageRefused) as refusal:
        decode(data, **options)
    assert refusal.value.reason in download.REASONS
    assert "0x7" not in refusal.value.detail
    return refusal.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG", "AVIF"])
def test_every_format_is_told_by_its_content(kind):
    rgb = photograph(40, 30)
    lossless = {"WEBP": {"lossless": True}}
    picture = decode(encoded(rgb, kind, **lossless.get(kind, {})))
    assert picture.format == kind.lower()
    assert (picture.width, picture.height) == (40, 30)
    assert picture.rgb.dtype == np.uint8
    if kind in ("PNG", "BMP", "TIFF", "WEBP"):
        assert np.array_equal(picture.rgb, rgb)


def test_both_jpeg_decoders_give_the_same_pixels():
    for options in ({}, {"subsampling": 0}, {"progressive": True}):
        data = encoded(photograph(123, 77), "JPEG", **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode(data).rgb, expected)


def test_a_grey_jpeg_becomes_rgb():
    data = encoded(photograph(20, 20)[:, :, 0], "JPEG")
    rgb = decode(data).rgb
    assert rgb.shape == (20, 20, 3)
    assert np.array_equal(rgb[:, :, 0], rgb[:, :, 2])


INKS = Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cmyk_jpeg_keeps_its_colours(progressive):
    file = io.BytesIO()
    INKS.save(file, "JPEG", quality=95, progressive=progressive)
    picture = decode(file.getvalue())
    assert np.allclose(picture.rgb[8, 8], (200, 30, 60), atol=12)
    assert not picture.is_plain


def as_ycck(rgb: np.ndarray) -> bytes:
    """Photoshop's kind of CMYK: inverted, and CMY as YCbCr, which only the Adobe marker tells."""
    light = np.asarray(Image.fromarray(255 - rgb).convert("YCbCr"))
    full = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    file = io.BytesIO()
    # Pillow writes CMYK inverted, too.
    stored = Image.fromarray(255 - np.concatenate([light, full], axis=2), "CMYK")
    stored.save(file, "JPEG", quality=100, subsampling=0)
    data = bytearray(file.getvalue())
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    return bytes(data)


def test_a_ycck_jpeg_keeps_its_colours():
    rgb = photograph(40, 24)
    data = as_ycck(rgb)
    assert simplejpeg.decode_jpeg_header(data)[2] == "YCCK"
    assert np.abs(decode(data).rgb.astype(int) - rgb).mean() < 3


def test_sixteen_bits_of_colour_keep_the_high_byte():
    deep = (photograph(20, 12).astype(np.uint16) << 8) + 77
    bgr = np.ascontiguousarray(deep[:, :, ::-1])
    for kind in (".png", ".tiff"):
        picture = decode(cv2.imencode(kind, bgr)[1].tobytes())
        assert np.array_equal(picture.rgb, photograph(20, 12)), kind


def test_sixteen_bits_with_alpha_become_white_where_transparent():
    deep = np.zeros((2, 2, 4), np.uint16)
    deep[0, 0] = (0x3000, 0x2000, 0x1000, 0xFFFF)
    rgb = decode(cv2.imencode(".png", deep)[1].tobytes()).rgb
    assert rgb[0, 0].tolist() == [0x10, 0x20, 0x30]
    assert rgb[1, 1].tolist() == [255, 255, 255]


def test_a_transparent_level_of_deep_grey_becomes_white():
    deep = np.array([[0x1234, 0x4321]], np.uint16)
    grey = decode(encoded(deep, "PNG", transparency=0x1234)).rgb[0, :, 0]
    assert grey.tolist() == [255, 0x43]


def test_a_tiff_may_be_cmyk_and_only_its_first_page_counts():
    file = io.BytesIO()
    INKS.save(file, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    picture = decode(file.getvalue())
    assert (picture.width, picture.height) == (16, 16)
    assert np.allclose(picture.rgb[8, 8], (200, 30, 60), atol=3)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"])
def test_a_tiff_may_be_compressed(compression):
    rgb = photograph(40, 30)
    image = Image.fromarray(rgb).convert("1" if compression == "group4" else "RGB")
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decode(file.getvalue()).rgb - expected).mean() < 4


def test_a_gamma_chunk_changes_nothing():
    data = encoded(photograph(30, 20), "PNG")
    at = data.index(b"IDAT") - 4
    with_gamma = data[:at] + png_chunk(b"gAMA", struct.pack(">I", 100_000)) + data[at:]
    assert np.array_equal(decode(with_gamma).rgb, decode(data).rgb)


@pytest.mark.parametrize("kind", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".avif"])
def test_files_of_another_writer_are_read(kind):
    rgb = photograph(64, 48)
    done, data = cv2.imencode(kind, np.ascontiguousarray(rgb[:, :, ::-1]))
    assert done
    assert np.abs(decode(data.tobytes()).rgb.astype(int) - rgb).mean() < 6


def test_transparent_pixels_become_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[1, 1] = (0, 0, 0, 128)
    rgb = decode(encoded(rgba, "PNG")).rgb
    assert rgb[0, 0].tolist() == [10, 20, 30]
    assert rgb[1, 1].tolist() == [127, 127, 127]
    assert rgb[3, 3].tolist() == [255, 255, 255]


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    assert decode(file.getvalue()).rgb.tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_sixteen_bit_grey_keeps_the_high_byte():
    deep = np.array([[0x0000, 0x12FF, 0xFFFF]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(deep, kind)).rgb[0, :, 1].tolist() == [0x00, 0x12, 0xFF]


def test_only_the_first_frame_is_read():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
        assert decode(file.getvalue()).rgb[0, 0].tolist() == [255, 0, 0], kind


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_undone_as_pillow_does(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(30, 20), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode(data).rgb, np.asarray(expected))


def test_a_rotated_picture_reports_its_upright_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode(encoded(photograph(30, 20), "JPEG", exif=exif))
    assert (picture.width, picture.height) == (20, 30)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "svg"),
        (b"\xef\xbb\xbf<!DOCTYPE html><p>not found", "html"),
        (b"", "begins with "),
        (b"plain text", "begins with 70 6c 61 69 6e 20 74 65"),
    ],
)
def test_what_is_no_image_is_named(data, detail):
    with pytest.raises(ImageRefused) as refusal:
        decode(data)
    assert (refusal.value.reason, refusal.value.detail) == ("not_an_image", detail)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_a_truncated_image_is_refused(kind):
    data = encoded(photograph(200, 200), kind)
    assert reason_of(data[: len(data) // 2]) == "truncated_image"


def test_a_truncated_cmyk_jpeg_is_refused():
    data = as_ycck(photograph(200, 200))
    assert reason_of(data[: len(data) // 2]) == "truncated_image"


def test_a_jpeg_damaged_inside_is_refused_rather_than_half_grey():
    data = bytearray(encoded(photograph(300, 300), "JPEG", quality=95))
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    assert reason_of(bytes(data)) == "broken_image"


def test_bytes_after_the_end_do_no_harm():
    data = encoded(photograph(50, 50), "JPEG")
    assert np.array_equal(decode(data + b"GARBAGE" * 9).rgb, decode(data).rgb)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


def webp_header(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_a_header_that_announces_too_many_pixels_is_refused_before_decoding():
    jpeg = bytearray(encoded(photograph(16, 16), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    gif = bytearray(encoded(photograph(16, 16), "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    bombs = [png_header(100_000, 100_000), png_header(9_000, 9_000), webp_header(16_000, 16_000)]
    for data in [*bombs, bytes(jpeg), bytes(gif)]:
        assert reason_of(data) == "too_many_pixels"


def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_refused():
    blank = Image.new("1", (4000, 3000))
    file = io.BytesIO()
    blank.save(file, "PNG")
    assert 1000 * len(file.getvalue()) < 4000 * 3000
    assert reason_of(file.getvalue()) == "too_compressed"
    picture = decode(encoded(np.zeros((1000, 1000, 3), np.uint8), "WEBP"))
    assert picture.width == 1000


def test_flat_graphics_are_no_bombs():
    drawing = np.full((2400, 3200, 3), 255, np.uint8)
    drawing[500:600, 700:3000] = (200, 0, 0)
    for kind in ("PNG", "JPEG", "GIF", "TIFF"):
        assert decode(encoded(drawing, kind)).width == 3200, kind


def peak_mb(work) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_huge_blocks_beside_a_picture_cost_no_more_than_their_bytes():
    png = encoded(photograph(30, 20), "PNG")
    at = png.index(b"IDAT") - 4
    bomb = b"title\0\1\0\0\0" + zlib.compress(bytes(300_000_000), 9)
    text, profile = png_chunk(b"iTXt", bomb), png_chunk(b"iCCP", b"x\0\0" + bomb[10:])
    for chunk in (text, profile, png_chunk(b"eXIf", bytes(3_000_000))):
        data = png[:at] + chunk + png[at:]

        def read(data=data) -> None:
            with contextlib.suppress(ImageRefused):
                decode(data)

        assert peak_mb(read) < 30
    comments = b"\xff\xfe\xff\xff" + bytes(65_533)
    jpeg = encoded(photograph(30, 20), "JPEG")
    assert decode(jpeg[:2] + comments * 100 + jpeg[2:]).width == 30


def test_the_pixel_limit_itself_is_allowed():
    data = encoded(photograph(30, 20), "PNG")
    assert decode(data, max_pixels=600).width == 30
    assert reason_of(data, max_pixels=599) == "too_many_pixels"


def test_a_jpeg_with_hundreds_of_scans_is_refused():
    data = encoded(photograph(32, 32), "JPEG")
    at = data.index(b"\xff\xda")
    scan = data[at:-2]
    assert reason_of(data[:at] + scan * 500 + data[-2:]) == "broken_image"


def test_what_pillow_only_warns_of_is_read():
    rgb = photograph(20, 20)
    compression_given_twice = struct.pack("<HHI", 259, 3, 2)
    data = encoded(rgb, "TIFF").replace(struct.pack("<HHI", 259, 3, 1), compression_given_twice)
    with pytest.warns(UserWarning, match="too many entries"):
        Image.open(io.BytesIO(data)).load()
    assert np.array_equal(decode(data).rgb, rgb)


def test_a_film_behind_a_picture_does_no_harm():
    data = encoded(photograph(32, 32), "JPEG")
    assert decode(data + b"\xff\xda\0\x08 frame" * 500).is_plain


def png(depth: int, colour: int, row: bytes, width: int, key: bytes) -> bytes:
    """A PNG of one row, with the transparent colour `key`."""
    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    chunks = (
        (b"IHDR", head),
        (b"tRNS", key),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize(
    ("depth", "row", "key", "expected"),
    [
        (1, b"\x40", 1, [0, 255, 0]),
        (1, b"\x40", 0, [255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 170]),
        (4, b"\x05\x10", 5, [0, 255, 17]),
        (8, b"\0\x05\x01", 5, [0, 255, 1]),
    ],
)
def test_a_transparent_level_of_shallow_grey_becomes_white(depth, row, key, expected):
    data = png(depth, 0, row, 3, struct.pack(">H", key))
    assert decode(data).rgb[0, :, 0].tolist() == expected


def test_a_transparent_deep_colour_becomes_white():
    key = bytes.fromhex("123456789abc")
    rgb = decode(png(16, 2, key + bytes.fromhex("112233445566"), 2, key)).rgb
    assert rgb[0].tolist() == [[255, 255, 255], [0x11, 0x33, 0x55]]


def test_pixels_whose_range_nobody_knows_are_refused():
    for kind in (np.int32, np.float32):
        assert reason_of(encoded(np.zeros((8, 8), kind), "TIFF")) == "broken_image"


def test_deep_grey_is_read_in_both_byte_orders():
    deep = np.array([[0x0000, 0x12FF, 0xFFFF]], np.uint16)
    swapped = Image.frombytes("I;16B", (3, 1), deep.byteswap().tobytes())
    file = io.BytesIO()
    swapped.save(file, "TIFF")
    assert decode(file.getvalue()).rgb[0, :, 1].tolist() == [0x00, 0x12, 0xFF]


def tiff_of_twelve_bits(levels: tuple[int, int]) -> bytes:
    packed = (levels[0] << 12 | levels[1]).to_bytes(3, "big")
    tags = [
        (256, 2),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, 3),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        b"II*\0"
        + struct.pack("<I", 12)
        + packed
        + b"\0"
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def test_twelve_bits_keep_their_high_byte():
    assert decode(tiff_of_twelve_bits((0xFFF, 0x120))).rgb[0, :, 0].tolist() == [255, 0x12]


def test_a_large_transparent_picture_is_the_same_as_its_rows():
    rgba = np.random.default_rng(3).integers(0, 256, (300, 4000, 4), np.uint8)
    rgb = decode(encoded(rgba, "PNG", compress_level=1)).rgb
    for top in (0, 261, 262, 299):
        row = decode(encoded(rgba[top : top + 1], "PNG")).rgb
        assert np.array_equal(rgb[top], row[0])


MEASURE = """
import re, sys
from pathlib import Path
from pipeline.pictures.images import decode

def peak():
    return int(re.search("VmHWM:[^0-9]*([0-9]+) kB", Path("/proc/self/status").read_text()).group(1))

small, large = (Path(name).read_bytes() for name in sys.argv[1:])
decode(small)
before = peak()
decode(large)
print((peak() - before) * 1024)
"""


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_decoding_takes_little_memory_beside_the_pixels(mode, tmp_path):
    paths = []
    for side in (50, 4000):
        picture = Image.new(mode, (side, side))
        paths.append(str(tmp_path / f"{side}.png"))
        picture.save(paths[-1], transparency=0 if mode == "P" else None, compress_level=0)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True
    )
    assert 3 < int(done.stdout) / 4000**2 < 10


SAMPLES = [
    *(
        encoded(photograph(24, 18), kind)
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
    ),
    as_ycck(photograph(24, 18)),
    encoded(photograph(24, 18), "JPEG", progressive=True, icc_profile=rgb_profile()),
    encoded(photograph(24, 18), "PNG", icc_profile=rgb_profile()),
    encoded(photograph(24, 18), "TIFF", compression="tiff_lzw"),
    encoded(photograph(24, 18)[:, :, 0].astype(np.uint16) * 257, "PNG"),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_no_damage_escapes_as_another_exception(sample, data):
    broken = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(1, len(broken)))]
    try:
        picture = decode(bytes(broken), max_pixels=1_000_000)
    except ImageRefused as refusal:
        refused_for = refusal.reason
    else:
        assert picture.rgb.shape == (picture.height, picture.width, 3)
        return
    assert refused_for in download.REASONS


def test_a_reduced_decode_keeps_both_sides_long_enough():
    data = encoded(photograph(800, 600), "JPEG")
    for short_side in (64, 224, 299, 300, 301, 600, 5000):
        picture = decode(data, short_side=short_side)
        assert (picture.width, picture.height) == (800, 600)
        assert min(picture.rgb.shape[:2]) >= min(short_side, 600)
        assert picture.is_reduced == (short_side <= 300)
    assert decode(data, short_side=64).rgb.shape[1] < 200


def test_a_reduced_decode_knows_the_upright_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode(encoded(photograph(800, 600), "JPEG", exif=exif), short_side=100)
    assert (picture.width, picture.height) == (600, 800)
    assert picture.rgb.shape == (200, 150, 3)


def test_only_large_jpegs_are_hashed_at_a_reduced_scale():
    for size, is_reduced in (((1500, 1023), True), ((1500, 1022), False), ((9000, 600), False)):
        rgb = np.zeros((size[1], size[0], 3), np.uint8)
        for kind in ("JPEG", "PNG"):
            picture = decode(encoded(rgb, kind), short_side=HASHED_SIDE)
            assert picture.is_reduced == (is_reduced and kind == "JPEG")


def test_the_pixel_hash_tells_shape_and_pixels_apart():
    flat = np.zeros((4, 6, 3), np.uint8)
    one_off = flat.copy()
    one_off[3, 5, 2] = 1
    hashes = {pixel_hash(x) for x in (flat, flat.reshape(6, 4, 3), one_off)}
    assert len(hashes) == 3
    assert pixel_hash(photograph(8, 8)[:, ::-1]) == pixel_hash(photograph(8, 8)[:, ::-1].copy())
    assert pixel_hash(flat) == "532857f36148846aa030fab478fc2c4a"


def test_encoded_jpeg_is_close_and_the_same_every_time():
    rgb = photograph(90, 60)
    data = images.encode_jpeg(rgb, 95)
    assert data == images.encode_jpeg(np.asfortranarray(rgb), 95)
    assert np.abs(simplejpeg.decode_jpeg(data).astype(int) - rgb).mean() < 3
