"""Build WARC and WAT files in memory, and read them."""

import gzip
import io
import json
from html.parser import HTMLParser
from typing import Literal

import pyarrow as pa

from pipeline.inputs.crawls import read_crawl
from pipeline.pages.row_tables import tabulate


def record(
    kind: str, block: bytes, content_type: str, url: str = "http://h.example/p", **extra: str
) -> bytes:
    headers = {"WARC-Type": kind, "WARC-Target-URI": url, "Content-Type": content_type}
    headers |= {"Content-Length": str(len(block)), **extra}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return b"WARC/1.0\r\n" + lines.encode() + b"\r\n" + block + b"\r\n\r\n"


def response(
    page: bytes,
    *,
    url: str = "http://h.example/p",
    kind: str | None = "text/html; charset=utf-8",
    status: int = 200,
    headers: str = "",
) -> bytes:
    head = f"HTTP/1.1 {status} Fine\r\n" + (f"Content-Type: {kind}\r\n" if kind else "") + headers
    return record(
        "response", head.encode() + b"\r\n" + page, "application/http; msgtype=response", url
    )


def metadata(envelope: object, url: str = "http://h.example/p") -> bytes:
    return record("metadata", json.dumps(envelope).encode(), "application/json", url)


def describe_page(page: str, url: str, status: str = "200") -> bytes:
    """Return the WAT record that Common Crawl's tools write for a page."""
    found = Images()
    found.feed(page)
    links = [{"path": "IMG@/src", **image} for image in found.images if "url" in image]
    head = {"Base": found.base} if found.base else {}
    answer = {
        "Response-Message": {"Status": status},
        "Headers": {"Content-Type": "text/html"},
        "HTML-Metadata": {"Head": head, "Links": [{"path": "A@/href", "url": "x"}, *links]},
    }
    return metadata(
        {
            "Envelope": {
                "WARC-Header-Metadata": {"WARC-Target-URI": url, "WARC-Type": "response"},
                "Payload-Metadata": {"HTTP-Response-Metadata": answer},
            }
        },
        url,
    )


class Images(HTMLParser):
    """The `<img>` of a page with address and alternative text, and its base."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(reversed(attrs))
        if tag == "img":
            named = {"url": values.get("src"), "alt": values.get("alt")}
            self.images.append({name: value for name, value in named.items() if value is not None})
        elif tag == "base" and not self.base:
            self.base = values.get("href") or ""


def members(*records: bytes) -> bytes:
    """Return the records as an archive is compressed: one gzip member each."""
    return b"".join(gzip.compress(one, mtime=0) for one in records)


def read_tables(data: bytes, kind: Literal["warc", "wat"] = "warc") -> tuple[pa.Table, pa.Table]:
    """Return the pairs and drops of a crawl named "x"."""
    chunks = list(read_crawl(io.BytesIO(data), kind, "x", 1000)) or [tabulate([], "x")]
    return pa.concat_tables([c[0] for c in chunks]), pa.concat_tables([c[1] for c in chunks])


def outline(data: bytes, kind: Literal["warc", "wat"] = "warc") -> list[str]:
    """Return the URLs of the pairs and the reasons of the drops, each in their order."""
    pairs, drops = read_tables(data, kind)
    return [*pairs.column("url").to_pylist(), *drops.column("reason").to_pylist()]


def places(drops: pa.Table) -> list[tuple[str, int]]:
    """Return the reason and the offset of each drop."""
    details = [detail.partition(":")[0] for detail in drops.column("detail").to_pylist()]
    offsets = [int(detail.rpartition("@")[2]) for detail in details]
    return list(zip(drops.column("reason").to_pylist(), offsets, strict=True))
