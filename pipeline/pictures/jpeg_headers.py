"""The segments of a JPEG file: EXIF orientation, colour profile, and how many scans it has."""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

MAX_SEGMENTS = 1000
"""A file with a profile of the largest size has about a hundred."""

_EXIF = b"Exif\0\0"
_PROFILE = b"ICC_PROFILE\0"
_MORE_PICTURES = b"MPF\0"
_APP1, _APP2, _START_OF_SCAN, _END_OF_IMAGE = 0xE1, 0xE2, 0xDA, 0xD9
_SEQUENTIAL = (0xC0, 0xC1)
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_ORIENTATION = 0x0112


class Blocks(NamedTuple):
    """The blocks found; empty where there is none, or a broken one.

    Attributes:
        names_more_pictures: whether an index lists further ones behind the first, as in MPO.
        is_one_scan: whether the first scan is the whole picture, so that decoders refuse a second.
    """

    exif: bytes
    profile: bytes
    names_more_pictures: bool
    is_one_scan: bool = False


def read_blocks(data: bytes) -> Blocks:
    """Return what is known before the first scan; at most MAX_SEGMENTS segments are read."""
    exif = colours = b""
    chunks: dict[int, bytes] = {}
    names_more_pictures = is_one_scan = False
    for marker, start, end in islice(_segments(data), MAX_SEGMENTS):
        if marker == _START_OF_SCAN:
            is_one_scan = bool(colours) and data[start : start + 1] == colours
            break
        if marker in _SEQUENTIAL:
            colours = data[start + 5 : start + 6]
        elif marker == _APP1 and not exif and data.startswith(_EXIF, start):
            exif = data[start:end]
        elif marker == _APP2 and data.startswith(_PROFILE, start) and end - start >= 14:
            chunks[data[start + 12]] = data[start + 14 : end]
        elif marker == _APP2 and data.startswith(_MORE_PICTURES, start):
            names_more_pictures = True
    profile = b"".join(chunks[number] for number in sorted(chunks))
    return Blocks(exif, profile, names_more_pictures, is_one_scan)


def has_more_scans(data: bytes, most: int) -> bool:
    """Return whether the picture has more than `most` scans, whatever stands in its blocks or behind it."""
    scans = (marker for marker, _, _ in _segments(data) if marker == _START_OF_SCAN)
    return any(islice(scans, most, None))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Give marker, start and end of each segment up to the end of the picture."""
    at = 2
    while found := _SEGMENT.search(data, at):
        start = found.end()
        marker, length = data[start - 1], int.from_bytes(data[start : start + 2], "big")
        if marker == _END_OF_IMAGE or start + 2 > len(data):
            return
        at = min(start + max(length, 2), len(data))
        yield marker, start + 2, at


def exif_orientation(exif: bytes) -> int:
    """Return the orientation an EXIF block asks for, 1 to 8; 1 (upright) where it is broken."""
    block = exif.removeprefix(_EXIF)
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
