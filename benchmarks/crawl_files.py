"""Build WARC and WAT files from real pages, the WAT in the layout of Common Crawl's JSON."""

import gzip
import json
import tarfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

LONGEST_TEXT = 128
_META_NAMES = ("name", "rel", "content", "http-equiv", "property")
_HTTP_HEADERS = {
    "Server": "nginx",
    "Date": "Sat, 18 May 2024 01:58:10 GMT",
    "Content-Type": "text/html",
    "Vary": "Accept-Encoding",
    "Cache-Control": "private, must-revalidate, max-age=0",
    "X-Frame-Options": "SAMEORIGIN",
}


class Page(NamedTuple):
    """A page as it was fetched."""

    url: str
    content: bytes


def read_pages(archive: Path) -> Iterator[Page]:
    """Yield the pages of a tar with files `.../HOST.NAME.html`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file and member.name.endswith((".html", ".htm")):
                yield Page(f"https://pages.example/{quote(member.name)}", file.read())


def warc_records(page: Page) -> list[bytes]:
    """Return request, response and metadata of a page, as Common Crawl writes them."""
    head = "".join(f"{name}: {value}\r\n" for name, value in _HTTP_HEADERS.items())
    answer = f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + page.content
    asked = b"GET / HTTP/1.1\r\nUser-Agent: CCBot/2.0 (https://commoncrawl.org/faq/)\r\n\r\n"
    return [
        _record("request", page.url, "application/http; msgtype=request", asked),
        _record("response", page.url, "application/http; msgtype=response", answer),
        _record("metadata", page.url, "application/warc-fields", b"fetchTimeMs: 241\r\n"),
    ]


def wat_records(page: Page) -> list[bytes]:
    """Return what Common Crawl lists of a page's request, response and metadata."""
    request = {"HTTP-Request-Metadata": {"Request-Message": {"Method": "GET", "Path": "/"}}}
    response = {
        "Response-Message": {"Version": "HTTP/1.1", "Status": "200", "Reason": "OK"},
        "Headers-Length": "411",
        "Headers": _HTTP_HEADERS,
        "HTML-Metadata": list_page(page.content.decode("utf-8", "replace")),
        "Entity-Length": str(len(page.content)),
        "Entity-Digest": "sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ",
        "Entity-Trailing-Slop-Length": "0",
    }
    fetched = {"WARC-Metadata-Metadata": {"Metadata-Records": [{"Name": "fetchTimeMs"}]}}
    payloads = [
        ("request", request),
        ("response", {"HTTP-Response-Metadata": response}),
        ("metadata", fetched),
    ]
    return [
        _record("metadata", page.url, "application/json", _envelope(page.url, kind, payload))
        for kind, payload in payloads
    ]


def _envelope(url: str, kind: str, payload: dict[str, object]) -> bytes:
    container = {
        "Filename": "CC-MAIN-20240517233122-20240518023122-00000.warc.gz",
        "Compressed": True,
        "Offset": "80610308",
        "Gzip-Metadata": {"Deflate-Length": "423", "Inflated-Length": "626"},
    }
    header = {
        "WARC-Type": kind,
        "WARC-Date": "2024-05-18T01:58:10Z",
        "WARC-Record-ID": "<urn:uuid:292f457d-203c-42f2-a1b5-69a4dabefd4f>",
        "Content-Type": f"application/http; msgtype={kind}",
        "WARC-IP-Address": "192.0.2.1",
        "WARC-Target-URI": url,
    }
    envelope = {
        "Payload-Metadata": {
            "Actual-Content-Type": f"application/http; msgtype={kind}",
            **payload,
            "Actual-Content-Length": "265",
            "Block-Digest": "sha1:IE7NEN3QEJHUCYRRGVMHDDW3BEHFRQ6V",
        },
        "Format": "WARC/1.0",
        "WARC-Header-Length": "357",
        "WARC-Header-Metadata": header,
    }
    lines = {"Container": container, "Envelope": envelope}
    return json.dumps(lines, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _record(kind: str, url: str, content_type: str, block: bytes) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        "WARC-Date: 2024-05-31T01:17:49Z\r\n"
        "WARC-Record-ID: <urn:uuid:3d3f4785-c69a-4f8c-968c-d23302c55ef4>\r\n"
        "WARC-Refers-To: <urn:uuid:292f457d-203c-42f2-a1b5-69a4dabefd4f>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(block)}\r\n"
        "WARC-Block-Digest: sha1:XKPSESGRJEH3NGYOVCLXSI2OVJCVRWCK\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def write_archive(path: Path, records: list[bytes], copies: int = 1) -> int:
    """Write records `copies` times, one gzip member each; return the size before compression."""
    members = [gzip.compress(record, 6, mtime=0) for record in records]
    with path.open("wb") as file:
        for _ in range(copies):
            file.writelines(members)
    return copies * sum(map(len, records))


def list_page(markup: str) -> dict[str, object]:
    """Return the `HTML-Metadata` that Common Crawl's tools make of a page."""
    lister = _Lister()
    lister.feed(markup)
    return {"Head": lister.head, "Links": lister.links}


class _Lister(HTMLParser):
    """Links, images, metas, scripts and base of a page in the order of its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.head: dict[str, object] = {"Metas": [], "Link": [], "Scripts": []}
        self.links: list[dict[str, str]] = []
        self._anchors: list[dict[str, str]] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in reversed(attrs) if value is not None}
        if tag == "img":
            self._link(self.links, "IMG@/src", values, "src", "alt", "title")
        elif tag == "a":
            self._link(self._anchors, "A@/href", values, "href", "target", "title", "rel")
        elif tag == "link":
            self._link(self.head["Link"], "LINK@/href", values, "href", "rel", "type")
        elif tag == "script":
            self._link(self.head["Scripts"], "SCRIPT@/src", values, "src", "type")
        elif tag == "meta":
            meta = {name: values[name] for name in _META_NAMES if name in values}
            if meta:
                self.head["Metas"].append(meta)
        elif tag == "base" and "href" in values:
            self.head.setdefault("Base", values["href"])
        self._in_title = tag == "title"

    def _link(
        self, where: object, path: str, values: dict[str, str], url: str, *others: str
    ) -> None:
        assert isinstance(where, list)
        if url in values:
            link = {"path": path, "url": values[url]}
            where.append(link | {name: values[name] for name in others if name in values})

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False
        if tag == "a" and self._anchors:
            anchor = self._anchors.pop()
            text = " ".join(anchor.pop("#", "").split())[:LONGEST_TEXT]
            self.links.append(anchor | ({"text": text} if text else {}))

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.head["Title"] = " ".join(data.split())[:LONGEST_TEXT]
        if self._anchors:
            self._anchors[-1]["#"] = self._anchors[-1].get("#", "") + data
