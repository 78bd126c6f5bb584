"""What a fetched picture is, and the bytes of it to store: one decode, measured, reduced, encoded."""

import hashlib
from dataclasses import dataclass

import numpy as np

from pipeline.download import DownloadConfig
from pipeline.pictures import images
from pipeline.pictures.blurring import blur
from pipeline.pictures.images import ImageRefused, Picture
from pipeline.pictures.orientation import Boxes, Pixels, turn_boxes
from pipeline.pictures.profiles import pixels_to_srgb

KEPT_FORMATS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Formats whose bytes may be stored as they came, with their extension in the tar."""

OVERSAMPLED = 2
"""How much larger than stored a picture's sides are, at least, where it was decoded at a reduced scale."""

SPARE_BYTES = 1 << 14
"""Bytes by which a file may exceed its own pixels and still be stored as it came."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a fetched picture; the fields are columns of DOWNLOADED."""

    image_sha256: str
    image_bytes: int
    image_format: str
    width: int
    height: int
    pixel_hash: str
    pdq: bytes
    pdq_quality: int


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A fetched picture and the bytes to store, with their extension."""

    measured: Measured
    extension: str
    data: bytes


def examine(data: bytes, config: DownloadConfig, boxes: Boxes | None = None) -> StoredImage:
    """Decode once; apply the size rules; measure; return what is to be stored, blurred within `boxes`.

    Hashes are of the picture as fetched, before anything is blurred: they are there to find it again.

    Raises:
        ImageRefused: if the bytes are no picture, or one that the rules exclude.
    """
    if len(data) < config.min_bytes:
        raise ImageRefused("too_few_bytes", f"{len(data):,}")
    picture = images.decode(data, max_pixels=config.max_pixels, short_side=images.HASHED_SIDE)
    _check_size(picture.width, picture.height, config)
    pdq, quality = images.pdq(picture.rgb)
    measured = Measured(
        image_sha256=hashlib.sha256(data).hexdigest(),
        image_bytes=len(data),
        image_format=picture.format,
        width=picture.width,
        height=picture.height,
        pixel_hash=images.pixel_hash(picture.rgb),
        pdq=pdq,
        pdq_quality=quality,
    )
    return StoredImage(measured, *_to_store(picture, data, config, boxes or ()))


def _check_size(width: int, height: int, config: DownloadConfig) -> None:
    shorter, longer = sorted((width, height))
    if shorter < config.min_side:
        raise ImageRefused("too_small", f"{width}x{height}")
    if config.max_aspect and longer > config.max_aspect * shorter:
        raise ImageRefused("aspect", f"{width}x{height}")


def _to_store(
    picture: Picture, data: bytes, config: DownloadConfig, boxes: Boxes
) -> tuple[str, bytes]:
    width, height = fitting_size(picture.width, picture.height, config)
    if picture.is_reduced and picture.rgb.shape[1] < OVERSAMPLED * width:
        picture = images.decode(data, max_pixels=config.max_pixels)
    if picture.orientation != 1:
        # Some are of the upright picture, others, as with img2dataset, of the pixels as the file has them.
        boxes = [*boxes, *turn_boxes(boxes, picture.orientation)]
    fitted = fit(picture.rgb, (width, height), config, boxes, picture.profile)
    is_unchanged = fitted is picture.rgb and picture.is_plain
    is_lean = len(data) <= picture.rgb.nbytes + SPARE_BYTES
    if config.skip_reencode and is_unchanged and is_lean and picture.format in KEPT_FORMATS:
        return KEPT_FORMATS[picture.format], data
    kind = config.encode_format
    return kind, images.encode(fitted, kind, config.encode_quality)


def fitting_size(width: int, height: int, config: DownloadConfig) -> tuple[int, int]:
    """Return the size to which a picture is reduced before it is cropped or padded; none is enlarged."""
    if config.resize_mode == "no":
        return width, height
    counts_shorter = config.resize_mode in ("keep_ratio", "center_crop")
    side = min(width, height) if counts_shorter else max(width, height)
    scale = min(1.0, config.image_size / side)
    return max(1, round(width * scale)), max(1, round(height * scale))


def fit(
    rgb: Pixels,
    size: tuple[int, int],
    config: DownloadConfig,
    boxes: Boxes = (),
    profile: bytes = b"",
) -> Pixels:
    """Return the picture reduced to `size`, in sRGB, blurred within `boxes`, and cropped or padded.

    It is `rgb` itself where nothing is to be done.
    """
    width, height = size
    if rgb.shape[:2] != (height, width):
        rgb = images.resize(rgb, width=width, height=height)
    if profile:
        rgb = pixels_to_srgb(rgb, profile)
    if boxes:
        rgb = blur(rgb, boxes)
    if config.resize_mode == "center_crop":
        return _cropped(rgb, config.image_size)
    return _padded(rgb, config.image_size) if config.resize_mode == "border" else rgb


def _cropped(rgb: Pixels, size: int) -> Pixels:
    height, width = rgb.shape[:2]
    if max(height, width) <= size:
        return rgb
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    return rgb[top : top + size, left : left + size]


def _padded(rgb: Pixels, size: int) -> Pixels:
    height, width = rgb.shape[:2]
    if (height, width) == (size, size):
        return rgb
    page = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    page[top : top + height, left : left + width] = rgb
    return page
