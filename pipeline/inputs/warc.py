"""Read WARC files record by record.

Broken records are reported and passed over: reading goes on at the next place in the file where a
record begins.
"""

import io
import re
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import BinaryIO, cast

from fastwarc.stream_io import ZstdReader
from fastwarc.warc import ArchiveIterator, WarcHeader, WarcRecord

from pipeline.inputs.pairs import BrokenRecord, Skipped

_HEAD_BYTES = 64 << 10
_SCAN_BYTES = 1 << 20
_FIRST_SCAN_BYTES = 16 << 10
_REREADS = 4
_MOST_DIGITS = 18
BROKEN_ARCHIVE = (OSError, ValueError, EOFError, RuntimeError)
_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_BEGINNING = re.compile(rb"WARC/|\x1f\x8b\x08[\x00-\x1f]|\x28\xb5\x2f\xfd")
_MOST_BEGINNING_BYTES = 5
# By first byte, how much is looked at: a gzip member's code tables end before 512 bytes.
_BEGINNING_BYTES = {ord("W"): 5, 0x1F: 512, 0x28: _HEAD_BYTES}


class Record:
    """A WARC record: where it starts, its type such as "response", and its body.

    The body can be read until the next record is asked for.
    """

    def __init__(self, record: WarcRecord, offset: int) -> None:
        """Look at a record that begins at `offset`."""
        self._record = record
        self.offset = offset
        self.kind = (record.headers.get(WarcHeader.WARC_TYPE) or "").lower()
        self.body = Body(record)

    @property
    def media_type(self) -> str:
        """The record's own Content-Type, empty without one."""
        return self._record.headers.get(WarcHeader.CONTENT_TYPE) or ""

    @property
    def is_json(self) -> bool:
        """Whether the Content-Type is JSON."""
        return self.media_type.lower().startswith("application/json")

    @property
    def target(self) -> str | None:
        """The address that the record is about."""
        # Old writers put it in angle brackets.
        target = (self._record.headers.get(WarcHeader.WARC_TARGET_URI) or "").strip()
        return target.removeprefix("<").removesuffix(">") or None

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The record's own headers by lower-case name."""
        return {name.lower(): value for name, value in self._record.headers.items()}


class Body:
    """The block of one record, read from the archive as far as asked."""

    def __init__(self, record: WarcRecord) -> None:
        """Stand at the first byte."""
        self._record = record
        self._seen = b""
        self._passed = 0
        self._is_broken = False

    def head(self) -> bytes:
        """Return at least the first 64 KiB, or all there is.

        Raises:
            BrokenRecord: if they cannot be read.
        """
        if not self._seen:
            # What is small is read at once: joining costs more than reading it for nothing.
            is_small = self._announced <= _SCAN_BYTES
            self._seen = self._read(_SCAN_BYTES if is_small else _HEAD_BYTES)
        return self._seen

    def whole(self, limit: int) -> bytes:
        """Return all bytes.

        Raises:
            BrokenRecord: if there are fewer than the record announced, or more than `limit`.
        """
        length = self._announced
        if length > limit:
            raise BrokenRecord(f"{length} bytes, more than {limit}")
        if len(self.head()) < length:
            self._seen += self._read(length - len(self._seen))
        if len(self._seen) < length:
            raise BrokenRecord(f"{len(self._seen)} of {length} bytes")
        return self._seen

    def pass_over(self) -> None:
        """Skip all bytes of a record whose content does not matter.

        Raises:
            BrokenRecord: if there are fewer than the record announced.
        """
        if not self.is_whole:
            raise BrokenRecord(f"{len(self._seen) + self._passed} of {self._announced} bytes")

    @cached_property
    def is_whole(self) -> bool:
        """Whether all that the record announced was there; asking skips what is left."""
        try:
            length = self._announced
            self._passed = self._record.consume()
        except BROKEN_ARCHIVE as error:
            raise_if_of_the_disk(error)
            return False
        return not self._is_broken and len(self._seen) + self._passed >= length

    @cached_property
    def _announced(self) -> int:
        announced = (self._record.headers.get(WarcHeader.CONTENT_LENGTH) or "").strip()
        if not announced.isdecimal() or len(announced) > _MOST_DIGITS:
            raise BrokenRecord("no Content-Length")
        return int(announced)

    def _read(self, count: int) -> bytes:
        pieces = []
        try:
            while count > 0 and (piece := self._record.reader.read(min(count, _SCAN_BYTES))):
                pieces.append(piece)
                count -= len(piece)
        except BROKEN_ARCHIVE as error:
            raise_if_of_the_disk(error)
            self._is_broken = True
            raise BrokenRecord(str(error)) from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_records(file: BinaryIO) -> Iterator[Record | Skipped]:
    """Yield the records of an archive (plain, gzip or zstd), "broken_record" for what is none.

    Behind a record that has fewer bytes than it announced, and behind what cannot be read, reading
    goes on where the next record begins. That reads bytes again; once they are four times those read
    so far, a record has to end where the next seems to begin, even if that is part of its content.
    """
    start: int | None = 0
    unread = ""
    furthest, again = 0, 0
    while start is not None:
        last, is_first = start, True
        is_bounded = again > _SCAN_BYTES + _REREADS * furthest
        end = find_record(file, start + 1) if is_bounded else None
        file.seek(start)
        part = file if end is None else cast("BinaryIO", _Beginning(file, end))
        try:
            for record in ArchiveIterator(part, parse_http=False):
                if unread:
                    yield Skipped("broken_record", last, f"unreadable before here: {unread}")
                    unread = ""
                last, is_first = max(start, record.stream_pos), False
                found = Record(record, last)
                yield found
                if not found.body.is_whole:
                    break
            else:
                if end is None:
                    break
        except BROKEN_ARCHIVE as error:
            raise_if_of_the_disk(error)
            unread = str(error)
            # After a good record, what is broken begins somewhere behind it.
            if is_first:
                yield Skipped("broken_record", last, unread)
                unread = ""
        reached = file.tell()
        furthest = max(furthest, reached)
        if end is None:
            again += reached - last
        start = end or find_record(file, last + 1)
    if unread:
        yield Skipped("broken_record", last, f"unreadable behind here: {unread}")


class _Beginning(io.RawIOBase):
    """A file that seems to end at `end`."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file = file
        self._end = end

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._end - self._file.tell())
        return self._file.read(min(size, left) if size >= 0 else left)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(place, whence)


def raise_if_of_the_disk(error: Exception) -> None:
    """Raise an error of the system; return for those of content."""
    # Only the system's own errors carry a number; those of content do not.
    if isinstance(error, OSError) and error.errno:
        raise error


def find_record(file: BinaryIO, start: int) -> int | None:
    """Return the first offset from `start` on where a record or a compressed member of one begins."""
    file.seek(max(0, start - 1))
    # What does not compress is stored as it is: behind the head of a member, "WARC/" is part of it.
    is_compressed = bool(start) and file.read(4).startswith((_GZIP, _ZSTD))
    file.seek(start)
    kept, size = b"", _FIRST_SCAN_BYTES
    while piece := file.read(size):
        window = kept + piece
        for place in _BEGINNING.finditer(window):
            first = place.start()
            if is_compressed and place[0] == b"WARC/":
                continue
            wanted = _BEGINNING_BYTES[window[first]]
            head = window[first : first + wanted]
            if len(head) < wanted:
                here = file.tell()
                file.seek(start + first)
                head = file.read(wanted)
                file.seek(here)
            if _begins_record(head):
                return start + first
        kept = window[1 - _MOST_BEGINNING_BYTES :]
        start += len(window) - len(kept)
        size = min(2 * size, _SCAN_BYTES)
    return None


def _begins_record(head: bytes) -> bool:
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 16)
        except zlib.error:
            return False
    elif head.startswith(_ZSTD):
        try:
            head = ZstdReader(io.BytesIO(head)).read(16)
        except BROKEN_ARCHIVE:
            return False
    return head.startswith(b"WARC/")
