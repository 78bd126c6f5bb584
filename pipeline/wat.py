"""Read the images that WAT files list: Common Crawl's JSON metadata, a fiftieth of the pages' size.

An entry of `Links` with the path `IMG@/src` is an image; it has the address as written and the
alternative text. A page's other addresses of the same image are not there.
"""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from pipeline.html import LAZY_ATTRIBUTES, choose_base
from pipeline.pairs import BrokenRecord, Reference, Skipped, make_reference
from pipeline.urls import resolve
from pipeline.warc import Record, page_url_of, read_records

MAX_METADATA_BYTES = 64 << 20
IMAGE_PATHS = frozenset(f"IMG@/{name}" for name in ("src", *LAZY_ATTRIBUTES))


def read_metadata(file: BinaryIO) -> Iterator[Reference | Skipped]:
    """Yield the image references of the pages a WAT file describes, and a drop for each that gave none.

    Metadata of requests and of other metadata are no rows.
    """
    for record in read_records(file):
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            yield from _images_of(record)
        except (BrokenRecord, OSError) as error:
            yield Skipped("broken_record", record.offset, str(error))


def _images_of(record: Record) -> Iterator[Reference | Skipped]:
    if record.kind != "metadata" or not is_json(record):
        record.body.pass_over()
        return
    envelope = _inside(_parse(record.body.whole(MAX_METADATA_BYTES)), "Envelope")
    if not envelope:
        raise BrokenRecord("no Envelope")
    payload = _inside(envelope, "Payload-Metadata")
    response = payload.get("HTTP-Response-Metadata")
    if not isinstance(response, dict):
        return
    status = _inside(response, "Response-Message").get("Status")
    if str(status) != "200":
        yield Skipped("http_error", record.offset, f"status {status}")
    elif not isinstance(response.get("HTML-Metadata"), dict):
        kind = _inside(response, "Headers").get("Content-Type", "no HTML-Metadata")
        yield Skipped("not_html", record.offset, str(kind)[:100])
    else:
        target = _inside(envelope, "WARC-Header-Metadata").get("WARC-Target-URI")
        page_url = page_url_of(target if isinstance(target, str) else None)
        yield from find_listed_images(response["HTML-Metadata"], page_url, record.offset)


def find_listed_images(
    page: dict[str, Any], page_url: str | None, offset: int
) -> Iterator[Reference | Skipped]:
    """Yield one pair or drop per image of a page's `HTML-Metadata`, in its order."""
    href = _inside(page, "Head").get("Base")
    base = choose_base(href if isinstance(href, str) else None, page_url)
    links = page.get("Links")
    for link in links if isinstance(links, list) else []:
        path = link.get("path") if isinstance(link, dict) else None
        if not isinstance(path, str) or path not in IMAGE_PATHS:
            continue
        url, alt = link.get("url"), link.get("alt")
        written = url if isinstance(url, str) else ""
        yield make_reference(
            resolve(written, base),
            alt if isinstance(alt, str) else None,
            seen=written,
            caption_source="alt",
            page_url=page_url,
            offset=offset,
        )


def is_json(record: Record) -> bool:
    """Return whether the record's own Content-Type is JSON."""
    return record.headers.get("content-type", "").lower().startswith("application/json")


def _parse(block: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(block)
    except orjson.JSONDecodeError:
        value = _parse_leniently(block)
    return value if isinstance(value, dict) else {}


def _parse_leniently(block: bytes) -> Any:
    # orjson refuses lone surrogates, which pages do contain; the standard parser keeps them.
    try:
        return json.loads(block.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise BrokenRecord(f"JSON: {error}") from error


def _inside(values: dict[str, Any], key: str) -> dict[str, Any]:
    inner = values.get(key)
    return inner if isinstance(inner, dict) else {}
