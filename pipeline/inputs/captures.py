"""Pictures that lie in the inputs themselves: where each is, so that `download` can read it from there."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from pipeline import schemas
from pipeline.pages.urls import resolve

PICTURE_TYPES = ("application/octet-stream", "binary/octet-stream")
"""Types under which servers also send pictures, beside `image/...` and none at all."""

_HEAD_BYTES = 4096
_LENGTH_DIGITS = 10


class Capture(NamedTuple):
    """A picture in an input: in the WARC record that begins at `offset`, or a tar's member there.

    `length` bytes from there on hold it; of a compressed record, that may be more than it has.
    """

    url: str
    offset: int
    length: int
    media_type: str
    container: str


def capture_record(
    target: str | None, offset: int, headers: Mapping[str, str], media_type: str
) -> Capture | None:
    """Return the capture in a response with status 200, or None if it cannot be a picture's.

    Args:
        target: address that was asked.
        headers: the record's own, by lower-case name.
        media_type: Content-Type of the answer, "" without one.
    """
    kind = media_type.partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in PICTURE_TYPES:
        return None
    url = resolve(target or "", None).url
    announced = headers.get("content-length", "")
    if url is None or not announced.isdecimal() or len(announced) > _LENGTH_DIGITS:
        return None
    head = sum(len(name) + len(value) + 4 for name, value in headers.items())
    # What does not compress grows by 5 bytes in 16,383 at most, and a member has 18 bytes around it.
    length = (int(announced) + head) * 1001 // 1000 + _HEAD_BYTES
    return Capture(url, offset, length, kind, "warc")


def tabulate_captures(captures: Sequence[Capture], source: str) -> pa.Table:
    """Return CAPTURES."""
    columns = {
        "url": [c.url for c in captures],
        "source": [source] * len(captures),
        "source_offset": [c.offset for c in captures],
        "length": [c.length for c in captures],
        "media_type": [c.media_type for c in captures],
        "container": [c.container for c in captures],
    }
    return pa.table(columns, schema=schemas.CAPTURES)
