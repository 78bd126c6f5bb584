import io
from math import ceil

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.download import DownloadConfig
from pipeline.pictures import images
from pipeline.pictures.blurring import blur
from pipeline.pictures.examine import examine, fit, fitting_size
from pipeline.pictures.images import ImageRefused, Pixels, decode


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(rgb: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind, **options)
    return file.getvalue()


def settings(**given) -> DownloadConfig:
    return DownloadConfig(**given)


def fitted(rgb: np.ndarray, mode: str, size: int) -> Pixels:
    config = settings(resize_mode=mode, image_size=size)
    return fit(rgb, fitting_size(rgb.shape[1], rgb.shape[0], config), config)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_bytes_that_fit_are_kept_as_they_came(kind):
    data = encoded(noise(28, 28), kind)
    stored = examine(data, settings())
    assert stored.data == data
    assert stored.extension == {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[kind]


def slope(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Something that JPEG hardly changes."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 5, y * 5, x + y + seed], axis=2).astype(np.uint8)


def transparent() -> bytes:
    return encoded(np.zeros((20, 20, 4), np.uint8), "PNG")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(slope(30, 20), "JPEG", exif=exif)


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.fromarray(slope(20, 20, seed)) for seed in (0, 100)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


def deep() -> bytes:
    file = slope(20, 20).astype(np.uint16) * 256
    return bytes(cv2.imencode(".png", np.ascontiguousarray(file[:, :, ::-1]))[1].tobytes())


def double() -> bytes:
    file = io.BytesIO()
    Image.fromarray(slope(20, 20)).save(
        file, "MPO", save_all=True, append_images=[Image.fromarray(slope(20, 20, 100))]
    )
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        deep(),
        double(),
        transparent(),
        turned(),
        animated(),
        encoded(slope(20, 20), "GIF"),
        encoded(slope(20, 20), "BMP"),
        encoded(slope(20, 20)[:, :, 0].astype(np.uint16) * 256, "PNG"),
        encoded(slope(20, 20), "PNG") + bytes(100_000),
    ],
)
def test_what_another_reader_might_show_otherwise_is_encoded_anew(data):
    stored = examine(data, settings())
    assert stored.extension == "jpg"
    picture = decode(stored.data)
    assert picture.is_plain
    expected = decode(data)
    assert picture.rgb.shape == expected.rgb.shape
    assert np.abs(picture.rgb.astype(int) - expected.rgb).mean() < 4


def test_the_size_as_fetched_is_what_rules_apply_to():
    data = encoded(noise(900, 300), "JPEG")
    config = settings(min_side=300, max_aspect=3, image_size=64)
    assert examine(data, config).measured.width == 900
    for changed, reason in (({"min_side": 301}, "too_small"), ({"max_aspect": 2.99}, "aspect")):
        with pytest.raises(ImageRefused) as refused:
            examine(data, config.model_copy(update=changed))
        assert (refused.value.reason, refused.value.detail) == (reason, "900x300")


@pytest.mark.parametrize(
    ("mode", "large", "elongated", "small"),
    [
        ("keep_ratio", (96, 64), (640, 10), (20, 10)),
        ("keep_ratio_largest", (64, 43), (64, 1), (20, 10)),
        ("center_crop", (64, 64), (64, 10), (20, 10)),
        ("border", (64, 64), (64, 64), (64, 64)),
        ("no", (300, 200), (640, 10), (20, 10)),
    ],
)
def test_a_resize_mode_gives_the_size_it_names(mode, large, elongated, small):
    for given, expected in (((300, 200), large), ((640, 10), elongated), ((20, 10), small)):
        height, width = fitted(noise(*given), mode, 64).shape[:2]
        assert (width, height) == expected


def test_a_border_is_white_and_the_picture_in_its_middle():
    framed = fitted(np.zeros((10, 20, 3), np.uint8), "border", 40)
    assert framed[15:25, 10:30].max() == 0
    assert framed.sum() == 255 * 3 * (40 * 40 - 200)


def test_a_crop_takes_the_middle():
    rgb = np.zeros((50, 150, 3), np.uint8)
    rgb[:, 50:100] = 200
    assert fitted(rgb, "center_crop", 50).min() == 200


def test_bytes_that_fit_are_encoded_anew_when_asked():
    data = encoded(slope(28, 28), "JPEG")
    stored = examine(data, settings(skip_reencode=False))
    assert stored.data == images.encode_jpeg(decode(data).rgb, 95)


@pytest.mark.parametrize("kind", ["jpg", "webp", "png"])
def test_pictures_are_encoded_in_the_format_asked_for(kind):
    data = encoded(slope(300, 200), "PNG")
    config = settings(image_size=100, encode_format=kind)
    stored = examine(data, config)
    assert stored.extension == kind
    picture = decode(stored.data)
    assert picture.format == {"jpg": "jpeg"}.get(kind, kind)
    assert (picture.width, picture.height) == (150, 100)
    if kind == "png":
        assert np.array_equal(picture.rgb, images.resize(slope(300, 200), width=150, height=100))
    else:
        lower = examine(data, config.model_copy(update={"encode_quality": 20}))
        assert len(lower.data) < len(stored.data)
    assert examine(data, config) == stored


def test_a_file_below_the_least_size_is_dropped_unread():
    data = encoded(noise(40, 40), "PNG")
    assert examine(data, settings(min_bytes=len(data)))
    with pytest.raises(ImageRefused) as refused:
        examine(b"x", settings(min_bytes=2))
    assert (refused.value.reason, refused.value.detail) == ("too_few_bytes", "1")


def smooth(width: int, height: int) -> np.ndarray:
    small = Image.fromarray(noise(width // 40, height // 40)).convert("L")
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"))


def level_error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("image_size", [100, 256, 300, 512, 1100])
def test_a_large_jpeg_has_the_same_hashes_whatever_is_stored(image_size):
    data = encoded(smooth(1600, 1200), "JPEG", quality=90)
    stored = examine(data, settings(image_size=image_size))
    measured = stored.measured
    assert (measured.width, measured.height) == (1600, 1200)
    reduced = decode(data, short_side=images.HASHED_SIDE)
    assert measured.pixel_hash == images.pixel_hash(reduced.rgb)
    assert measured.pdq == images.pdq(reduced.rgb)[0]
    width, height = round(1600 * image_size / 1200), image_size
    found = decode(stored.data).rgb
    assert found.shape == (height, width, 3)
    assert level_error(found, images.resize(decode(data).rgb, width=width, height=height)) < 1.5


def test_a_large_jpeg_that_is_not_to_be_resized_is_kept_as_it_came():
    data = encoded(smooth(1600, 1200), "JPEG")
    assert examine(data, settings(resize_mode="no")).data == data


FACE = [[0.25, 0.25, 0.5, 0.75]]


@pytest.mark.parametrize("mode", ["no", "keep_ratio", "keep_ratio_largest"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_boxes_are_blurred_in_what_is_stored(mode, kind):
    data = encoded(noise(96, 64), kind)
    config = settings(resize_mode=mode, image_size=32, encode_format="png")
    stored = examine(data, config, FACE)
    assert stored.data != data
    found, sharp = decode(stored.data).rgb, decode(examine(data, config).data).rgb
    height, width = found.shape[:2]
    inside = np.s_[height // 3 : height * 2 // 3, width * 3 // 10 : width * 4 // 10]
    assert found[inside].std() < sharp[inside].std() / 2
    assert np.array_equal(found[:, width * 7 // 8 :], sharp[:, width * 7 // 8 :])


def test_what_is_measured_is_the_picture_as_fetched():
    data = encoded(noise(96, 64), "PNG")
    assert examine(data, settings(), FACE).measured == examine(data, settings()).measured


def test_boxes_are_of_the_whole_picture_where_it_is_cropped_or_padded():
    rgb = noise(120, 60)
    left = [[0.0, 0.0, 0.2, 1.0]]
    soft = blur(rgb, left)
    cropped = settings(resize_mode="center_crop", image_size=60)
    assert np.array_equal(fit(rgb, (120, 60), cropped, left), soft[:, 30:90])
    padded = settings(resize_mode="border", image_size=120)
    assert np.array_equal(fit(rgb, (120, 60), padded, left)[30:90], soft)


@pytest.mark.parametrize("boxes", [None, []])
def test_without_boxes_nothing_is_blurred(boxes):
    data = encoded(noise(28, 28), "PNG")
    assert examine(data, settings(), boxes).data == data


@pytest.mark.parametrize(("side", "kind"), [(65_501, "jpg"), (16_384, "webp")])
def test_what_is_too_long_for_the_format_is_refused(side, kind):
    data = encoded(np.zeros((17, side, 3), np.uint8), "BMP")
    config = settings(encode_format=kind, resize_mode="no")
    with pytest.raises(ImageRefused, match=f"too_long: {side}x17 as {kind}"):
        examine(data, config)
    cut = encoded(np.zeros((17, side - 1, 3), np.uint8), "BMP")
    assert examine(cut, config).measured.width == side - 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_boxes_count_for_the_upright_picture_and_for_the_pixels_in_the_file(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    sharp = noise(96, 64)
    config = settings(resize_mode="no", encode_format="png")
    box = [0.55, 0.1, 0.95, 0.4]
    data = encoded(sharp, kind, exif=exif)
    found = decode(examine(data, config, [box]).data).rgb
    marked = np.zeros((64, 96, 3), np.uint8)
    marked[9:23, 56:88] = 255
    in_file = decode(encoded(marked, "PNG", exif=exif)).rgb[:, :, 0] == 255
    height, width = found.shape[:2]
    upright = np.zeros((height, width), bool)
    upright[ceil(0.13 * height) : int(0.37 * height), ceil(0.58 * width) : int(0.92 * width)] = True
    for blurred in (in_file, upright):
        assert found[blurred].std() < noise(96, 64).std() / 2
