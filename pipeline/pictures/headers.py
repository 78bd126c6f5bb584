"""Format and size of a stored picture, from its header: nothing is decoded."""

import struct
from typing import NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_NO_FRAMES = (0xC4, 0xC8, 0xCC)


class Header(NamedTuple):
    """What a stored picture says of itself; width and height in pixels."""

    extension: str
    width: int
    height: int


def read_header(image: bytes) -> Header | None:
    """Return what the header of a JPEG, PNG or WebP says, None for anything else."""
    try:
        if image.startswith(_JPEG):
            return _jpeg(image)
        if image.startswith(_PNG) and image[12:16] == b"IHDR":
            return Header("png", *struct.unpack_from(">II", image, 16))
        if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
            return _webp(image)
    except (struct.error, IndexError):
        # Cut short within the header.
        return None
    return None


def _jpeg(image: bytes) -> Header | None:
    place = 2
    while image[place] == 0xFF:
        marker = image[place + 1]
        if marker == 0xFF:
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            height, width = struct.unpack_from(">HH", image, place + 5)
            return Header("jpg", width, height)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", image, place + 2)[0]
    return None


def _webp(image: bytes) -> Header | None:
    kind = image[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", image, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", image, 21)[0]
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        width = int.from_bytes(image[24:27], "little") + 1
        height = int.from_bytes(image[27:30], "little") + 1
        return Header("webp", width, height)
    return None
