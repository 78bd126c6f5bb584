import io
import struct
import tarfile
import zlib

import numpy as np
import pdqhash
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline import download
from pipeline.pictures import images
from pipeline.pictures.images import ImageRefused, decode, pdq, pixel_hash, resize


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


def test_a_cmyk_jpeg_keeps_its_colours():
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK").save(file, "JPEG", quality=95)
    assert np.allclose(decode(file.getvalue()).rgb[8, 8], (200, 30, 60), atol=12)


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
    "block",
    [b"", b"Exif\0\0", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"x" * 20],
)
def test_broken_exif_means_upright(block):
    assert images.exif_orientation(block) == 1


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_image_is_refused(kind):
    data = encoded(photograph(200, 200), kind)
    assert reason_of(data[: len(data) // 2]) == "truncated_image"


def test_a_jpeg_damaged_inside_is_refused_rather_than_half_grey():
    data = bytearray(encoded(photograph(300, 300), "JPEG", quality=95))
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    assert reason_of(bytes(data)) == "broken_image"


def test_bytes_after_the_end_do_no_harm():
    data = encoded(photograph(50, 50), "JPEG")
    assert np.array_equal(decode(data + b"GARBAGE" * 9).rgb, decode(data).rgb)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
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


SAMPLES = [
    encoded(photograph(24, 18), kind)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
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
    for short_side in (64, 224, 299, 300, 600, 5000):
        picture = decode(data, short_side=short_side)
        assert min(picture.width, picture.height) >= min(short_side, 600)
    assert decode(data, short_side=64).width < 200


def test_the_pixel_hash_tells_shape_and_pixels_apart():
    flat = np.zeros((4, 6, 3), np.uint8)
    one_off = flat.copy()
    one_off[3, 5, 2] = 1
    hashes = {pixel_hash(x) for x in (flat, flat.reshape(6, 4, 3), one_off)}
    assert len(hashes) == 3
    assert pixel_hash(photograph(8, 8)[:, ::-1]) == pixel_hash(photograph(8, 8)[:, ::-1].copy())
    assert pixel_hash(flat) == "532857f36148846aa030fab478fc2c4a"


def differing_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def test_pdq_hardly_notices_resizing_and_recompression(shared_data):
    with tarfile.open(shared_data / "images/imagenet_sample_600.tar") as tar:
        files = [tar.extractfile(m).read() for m in tar if m.isfile()][:12]
    hashes = []
    for data in files:
        rgb = decode(data).rgb
        height, width = rgb.shape[:2]
        original = pdq(rgb)[0]
        small = decode(images.encode_jpeg(resize(rgb, width=width // 2, height=height // 2), 75))
        large = resize(rgb, width=width * 3, height=height * 3)
        assert differing_bits(original, pdq(small.rgb)[0]) <= 48
        assert differing_bits(original, pdq(large)[0]) <= 32
        hashes.append(original)
    others = [differing_bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) > 70


def test_pdq_gives_the_bits_of_the_published_implementation():
    rgb = photograph(300, 200)
    bits, quality = pdqhash.compute(rgb)
    packed, own_quality = pdq(rgb)
    assert np.unpackbits(np.frombuffer(packed, np.uint8)).tolist() == bits.tolist()
    assert own_quality == quality


def test_pdq_is_not_asked_of_small_pictures():
    assert pdq(photograph(500, 63)) is None
    assert pdq(photograph(64, 64)) is not None


def test_pdq_does_not_shrink_a_banner_out_of_sight():
    banner = photograph(6400, 70)
    assert pdq(banner)[0] != pdq(np.ascontiguousarray(banner[:, ::-1]))[0]


def test_a_read_only_picture_can_be_hashed():
    rgb = photograph(100, 100)
    rgb.setflags(write=False)
    assert pdq(rgb) is not None


def test_resizing_averages_fine_detail_away():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, width=16, height=8)
    assert small.shape == (8, 16, 3)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() < 20


def test_encoded_jpeg_is_close_and_the_same_every_time():
    rgb = photograph(90, 60)
    data = images.encode_jpeg(rgb, 95)
    assert data == images.encode_jpeg(np.asfortranarray(rgb), 95)
    assert np.abs(simplejpeg.decode_jpeg(data).astype(int) - rgb).mean() < 3
