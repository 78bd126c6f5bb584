"""Read the HTTP message in a record: status, headers, and the payload without its encodings."""

import io
import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from fastwarc.stream_io import BrotliReader, ChunkedReader, ZstdReader

from pipeline.inputs.pairs import BrokenRecord
from pipeline.inputs.warc import Record

Content = bytes | memoryview
MAX_PAGE_BYTES = 16 << 20
HTML_TYPES = ("text/html", "application/xhtml+xml")

_SCAN_BYTES = 1 << 20
_INFLATE_BYTES = 16 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_STATUS_LINE = re.compile(rb"\s*HTTP/\d(?:\.\d)? +(\d{3})\b")
_INITIALS = (b"C", b"c", b"T", b"t")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}[ \t]*(?:;[^\r\n]*)?\r?\n")
_LOOKS_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"',]+)", re.IGNORECASE)


class HttpHead(NamedTuple):
    """Status of a response, and by lower-case name its headers on content and transfer."""

    status: int
    headers: Mapping[str, str]


def parse_http(record: Record) -> tuple[HttpHead, int]:
    """Return the HTTP head of a record and where its payload begins in the body.

    A record that is no HTTP message, as of DNS, is taken as a good answer of its own Content-Type.

    Raises:
        BrokenRecord: if it says to be HTTP and is not.
    """
    own_type = record.media_type
    if not own_type.lower().startswith("application/http"):
        return HttpHead(200, {"content-type": own_type}), 0
    head = record.body.head()
    status = _STATUS_LINE.match(head)
    if not status:
        raise BrokenRecord("no HTTP status line")
    end, payload_start = _find_blank_line(head)
    headers: dict[str, str] = {}
    for line in head[:end].split(b"\n")[1:]:
        if line[:1] in _INITIALS:
            name, _, value = line.decode("latin-1").partition(":")
            headers.setdefault(name.strip().lower(), value.strip())
    return HttpHead(int(status[1]), headers), payload_start


def _find_blank_line(head: bytes) -> tuple[int, int]:
    end = head.find(b"\n\r\n")
    bare = head.find(b"\n\n", 0, end if end >= 0 else len(head))
    if bare >= 0:
        return bare, bare + 2
    if end >= 0:
        return end, end + 3
    raise BrokenRecord("no end of the HTTP headers")


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


def decode_payload(payload: Content, headers: Mapping[str, str]) -> Content:
    """Undo transfer and content encoding where they are really there: many crawlers undo them first.

    Raises:
        BrokenRecord: if the payload cannot be decoded, or is larger than MAX_PAGE_BYTES then.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower() and _CHUNK_SIZE.match(payload):
        payload = _bounded(ChunkedReader(io.BytesIO(payload)))
    encodings = headers.get("content-encoding", "").lower().replace(" ", "").split(",")
    for encoding in reversed(encodings):
        if encoding in ("gzip", "x-gzip") and payload[:2] == _GZIP:
            payload = _inflate(payload, zlib.MAX_WBITS | 16)
        elif encoding == "deflate" and not _LOOKS_HTML.search(payload[:1024]):
            zlib_header = payload[:1] == b"\x78"
            payload = _inflate(payload, zlib.MAX_WBITS if zlib_header else -zlib.MAX_WBITS)
        elif encoding == "br" and not _LOOKS_HTML.search(payload[:1024]):
            payload = _bounded(BrotliReader(io.BytesIO(payload)))
        elif encoding == "zstd" and payload[:4] == _ZSTD:
            payload = _bounded(ZstdReader(io.BytesIO(payload)))
    return payload


def _inflate(payload: Content, window: int) -> bytes:
    # In pieces, as what follows a member is copied: of many small ones, all the rest each time.
    view, place, size = memoryview(payload), 0, 0
    texts: list[bytes] = []
    try:
        while not texts or (window > zlib.MAX_WBITS and view[place : place + 2] == _GZIP):
            inflater = zlib.decompressobj(window)
            while not inflater.eof:
                piece = view[place : place + _INFLATE_BYTES]
                if not piece:
                    raise BrokenRecord("the compressed payload is cut")
                texts.append(inflater.decompress(piece, MAX_PAGE_BYTES - size + 1))
                place += len(piece) - len(inflater.unused_data)
                size += len(texts[-1])
                if size > MAX_PAGE_BYTES:
                    raise BrokenRecord(f"more than {MAX_PAGE_BYTES} bytes when decompressed")
    except zlib.error as error:
        raise BrokenRecord(str(error)) from error
    return texts[0] if len(texts) == 1 else b"".join(texts)


def _bounded(reader: ChunkedReader | BrotliReader | ZstdReader) -> bytes:
    pieces, size = [], 0
    while piece := reader.read(_SCAN_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_PAGE_BYTES:
            raise BrokenRecord(f"more than {MAX_PAGE_BYTES} bytes when decompressed")
    return b"".join(pieces)
