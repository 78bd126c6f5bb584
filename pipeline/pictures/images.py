"""Decode pictures nobody vouches for, once, and what follows from the pixels: hashes, resizing, encoding.

Plain JPEG goes through simplejpeg, about twice as fast here; everything else, and JPEG it cannot
take, through Pillow. Both use the same DCT and upsampling, so the pixels are the same.
"""

import io
import math
import re
import struct
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
import xxhash
from PIL import Image, UnidentifiedImageError

from pipeline.pictures.flat import raw_mode, to_rgb
from pipeline.pictures.jpeg_headers import exif_orientation, has_more_scans, read_blocks
from pipeline.pictures.orientation import Pixels as Pixels
from pipeline.pictures.orientation import turn_upright
from pipeline.pictures.profiles import find_profile

HASHED_SIDE = 512
"""Shorter side that pictures keep at least when they are decoded for their hashes, on a reduced scale or not."""

MIN_PDQ_SIDE, ENLARGED_SIDE = 64, 128
"""Sides below the first are enlarged to the second before PDQ, which looks at 64x64 samples."""

MAX_JPEG_SCANS = 100
"""A progressive JPEG has about ten scans; each more costs a pass over all pixels for a few bytes."""

MAX_PIXELS_PER_BYTE = 1000
"""600 photographs had up to 13, and flat RGB PNG has 340; blank ones of a palette or 1 bit have more."""

SMALL_PIXELS = 1 << 20
"""Pictures of up to so many pixels may be as blank as they like."""

_FORMATS = {
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tiff",
    "AVIF": "avif",
}
_OPENED_AS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


class ImageRefused(Exception):
    """Bytes that give no picture; `reason` is a code of the download stage, `detail` says what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        """Remember why."""
        # Both as `args`: by them an exception is made again in another process.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture: first frame, upright, alpha on white.

    Attributes:
        format: by content: jpeg, png, webp, gif, bmp, tiff or avif.
        width, height: upright, as the file has it.
        rgb: [height, width, 3], or less of both where it was decoded at a reduced scale.
        orientation: how the file's own pixels lie, as EXIF numbers it; 1 is upright.
        profile: colour profile that the pixels are of; empty where that is sRGB.
        is_plain: whether any reader of the file sees these pixels: upright, opaque, one frame, 8 bits
            of grey or RGB, in sRGB.
    """

    format: str
    width: int
    height: int
    rgb: Pixels
    orientation: int
    profile: bytes
    is_plain: bool

    @property
    def is_reduced(self) -> bool:
        """Whether `rgb` has fewer pixels than the file."""
        return bool(self.rgb.shape[:2] != (self.height, self.width))


def decode(data: bytes, *, max_pixels: int = 50_000_000, short_side: int = 0) -> Picture:
    """Decode any supported format to upright RGB; the header is checked before a pixel is decoded.

    16-bit channels keep their high byte. Printing inks are converted by their profile; other profiles
    are handed on with the pixels, and gamma chunks of PNG ignored.

    Args:
        short_side: where positive, a JPEG is decoded at half its size or less where that leaves both
            sides at least this long. HASHED_SIDE gives the pixels that `pixel_hash` and `pdq` are of.

    Raises:
        ImageRefused: not_an_image, truncated_image, broken_image, too_many_pixels or too_compressed.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data, max_pixels, short_side)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp_header(data, max_pixels)
    return _decode_with_pillow(data, max_pixels)


def _decode_jpeg(data: bytes, max_pixels: int, short_side: int) -> Picture:
    blocks = read_blocks(data)
    if not blocks.is_one_scan and has_more_scans(data, MAX_JPEG_SCANS):
        raise ImageRefused("broken_image", f"more than {MAX_JPEG_SCANS} JPEG scans")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return _decode_with_pillow(data, max_pixels)
    _check_pixels(width, height, len(data), max_pixels)
    if colours in ("CMYK", "YCCK"):
        return _decode_with_pillow(data, max_pixels)
    try:
        # Between full and half size libjpeg has no vector code and takes longer than for all pixels.
        rgb = simplejpeg.decode_jpeg(
            data,
            fastdct=False,
            fastupsample=False,
            min_height=short_side or height,
            min_width=short_side or width,
            min_factor=2 if short_side else 1,
        )
    except ValueError as error:
        _refuse_damage(str(error))
        return _decode_with_pillow(data, max_pixels)
    orientation = exif_orientation(blocks.exif)
    profile = find_profile(blocks.profile, "L" if colours == "Gray" else "RGB")
    if orientation >= 5:
        width, height = height, width
    upright = turn_upright(rgb, orientation)
    is_plain = orientation == 1 and not profile and not blocks.names_more_pictures
    return Picture("jpeg", width, height, upright, orientation, profile, is_plain=is_plain)


def _refuse_damage(message: str) -> None:
    # libjpeg goes on after these with grey or smeared blocks; Pillow says nothing about the last two.
    if message.startswith("Premature end of JPEG file"):
        raise ImageRefused("truncated_image", message)
    if re.search("premature end of data segment|bad Huffman code", message):
        raise ImageRefused("broken_image", message)


def _decode_with_pillow(data: bytes, max_pixels: int) -> Picture:
    _ignore_pillow_warnings()
    try:
        with Image.open(io.BytesIO(data), formats=_OPENED_AS) as image:
            _check_pixels(image.width, image.height, len(data), max_pixels)
            kind, raw = _FORMATS[image.format or ""], raw_mode(image)
            turned = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1)
            image.load()
            orientation = (
                turned if kind == "tiff" else exif_orientation(image.info.get("exif", b""))
            )
            is_plain = _is_plain(image) and ";16" not in raw and orientation == 1
            rgb, profile = to_rgb(image, raw)
    except ImageRefused:
        raise
    except UnidentifiedImageError as error:
        raise _refusal_of_unknown(data) from error
    except Image.DecompressionBombError as error:
        raise ImageRefused("too_many_pixels", _one_line(error)) from error
    except Exception as error:
        # Pillow's readers raise anything on hostile bytes: SyntaxError, struct.error, IndexError, ...
        cut = re.search("truncated|premature|unexpected end", str(error), re.IGNORECASE)
        reason = "truncated_image" if cut else "broken_image"
        raise ImageRefused(reason, _one_line(error)) from error
    # Pillow itself turns a TIFF upright when it loads it.
    upright = rgb if kind == "tiff" else turn_upright(rgb, orientation)
    height, width = upright.shape[:2]
    return Picture(
        kind, width, height, upright, orientation, profile, is_plain=is_plain and not profile
    )


def _is_plain(image: Image.Image) -> bool:
    is_still = not getattr(image, "is_animated", False)
    return is_still and image.mode in _PLAIN_MODES and not image.has_transparency_data


_ORIENTATION = 0x0112
_PLAIN_MODES = ("1", "L", "P", "RGB")


def _ignore_pillow_warnings() -> None:
    # A filter set for good: warnings.catch_warnings is not safe among threads.
    if ("ignore", None, Warning, re.compile(_PILLOW), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW)


_PILLOW = r"PIL\."


def _refusal_of_unknown(data: bytes) -> ImageRefused:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in ((b"<svg", "svg"), (b"<!doctype html", "html"), (b"<html", "html")):
        if mark in start:
            return ImageRefused("not_an_image", name)
    if data[4:8] == b"ftyp" and _ends_inside_a_box(data):
        return ImageRefused("truncated_image", "the file ends inside a box of ISO media")
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return ImageRefused("broken_image", f"begins as {name}, but the header is unreadable")
    return ImageRefused("not_an_image", f"begins with {data[:8].hex(' ')}")


_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"RIFF", "webp"),
    (b"GIF8", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)


def _ends_inside_a_box(data: bytes) -> bool:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return False
        at += size
    return at > len(data)


def _check_pixels(width: int, height: int, size: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageRefused("too_many_pixels", f"{width}x{height}, at most {max_pixels:,} are read")
    if width * height > max(SMALL_PIXELS, MAX_PIXELS_PER_BYTE * size):
        raise ImageRefused("too_compressed", f"{width}x{height} in {size:,} bytes")


def _check_webp_header(data: bytes, max_pixels: int) -> None:
    # Pillow's reader allocates two canvases of the announced size before it tells that size.
    if data[12:16] == b"VP8X" and len(data) >= 30:
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        _check_pixels(width, height, len(data), max_pixels)
    if len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise ImageRefused("truncated_image", f"{len(data)} bytes, its header announces more")


def pixel_hash(rgb: Pixels) -> str:
    """Return xxh3-128 of width and height (uint32, little-endian) and the pixels, 32 hex digits."""
    height, width = rgb.shape[:2]
    digest = xxhash.xxh3_128(struct.pack("<II", width, height))
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def pdq(rgb: Pixels) -> tuple[bytes, int]:
    """Return the PDQ hash, 32 bytes, and its quality, 0 to 100."""
    # Here, because reading pictures, as the trainer does, needs no compiled loops.
    from pipeline.pictures.pdq import hash_pixels

    height, width = rgb.shape[:2]
    if min(height, width) < MIN_PDQ_SIDE:
        size = [side if side >= MIN_PDQ_SIDE else ENLARGED_SIDE for side in (width, height)]
        image = Image.fromarray(np.ascontiguousarray(rgb))
        rgb = np.asarray(image.resize((size[0], size[1]), Image.Resampling.BICUBIC))
    return hash_pixels(rgb)


def resize(rgb: Pixels, *, width: int, height: int) -> Pixels:
    """Return the picture at another size, antialiased."""
    from pipeline.pictures.resampling import resample

    return resample(rgb, width, height)


_LONGEST_SIDES = {"jpg": 65_500, "webp": 16_383}


def encode(rgb: Pixels, kind: str, quality: int) -> bytes:
    """Return the file of a picture: "jpg", see `encode_jpeg`; "webp", lossy; or "png", whatever the quality.

    Raises:
        ImageRefused: too_long.
    """
    if max(rgb.shape) > _LONGEST_SIDES.get(kind, math.inf):
        raise ImageRefused("too_long", f"{rgb.shape[1]}x{rgb.shape[0]} as {kind}")
    if kind == "jpg":
        return encode_jpeg(rgb, quality)
    file = io.BytesIO()
    options = {"quality": quality} if kind == "webp" else {}
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, kind, **options)
    return file.getvalue()


def encode_jpeg(rgb: Pixels, quality: int) -> bytes:
    """Return baseline JPEG with 4:2:0 colour."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality, colorsubsampling="420", fastdct=False
    )
    return data


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]
