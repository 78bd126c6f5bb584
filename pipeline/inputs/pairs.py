"""One image reference of a crawl or table: a pair, or the reason why it is none."""

import binascii
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.inputs.boxes import Boxes
from pipeline.pages.urls import Address

Halves = npt.NDArray[np.uint64]

MAX_CAPTION_CHARACTERS = 4096
MAX_SEEN_CHARACTERS = 200


class BrokenRecord(ValueError):
    """A record or page that cannot be read; it is skipped and counted."""


class Place(NamedTuple):
    """Where images stand: what addresses are relative to, the page and the record's offset."""

    base: str | None
    page_url: str | None
    offset: int


class Reference(NamedTuple):
    """An image with a text beside it; the fields of PAIRS that the reader knows."""

    url: str
    caption: str
    caption_source: str
    page_url: str | None
    offset: int
    key: str | None = None
    blur_boxes: Boxes | None = None


class Skipped(NamedTuple):
    """A record or image that gave no pair, and what was seen there."""

    reason: str
    offset: int
    seen: str = ""
    pair_id: str | None = None


def make_reference(
    address: Address,
    caption: str | None,
    *,
    seen: str,
    caption_source: str,
    page_url: str | None,
    offset: int,
) -> Reference | Skipped:
    """Return the pair of `address` and `caption`, or why there is none.

    The caption is kept as crawled but for outer white space; what UTF-8 cannot hold and zero bytes
    become U+FFFD.

    Args:
        seen: the address as it stood there, for the drop's detail.
    """
    if address.url is None:
        return Skipped(address.problem, offset, readable(seen)[:MAX_SEEN_CHARACTERS])
    text = readable(caption).strip() if caption else ""
    if not text:
        return Skipped("no_caption", offset, address.url)
    if len(text) > MAX_CAPTION_CHARACTERS:
        pair_id = hash_pair(address.url, text)
        return Skipped("caption_too_large", offset, text[:MAX_SEEN_CHARACTERS], pair_id)
    page = readable(page_url) if page_url else None
    return Reference(address.url, text, caption_source, page, offset)


def make_references(
    address: Address, texts: Iterable[tuple[str, str | None]], place: Place, *, seen: str
) -> list[Reference | Skipped]:
    """Return a pair of `address` with each different text there is, or a drop if there is none.

    Args:
        texts: each with where it stood; equal ones count once, from the first place.
        seen: the address as it stood there, for the drop's detail.
    """
    found: dict[str, Reference | Skipped] = {}
    for source, text in texts if address.url else ():
        cleaned = (text or "").strip()
        if cleaned and readable(cleaned) not in found:
            found[readable(cleaned)] = make_reference(
                address,
                text,
                seen=seen,
                caption_source=source,
                page_url=place.page_url,
                offset=place.offset,
            )
    if found:
        return list(found.values())
    nothing = make_reference(
        address, None, seen=seen, caption_source="", page_url=None, offset=place.offset
    )
    return [nothing]


def readable(text: str) -> str:
    """Return `text` with U+FFFD for zero bytes and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\ufffd")


def hash_pair(url: str, caption: str) -> str:
    """Return the pair's id: xxh3-128 of the URL, a zero byte and the caption, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(f"{url}\0{caption}".encode())


def pair_ids(urls: Iterable[str] | pa.Array, captions: Iterable[str] | pa.Array) -> pa.Array:
    """Return the ids of pairs, a string array as long as `urls` and `captions`."""
    columns = [
        (values if isinstance(values, pa.Array) else pa.array(values, pa.string())).cast(
            pa.binary()
        )
        for values in (urls, captions)
    ]
    joined = pc.binary_join_element_wise(*columns, b"\0")
    _, ends, content = joined.buffers()
    data = memoryview(content) if content else b""
    places = np.frombuffer(ends, np.int32)[joined.offset :][: len(joined) + 1].tolist()
    hashed = b"".join([xxhash.xxh3_128_digest(data[a:b]) for a, b in pairwise(places)])
    digits = pa.py_buffer(hashed.hex().encode())
    offsets = np.arange(0, 32 * len(joined) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(joined), pa.py_buffer(offsets), digits)


def pair_id_halves(pair_ids: pa.ChunkedArray) -> tuple[Halves, Halves]:
    """Return the high and low 64 bits of pair ids given as 32 hex digits each."""
    column = pair_ids.combine_chunks() if isinstance(pair_ids, pa.ChunkedArray) else pair_ids
    digits = _characters(column) if len(column) else b""
    halves = np.frombuffer(binascii.unhexlify(digits), dtype=">u8").reshape(-1, 2)
    return halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)


def _characters(column: pa.StringArray) -> memoryview:
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]
