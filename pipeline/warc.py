"""Read WARC files record by record, and the images of their pages.

Broken records are reported and passed over: reading goes on at the next place in the file where a
record begins.
"""

import io
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

from fastwarc.stream_io import BrotliReader, ChunkedReader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecord

from pipeline.html import find_images
from pipeline.pairs import BrokenRecord, Reference, Skipped

MAX_PAGE_BYTES = 16 << 20
HTML_TYPES = ("text/html", "application/xhtml+xml")

_HEAD_BYTES = 64 << 10
_SCAN_BYTES = 1 << 20
_BROKEN_ARCHIVE = (OSError, ValueError, EOFError, RuntimeError)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"\s*HTTP/\d(?:\.\d)? +(\d{3})\b")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}[ \t]*(?:;[^\r\n]*)?\r?\n")
_LOOKS_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"',]+)", re.IGNORECASE)
_BEGINNINGS = (b"WARC/", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")


class Record(NamedTuple):
    """A WARC record: where it starts, its type such as "response", headers by lower-case name, and body.

    The body can be read until the next record is asked for.
    """

    offset: int
    kind: str
    headers: Mapping[str, str]
    body: "Body"


class Body:
    """The block of one record, read from the archive as far as asked."""

    def __init__(self, record: WarcRecord) -> None:
        """Stand at the first byte."""
        self._record = record
        self._seen = b""
        self._passed = 0
        self._is_broken = False

    def head(self) -> bytes:
        """Return the first 64 KiB, or all there is.

        Raises:
            BrokenRecord: if they cannot be read.
        """
        if not self._seen:
            self._seen = self._read(_HEAD_BYTES)
        return self._seen

    def whole(self, limit: int) -> bytes:
        """Return all bytes.

        Raises:
            BrokenRecord: if there are fewer than the record announced, or more than `limit`.
        """
        length = self._announced()
        if length > limit:
            raise BrokenRecord(f"{length} bytes, more than {limit}")
        self._seen = self.head() + self._read(length - len(self.head()))
        if len(self._seen) < length:
            raise BrokenRecord(f"{len(self._seen)} of {length} bytes")
        return self._seen

    def pass_over(self) -> None:
        """Skip all bytes of a record whose content does not matter.

        Raises:
            BrokenRecord: if there are fewer than the record announced.
        """
        if not self.is_whole():
            raise BrokenRecord("fewer bytes than announced")

    def is_whole(self) -> bool:
        """Skip what is left; return whether all that the record announced was there."""
        try:
            length = self._announced()
            self._passed += self._record.consume()
        except _BROKEN_ARCHIVE as error:
            _raise_if_of_the_disk(error)
            self._is_broken = True
        return not self._is_broken and len(self._seen) + self._passed >= length

    def _announced(self) -> int:
        announced = self._record.headers.get("Content-Length")
        if announced is None or not announced.strip().isdecimal():
            raise BrokenRecord("no Content-Length")
        return int(announced)

    def _read(self, count: int) -> bytes:
        pieces = []
        try:
            while count > 0 and (piece := self._record.reader.read(min(count, _SCAN_BYTES))):
                pieces.append(piece)
                count -= len(piece)
        except _BROKEN_ARCHIVE as error:
            _raise_if_of_the_disk(error)
            self._is_broken = True
            raise BrokenRecord(str(error)) from error
        return b"".join(pieces)


def read_records(file: BinaryIO) -> Iterator[Record | Skipped]:
    """Yield the records of an archive (plain, gzip or zstd), "broken_record" for what is none.

    Behind a record that has fewer bytes than it announced, and behind what cannot be read, reading
    goes on where the next record begins.
    """
    start: int | None = 0
    unread = ""
    while start is not None:
        last, is_first = start, True
        file.seek(start)
        try:
            for record in ArchiveIterator(file, parse_http=False):
                if unread:
                    yield Skipped("broken_record", last, f"unreadable before here: {unread}")
                    unread = ""
                last, is_first = max(start, record.stream_pos), False
                headers = {name.lower(): value for name, value in record.headers.items()}
                body = Body(record)
                yield Record(last, headers.get("warc-type", "").lower(), headers, body)
                if not body.is_whole():
                    break
            else:
                break
        except _BROKEN_ARCHIVE as error:
            _raise_if_of_the_disk(error)
            unread = str(error)
            # After a good record, what is broken begins somewhere behind it.
            if is_first:
                yield Skipped("broken_record", last, unread)
                unread = ""
        start = find_record(file, last + 1)
    if unread:
        yield Skipped("broken_record", last, f"unreadable behind here: {unread}")


def _raise_if_of_the_disk(error: Exception) -> None:
    # Only the system's own errors carry a number; those of content do not.
    if isinstance(error, OSError) and error.errno:
        raise error


def find_record(file: BinaryIO, start: int) -> int | None:
    """Return the first offset from `start` on where a record or a compressed member of one begins."""
    overlap = max(map(len, _BEGINNINGS)) - 1
    file.seek(start)
    kept = b""
    while piece := file.read(_SCAN_BYTES):
        window = kept + piece
        places = re.finditer(b"|".join(map(re.escape, _BEGINNINGS)), window)
        for place in places:
            offset = start + place.start()
            here = file.tell()
            file.seek(offset)
            if _begins_record(file.read(_HEAD_BYTES)):
                return offset
            file.seek(here)
        kept = window[-overlap:]
        start += len(window) - len(kept)
    return None


def _begins_record(head: bytes) -> bool:
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 16)
        except zlib.error:
            return False
    elif head.startswith(_BEGINNINGS[2]):
        try:
            head = ZstdReader(io.BytesIO(head)).read(16)
        except _BROKEN_ARCHIVE:
            return False
    return head.startswith(b"WARC/")


def read_pages(file: BinaryIO) -> Iterator[Reference | Skipped]:
    """Yield the image references of the HTML pages of a crawl, and a drop for each record that is none.

    `response` and `resource` records count; requests, metadata and the like are no rows.
    """
    for record in read_records(file):
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            yield from _images_of(record)
        except _BROKEN_ARCHIVE as error:
            _raise_if_of_the_disk(error)
            yield Skipped("broken_record", record.offset, str(error))


def _images_of(record: Record) -> Iterator[Reference | Skipped]:
    if not record.kind:
        raise BrokenRecord("no WARC-Type")
    if record.kind not in ("response", "resource"):
        record.body.pass_over()
        return
    http, payload_start = parse_http(record)
    if http.status != 200:
        yield Skipped("http_error", record.offset, f"status {http.status}")
        return
    if not is_html(http.headers, record, payload_start):
        kind = http.headers.get("content-type", "no Content-Type")
        yield Skipped("not_html", record.offset, kind[:100])
        return
    block = record.body.whole(MAX_PAGE_BYTES)
    yield from find_images(
        decode_payload(block[payload_start:], http.headers),
        page_url=page_url_of(record.headers.get("warc-target-uri")),
        charset=charset_of(http.headers.get("content-type")),
        offset=record.offset,
    )


class HttpHead(NamedTuple):
    """Status and headers, by lower-case name, of a response."""

    status: int
    headers: Mapping[str, str]


def parse_http(record: Record) -> tuple[HttpHead, int]:
    """Return the HTTP head of a record and where its payload begins in the body.

    A record that is no HTTP message, as of DNS, is taken as a good answer of its own Content-Type.

    Raises:
        BrokenRecord: if it says to be HTTP and is not.
    """
    own_type = record.headers.get("content-type", "")
    if not own_type.lower().startswith("application/http"):
        return HttpHead(200, {"content-type": own_type}), 0
    head = record.body.head()
    status = _STATUS_LINE.match(head)
    if not status:
        raise BrokenRecord("no HTTP status line")
    end = _BLANK_LINE.search(head)
    if not end:
        raise BrokenRecord("no end of the HTTP headers")
    headers: dict[str, str] = {}
    for line in head[: end.start()].split(b"\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return HttpHead(int(status[1]), headers), end.end()


def is_html(headers: Mapping[str, str], record: Record, payload_start: int) -> bool:
    """Return whether the Content-Type says HTML, or, where there is none, the payload's beginning does."""
    kind = headers.get("content-type") or record.headers.get("warc-identified-payload-type") or ""
    if kind:
        return kind.partition(";")[0].strip().lower() in HTML_TYPES
    return bool(_LOOKS_HTML.search(record.body.head()[payload_start:][:1024]))


def page_url_of(target: str | None) -> str | None:
    """Return the URL of a page from a WARC-Target-URI, which old writers put in angle brackets."""
    return (target or "").strip().removeprefix("<").removesuffix(">") or None


def charset_of(content_type: str | None) -> str | None:
    """Return the charset parameter of a Content-Type."""
    found = _CHARSET.search(content_type or "")
    return found[1] if found else None


def decode_payload(payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Undo transfer and content encoding where they are really there: many crawlers undo them first.

    Raises:
        BrokenRecord: if the payload cannot be decoded, or is larger than MAX_PAGE_BYTES then.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower() and _CHUNK_SIZE.match(payload):
        payload = _bounded(ChunkedReader(io.BytesIO(payload)))
    encodings = headers.get("content-encoding", "").lower().replace(" ", "").split(",")
    for encoding in reversed(encodings):
        if encoding in ("gzip", "x-gzip") and payload.startswith(b"\x1f\x8b"):
            payload = _inflate(payload, zlib.MAX_WBITS | 16)
        elif encoding == "deflate" and not _LOOKS_HTML.search(payload[:1024]):
            zlib_header = payload[:1] == b"\x78"
            payload = _inflate(payload, zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
        elif encoding == "br" and not _LOOKS_HTML.search(payload[:1024]):
            payload = _bounded(BrotliReader(io.BytesIO(payload)))
        elif encoding == "zstd" and payload.startswith(_BEGINNINGS[2]):
            payload = _bounded(ZstdReader(io.BytesIO(payload)))
    return payload


def _inflate(payload: bytes, window: int) -> bytes:
    inflater = zlib.decompressobj(window)
    try:
        text = inflater.decompress(payload, MAX_PAGE_BYTES)
    except zlib.error as error:
        raise BrokenRecord(str(error)) from error
    if inflater.unconsumed_tail:
        raise BrokenRecord(f"more than {MAX_PAGE_BYTES} bytes when decompressed")
    return text


def _bounded(reader: ChunkedReader | BrotliReader | ZstdReader) -> bytes:
    pieces, size = [], 0
    while piece := reader.read(_SCAN_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_PAGE_BYTES:
            raise BrokenRecord(f"more than {MAX_PAGE_BYTES} bytes when decompressed")
    return b"".join(pieces)
