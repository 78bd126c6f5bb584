"""Decode pictures nobody vouches for, once, and what follows from the pixels: hashes, resizing, JPEG.

Plain JPEG goes through simplejpeg, about twice as fast here; everything else, and JPEG it cannot
take, through Pillow. Both use the same DCT and upsampling, so the pixels are the same.
"""

import io
import re
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
import xxhash
from PIL import Image, UnidentifiedImageError

MIN_PDQ_SIDE = 64
"""Smaller side below which PDQ is blind: it reduces any picture to 64x64 before it looks."""

PDQ_SIDE = 512
"""Longer side to which larger pictures are reduced before PDQ: 72 ms instead of 10 at 2000x1500."""

MAX_JPEG_SCANS = 100
"""A progressive JPEG has about ten scans; each more costs a pass over all pixels for a few bytes."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""RGB, [height, width, 3]."""

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

_ORIENTATION = 0x0112
_TURNS: dict[int, tuple[bool, int]] = {
    # EXIF orientation: (mirrored left to right first, quarter turns anticlockwise after that)
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}


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
        rgb: [height, width, 3].
        is_plain: whether any reader of the file sees these pixels: upright, opaque, one frame, 8 bits
            of grey or RGB.
    """

    format: str
    rgb: Pixels
    is_plain: bool

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.rgb.shape[0])


def decode(data: bytes, *, max_pixels: int = 50_000_000, short_side: int = 0) -> Picture:
    """Decode any supported format to upright RGB; the header is checked before a pixel is decoded.

    Colour profiles are ignored, as CLIP's own loader does. 16-bit channels keep their high byte.

    Args:
        short_side: where positive, a JPEG may be decoded at a reduced DCT scale that leaves both
            sides at least this long; faster, and `width` and `height` are then the reduced ones.

    Raises:
        ImageRefused: not_an_image, truncated_image, broken_image or too_many_pixels.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data, max_pixels, short_side)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_webp_header(data, max_pixels)
    return _decode_with_pillow(data, max_pixels)


def _decode_jpeg(data: bytes, max_pixels: int, short_side: int) -> Picture:
    scans = data.count(b"\xff\xda")
    if scans > MAX_JPEG_SCANS:
        raise ImageRefused("broken_image", f"{scans} JPEG scans, at most {MAX_JPEG_SCANS} are read")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return _decode_with_pillow(data, max_pixels)
    _check_pixels(width, height, max_pixels)
    if colours in ("CMYK", "YCCK"):
        return _decode_with_pillow(data, max_pixels)
    try:
        rgb = simplejpeg.decode_jpeg(
            data,
            fastdct=False,
            fastupsample=False,
            min_height=short_side or height,
            min_width=short_side or width,
        )
    except ValueError as error:
        _refuse_damage(str(error))
        return _decode_with_pillow(data, max_pixels)
    orientation = exif_orientation(_jpeg_exif(data))
    return Picture("jpeg", turn_upright(rgb, orientation), is_plain=orientation == 1)


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
            _check_pixels(image.width, image.height, max_pixels)
            image.load()
            rgb = _to_rgb(image)
            orientation = exif_orientation(image.info.get("exif", b""))
            kind = _FORMATS[image.format or ""]
            is_plain = _is_plain(image) and orientation == 1
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
    return Picture(kind, upright, is_plain=is_plain)


def _is_plain(image: Image.Image) -> bool:
    is_still = not getattr(image, "is_animated", False)
    return is_still and image.mode in _PLAIN_MODES and not image.has_transparency_data


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
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return ImageRefused("broken_image", f"begins as {name}, but the header is unreadable")
    return ImageRefused("not_an_image", f"begins with {data[:8].hex(' ')}")


_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"RIFF", "webp"),
    (b"GIF8", "gif"),
)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageRefused("too_many_pixels", f"{width}x{height}, at most {max_pixels:,} are read")


def _check_webp_header(data: bytes, max_pixels: int) -> None:
    # Pillow's reader allocates two canvases of the announced size before it tells that size.
    if data[12:16] == b"VP8X" and len(data) >= 30:
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        _check_pixels(width, height, max_pixels)
    if len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise ImageRefused("truncated_image", f"{len(data)} bytes, its header announces more")


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode == "F":
        raise ImageRefused("broken_image", "floating-point pixels")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(grey[:, :, None], (*grey.shape, 3)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(page, layer)
    return np.array(image.convert("RGB"))


def _jpeg_exif(data: bytes) -> bytes:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 4 : at + 2 + length]
        if marker == 0xDA or length < 2:
            return b""
        at += 2 + length
    return b""


def exif_orientation(exif: bytes) -> int:
    """Return the orientation an EXIF block asks for, 1 to 8; 1 (upright) where it is broken."""
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, directory)
        for entry in range(entries):
            at = directory + 2 + 12 * entry
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", block, at)
            if (tag, kind, count) == (_ORIENTATION, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def turn_upright(rgb: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation."""
    if orientation not in _TURNS:
        return rgb
    mirrored, quarters = _TURNS[orientation]
    return np.ascontiguousarray(np.rot90(rgb[:, ::-1] if mirrored else rgb, quarters))


def pixel_hash(rgb: Pixels) -> str:
    """Return xxh3-128 of width and height (uint32, little-endian) and the pixels, 32 hex digits."""
    height, width = rgb.shape[:2]
    digest = xxhash.xxh3_128(struct.pack("<II", width, height))
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def pdq(rgb: Pixels) -> tuple[bytes, int] | None:
    """Return the PDQ hash, 32 bytes, and its quality, 0 to 100.

    None if the smaller side is below MIN_PDQ_SIDE. Pictures with a longer side over PDQ_SIDE are
    reduced to that by averaging first, but no further than a smaller side of MIN_PDQ_SIDE.
    """
    # Here, because reading pictures, as the trainer does, needs no PDQ.
    import pdqhash

    height, width = rgb.shape[:2]
    if min(height, width) < MIN_PDQ_SIDE:
        return None
    scale = max(PDQ_SIDE / max(height, width), MIN_PDQ_SIDE / min(height, width))
    if scale < 1:
        reduced = (round(width * scale), round(height * scale))
        rgb = np.array(Image.fromarray(rgb).resize(reduced, Image.Resampling.BOX))
    bits, quality = pdqhash.compute(np.require(rgb, requirements=["C", "W"]))
    return np.packbits(bits.astype(np.uint8)).tobytes(), int(quality)


def resize(rgb: Pixels, *, width: int, height: int) -> Pixels:
    """Return the picture at a smaller size, antialiased; the same bits on any machine."""
    # To short side 256 from 500x375: Hamming 1.3 ms, bicubic 2.2 and hardly sharper.
    image = Image.fromarray(rgb)
    return np.array(image.resize((width, height), Image.Resampling.HAMMING, reducing_gap=3.0))


def encode_jpeg(rgb: Pixels, quality: int) -> bytes:
    """Return baseline JPEG with 4:2:0 colour."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality, colorsubsampling="420", fastdct=False
    )
    return data


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]
