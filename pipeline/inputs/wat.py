"""Read the images that WAT files list: Common Crawl's JSON metadata, a fiftieth of the pages' size.

An entry of `Links` with the path `IMG@/src` is an image; it has the address as written, the alternative
text and the title. `Head.Metas` has Open Graph's tags. A page's other addresses of the same image, its
pictures' sources and its figures' captions are not there.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from pipeline.inputs.pairs import BrokenRecord, Place, Skipped
from pipeline.inputs.responses import page_url_of
from pipeline.inputs.warc import Record
from pipeline.pages.html import check_counts, choose_base, refer_image
from pipeline.pages.html_kernels import BASE_END, BASE_START, DOUBT, FULL, IMAGES, METAS
from pipeline.pages.json_kernels import (
    HAS_ENVELOPE,
    HAS_HTML,
    HAS_RESPONSE,
    LISTED_SIZE,
    MEDIA_TYPE,
    SEEN,
    STATUS,
    TARGET,
    scan_list,
)
from pipeline.pages.open_graph import refer_open_graph
from pipeline.pages.page_rows import PageRows
from pipeline.pages.scans import Scan
from pipeline.pages.tags import ADDRESS_ATTRIBUTES

MAX_METADATA_BYTES = 64 << 20

_HEAD_BYTES = 2048
_OF_REQUEST, _OF_METADATA = b'"HTTP-Request-Metadata":{', b'"WARC-Metadata-Metadata":{'
_PATHS = {f"IMG@/{name}": name for name in ADDRESS_ATTRIBUTES}


class ListReader:
    """Adds the rows of the pages that a WAT file describes, one record after the other."""

    def __init__(self, rows: PageRows) -> None:
        """Write to `rows`."""
        self._rows = rows
        self._scan = Scan(rows)
        self._found = np.zeros(LISTED_SIZE, np.int64)

    def add_record(self, record: Record) -> None:
        """Add the rows of the metadata of a response; other metadata has none.

        Raises:
            BrokenRecord: if the record cannot be read.
        """
        if record.kind != "metadata" or not record.is_json:
            record.body.pass_over()
            return
        block = record.body.whole(MAX_METADATA_BYTES)
        # Two records in three are of a request or of metadata; a quote within a string is escaped.
        if (
            block.find(_OF_REQUEST, 0, _HEAD_BYTES) >= 0
            or block.find(_OF_METADATA, 0, _HEAD_BYTES) >= 0
        ):
            return
        scan = self._scan
        scan.load(block)
        scan_list(scan.page, len(block), scan.images, scan.metas, self._found)
        found = self._found.tolist()
        if found[DOUBT] or found[FULL]:
            self._rows.add(find_listed(block, record.offset))
        elif not found[SEEN] & HAS_ENVELOPE:
            raise BrokenRecord("no Envelope")
        elif found[SEEN] & HAS_RESPONSE:
            self._add_response(block, found, record.offset)

    def _add_response(self, block: bytes, found: list[int], offset: int) -> None:
        def read(start: int, end: int) -> str:
            return _unescape(block[start:end]) if start >= 0 else ""

        status = read(found[STATUS], found[STATUS + 1])
        if status != "200":
            self._rows.add([Skipped("http_error", offset, f"status {status or None}")])
        elif not found[SEEN] & HAS_HTML:
            kind = read(found[MEDIA_TYPE], found[MEDIA_TYPE + 1]) or "no HTML-Metadata"
            self._rows.add([Skipped("not_html", offset, kind[:100])])
        elif found[IMAGES] or found[METAS]:
            page_url = page_url_of(read(found[TARGET], found[TARGET + 1]))
            base = choose_base(read(found[BASE_START], found[BASE_END]), page_url)
            place = Place(base, page_url, offset)
            self._scan.add_rows(
                (found[IMAGES], found[METAS]),
                place,
                read=read,
                refer=lambda attributes, _: refer_image(attributes, place),
                is_json=True,
            )


def find_listed(block: bytes, offset: int) -> Iterator[Any]:
    """Yield the pairs and drops of one metadata record: the exact way, for JSON of any shape.

    Raises:
        BrokenRecord: if it is no JSON, has no envelope or too many images.
    """
    envelope = _inside(_parse(block), "Envelope")
    if envelope is None:
        raise BrokenRecord("no Envelope")
    response = _inside(_inside(envelope, "Payload-Metadata"), "HTTP-Response-Metadata")
    if response is None:
        return
    status = (_inside(response, "Response-Message") or {}).get("Status")
    html = _inside(response, "HTML-Metadata")
    if str(status) != "200":
        yield Skipped("http_error", offset, f"status {status}")
    elif html is None:
        kind = _text((_inside(response, "Headers") or {}).get("Content-Type"))
        yield Skipped("not_html", offset, (kind or "no HTML-Metadata")[:100])
    else:
        target = (_inside(envelope, "WARC-Header-Metadata") or {}).get("WARC-Target-URI")
        yield from _rows_of(html, page_url_of(_text(target)), offset)


def _rows_of(html: Mapping[str, Any], page_url: str | None, offset: int) -> Iterator[Any]:
    head = _inside(html, "Head") or {}
    place = Place(choose_base(_text(head.get("Base")), page_url), page_url, offset)
    images = [
        {_PATHS[link["path"]]: _text(link.get("url")), **_texts(link, "alt", "title")}
        for link in _objects(html.get("Links"))
        if isinstance(link.get("path"), str) and link["path"] in _PATHS
    ]
    metas = []
    for meta in _objects(head.get("Metas")):
        texts = _texts(meta, "property", "name", "content")
        name = texts.get("property", texts.get("name"))
        if name and name[:3].lower() == "og:" and len(name) > 3 and "content" in texts:
            metas.append((name.strip().lower(), texts["content"]))
    check_counts(len(images), len(metas))
    for attributes in images:
        yield from refer_image(attributes, place)
    yield from refer_open_graph(metas, place)


def _parse(block: bytes) -> Any:
    try:
        return orjson.loads(block)
    except orjson.JSONDecodeError:
        pass
    # orjson refuses lone surrogates and control characters, which pages do contain.
    try:
        return json.loads(block.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        raise BrokenRecord(f"JSON: {error}") from error


def _unescape(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError as error:
        raise BrokenRecord(f"JSON: {error}") from error


def _inside(values: Mapping[str, Any] | None, key: str) -> Mapping[str, Any] | None:
    inner = values.get(key) if isinstance(values, dict) else None
    return inner if isinstance(inner, dict) else None


def _objects(values: Any) -> list[Mapping[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(values: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: values[name] for name in names if isinstance(values.get(name), str)}
