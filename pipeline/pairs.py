"""One image reference of a crawl or table: a pair, or the reason why it is none."""

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import xxhash

from pipeline.urls import Address

MAX_CAPTION_CHARACTERS = 4096
_SEEN_CHARACTERS = 200


class BrokenRecord(ValueError):
    """A record or page that cannot be read; it is skipped and counted."""


class Reference(NamedTuple):
    """An image with a text beside it; the fields of PAIRS that the reader knows."""

    url: str
    caption: str
    caption_source: str
    page_url: str | None
    offset: int


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
        return Skipped(address.problem, offset, readable(seen)[:_SEEN_CHARACTERS])
    text = readable(caption).strip() if caption else ""
    if not text:
        return Skipped("no_caption", offset, address.url)
    if len(text) > MAX_CAPTION_CHARACTERS:
        pair_id = hash_pair(address.url, text)
        return Skipped("caption_too_large", offset, text[:_SEEN_CHARACTERS], pair_id)
    page = readable(page_url) if page_url else None
    return Reference(address.url, text, caption_source, page, offset)


def readable(text: str) -> str:
    """Return `text` with U+FFFD for zero bytes and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "\ufffd")


def hash_pair(url: str, caption: str) -> str:
    """Return the pair's id: xxh3-128 of the URL, a zero byte and the caption, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(f"{url}\0{caption}".encode())


def pair_ids(urls: Iterable[str], captions: Iterable[str]) -> pa.Array:
    """Return the ids of pairs, a string array as long as `urls` and `captions`."""
    return pa.array([hash_pair(*pair) for pair in zip(urls, captions, strict=True)], pa.string())
