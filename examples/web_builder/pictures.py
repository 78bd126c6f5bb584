"""Write pictures so that the same pixels give the same bytes, whatever the processor.

PNG goes through Python's own zlib: the one in Pillow's wheels may choose differently from one
processor to the next. JPEG and WebP come from Pillow, whose version `build_web.py` pins.
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CHANNELS = {"L": (1, 0), "P": (1, 3), "RGB": (3, 2), "RGBA": (4, 6)}
"""Pillow's mode to bytes a pixel and PNG's colour type."""


def png(image: Image.Image, *, level: int = 9) -> bytes:
    """Return `image`, of mode L, P, RGB or RGBA, as PNG, with the filter that packs it best."""
    width, height = image.size
    channels, kind = CHANNELS[image.mode]
    rows = np.asarray(image).reshape(height, width * channels)
    packed = min((zlib.compress(f, level) for f in _filtered(rows, channels)), key=len)
    parts = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if image.mode == "P":
        parts.append(_chunk(b"PLTE", bytes(image.getpalette() or [])))
    parts += [_chunk(b"IDAT", packed), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def one_colour_png(side: int) -> bytes:
    """Return a black PNG of `side` x `side` pixels, at one bit each: a decompression bomb."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _filtered(rows: NDArray[np.uint8], channels: int) -> Iterator[bytes]:
    raw = rows.astype(np.int16)
    left = np.pad(raw, ((0, 0), (channels, 0)))[:, : raw.shape[1]]
    above = np.pad(raw, ((1, 0), (0, 0)))[:-1]
    guesses = (np.zeros_like(raw), left, above, (left + above) // 2)
    for number, predicted in enumerate(guesses):
        rest = ((raw - predicted) % 256).astype(np.uint8)
        yield np.pad(rest, ((0, 0), (1, 0)), constant_values=number).tobytes()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def on_white(image: Image.Image, side: int) -> Image.Image:
    """Return `image` as RGB over white, shrunk to fit `side` x `side`."""
    shrunk = image.convert("RGBA")
    shrunk.thumbnail((side, side), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", shrunk.size, "white")
    return Image.alpha_composite(white, shrunk).convert("RGB")


def few_colours(image: Image.Image, colours: int = 64) -> Image.Image:
    """Return an RGB `image` reduced to a palette, as web graphics are."""
    return image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def jpeg(image: Image.Image, quality: int = 82, **options: object) -> bytes:
    """Return `image` as JPEG."""
    return _saved(image, "JPEG", quality=quality, optimize=True, **options)


def lossless_webp(image: Image.Image) -> bytes:
    """Return `image` as WebP with every pixel kept."""
    return _saved(image.convert("RGB"), "WEBP", lossless=True, exact=True, quality=100, method=4)


def saved(image: Image.Image, kind: str) -> bytes:
    """Return `image` as Pillow writes a file of `kind`, such as BMP, GIF or TIFF."""
    return _saved(image, kind)


def opened(data: bytes) -> Image.Image:
    """Return the picture that `data` is the file of."""
    return Image.open(io.BytesIO(data))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()
