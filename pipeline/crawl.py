"""Crawl a few hosts politely, breadth first, and write WARC files; made for the miniature web.

Pages only: what `<a href>` leads to, whatever it turns out to be. Pictures are what `download` is for.
The same site, date and seeds give the same bytes.
"""

import base64
import gzip
import hashlib
import http.client
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from selectolax.lexbor import LexborHTMLParser

from pipeline.errors import ConfigError
from pipeline.runtime.storage import OutputFile, atomic_output

AGENT = "witmill-crawl/1.0"
LARGEST_PAGE = 4 << 20
PAGE_TIMEOUT_S = 10.0
READ_AT_ONCE = 1 << 16


@dataclass(kw_only=True)
class CrawlReport:
    """What a crawl fetched, left alone and could not reach."""

    pages: int = 0
    bytes: int = 0
    disallowed: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Page:
    """One answer of a server, as it came but for the transfer encoding."""

    url: str
    address: str
    request: bytes
    status: int
    head: bytes
    body: bytes
    media_type: str
    location: str
    truncated: str
    """why the body ends early, in WARC's words; empty where it does not"""


def loopback(host: str) -> str:
    """Return the address to connect to for `host`: 127.0.0.1 for `.localhost` (RFC 6761), else itself."""
    return "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host


def crawl(
    seeds: Sequence[str],
    *,
    hosts: Collection[str],
    outputs: Sequence[str],
    date: str,
    pause_s: float = 0.0,
    resolve: Callable[[str], str] = loopback,
) -> CrawlReport:
    """Fetch every page of `hosts` that links lead to from `seeds`, and deal them out to `outputs`.

    Args:
        hosts: names never left, without port.
        outputs: paths of the `.warc.gz` files, written side by side; they appear only when whole.
        date: WARC-Date of every record, such as "2026-01-31T00:00:00Z".
        pause_s: least time between two requests to a host; a longer Crawl-delay wins.
        resolve: gives the address to connect to for a host.

    Raises:
        ConfigError: if a seed is not an http URL of one of `hosts`.
        StorageError: if one of `outputs` cannot be written.
    """
    for seed in seeds:
        if not _is_wanted(seed, hosts):
            raise ConfigError(f"seed {seed} is not a page of {', '.join(sorted(hosts))} over http")
    report = CrawlReport()
    with ExitStack() as opened:
        files = [opened.enter_context(atomic_output(path)) for path in outputs]
        for path, file in zip(outputs, files, strict=True):
            _write_record(file, "warcinfo", path.rpartition("/")[2], date, {}, _about(date))
        for page in _pages(seeds, hosts, _Visitor(pause_s, resolve), report):
            _write_page(files[report.pages % len(files)], page, date)
            report.pages += 1
        report.bytes = sum(file.size for file in files)
    return report


def _pages(
    seeds: Sequence[str], hosts: Collection[str], visitor: "_Visitor", report: CrawlReport
) -> Iterator[Page]:
    queue = deque(dict.fromkeys(_address(seed) for seed in seeds))
    known = set(queue)
    try:
        while queue:
            url = queue.popleft()
            if not visitor.may_visit(url):
                report.disallowed.append(url)
                continue
            page = visitor.visit(url)
            if page is None:
                report.unreachable.append(url)
                continue
            yield page
            for link in links(page):
                if link not in known and _is_wanted(link, hosts):
                    known.add(link)
                    queue.append(link)
    finally:
        visitor.close()


def links(page: Page) -> list[str]:
    """Return the absolute http addresses that `page` links or redirects to, in its order."""
    targets = [page.location] if page.location else []
    base = page.url
    if page.media_type in ("text/html", "application/xhtml+xml"):
        tree = LexborHTMLParser(page.body)
        root = tree.css_first("base[href]")
        if root is not None:
            base = _joined(page.url, root.attributes["href"] or "") or page.url
        targets += [node.attributes["href"] or "" for node in tree.css("a[href]")]
    found = (_joined(base, target) for target in targets)
    return list(dict.fromkeys(link for link in found if link.startswith(("http:", "https:"))))


def _joined(base: str, target: str) -> str:
    # urljoin raises on such as "http://[::1"; a link that is none is not followed.
    with suppress(ValueError):
        return _address(urljoin(base, target.strip()))
    return ""


def _address(url: str) -> str:
    parts = urlsplit(urldefrag(url).url)
    escaped = parts._replace(path=_escaped(parts.path or "/"), query=_escaped(parts.query))
    return escaped.geturl()


def _escaped(text: str) -> str:
    return "".join(c if "!" <= c <= "~" else "".join(f"%{b:02X}" for b in _utf8(c)) for c in text)


def _utf8(character: str) -> bytes:
    return character.encode("utf-8", "replace")


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 80}"


def _is_wanted(url: str, hosts: Collection[str]) -> bool:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme == "http" and parts.hostname in hosts and (parts.port or 80) > 0
    return False


class _Visitor:
    """Keeps one connection, the robots.txt and the time of the last visit per host and port."""

    def __init__(self, pause_s: float, resolve: Callable[[str], str]) -> None:
        self._pause_s = pause_s
        self._resolve = resolve
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._robots: dict[str, RobotFileParser] = {}
        self._last_visit: dict[str, float] = {}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def may_visit(self, url: str) -> bool:
        place = _place(url)
        if place not in self._robots:
            self._robots[place] = _rules(self.visit(f"http://{place}/robots.txt"))
        return self._robots[place].can_fetch(AGENT, url)

    def visit(self, url: str) -> Page | None:
        """Return the page, or None if its server cannot be reached or speaks no HTTP."""
        place = _place(url)
        self._wait(place)
        connection = self._connection(place)
        try:
            return _fetch(url, connection)
        except (OSError, http.client.HTTPException):
            # Closed, it connects anew for the next page.
            connection.close()
            return None

    def _connection(self, place: str) -> http.client.HTTPConnection:
        if place not in self._connections:
            host, _, port = place.rpartition(":")
            self._connections[place] = http.client.HTTPConnection(
                self._resolve(host), int(port), timeout=PAGE_TIMEOUT_S
            )
        return self._connections[place]

    def _wait(self, place: str) -> None:
        robots = self._robots.get(place)
        pause = max(self._pause_s, float((robots and robots.crawl_delay(AGENT)) or 0))
        time.sleep(max(0.0, self._last_visit.get(place, 0.0) + pause - time.monotonic()))
        self._last_visit[place] = time.monotonic()


def _rules(page: Page | None) -> RobotFileParser:
    """Read a robots.txt: none allows all, a host that cannot tell is left alone (RFC 9309)."""
    robots = RobotFileParser()
    if page is None or page.status >= 500:
        robots.parse(["User-agent: *", "Disallow: /"])
    elif page.status == 200:
        robots.parse(page.body.decode("utf-8", "replace").splitlines())
    else:
        robots.parse([])
    return robots


def _fetch(url: str, connection: http.client.HTTPConnection) -> Page:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    sent = {"Host": _place(url), "User-Agent": AGENT, "Accept-Encoding": "identity"}
    connection.request("GET", target, headers=sent)
    # Before the answer: at the end of one the connection may be closed already.
    address = connection.sock.getpeername()[0]
    response = connection.getresponse()
    body, truncated = _body(response)
    # read1 does not notice the end of a body by itself, and the connection waits for that.
    response.close()
    if truncated:
        connection.close()
    names = {"transfer-encoding": "X-Crawl-Transfer-Encoding"}
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{names.get(n.lower(), n)}: {value}" for n, value in response.getheaders()]
    return Page(
        url=url,
        address=address,
        request=_block([f"GET {target} HTTP/1.1", *(f"{n}: {v}" for n, v in sent.items())]),
        status=response.status,
        head=_block(lines),
        body=body,
        media_type=response.headers.get_content_type(),
        location=response.getheader("Location", ""),
        truncated=truncated,
    )


def _body(response: http.client.HTTPResponse) -> tuple[bytes, str]:
    deadline = time.monotonic() + PAGE_TIMEOUT_S
    body = bytearray()
    try:
        while piece := response.read1(READ_AT_ONCE):
            body += piece
            if len(body) > LARGEST_PAGE:
                return bytes(body[:LARGEST_PAGE]), "length"
            if time.monotonic() > deadline:
                return bytes(body), "time"
    except (OSError, http.client.HTTPException):
        return bytes(body), "disconnect"
    return bytes(body), "disconnect" if response.length else ""


def _block(lines: Sequence[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def _about(date: str) -> bytes:
    fields = {
        "software": AGENT,
        "format": "WARC File Format 1.1",
        "conformsTo": "https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/",
        "robots": "obey",
        "created": date,
    }
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()


def _write_page(file: OutputFile, page: Page, date: str) -> None:
    about = {"WARC-Target-URI": page.url, "WARC-IP-Address": page.address}
    asked = about | {
        "WARC-Concurrent-To": _record_id("response", page.url),
        "Content-Type": "application/http; msgtype=request",
    }
    got = about | {
        "WARC-Payload-Digest": _digest(page.body),
        "Content-Type": "application/http; msgtype=response",
    }
    if page.truncated:
        got["WARC-Truncated"] = page.truncated
    _write_record(file, "request", page.url, date, asked, page.request)
    _write_record(file, "response", page.url, date, got, page.head + page.body)


def _write_record(
    file: OutputFile, kind: str, name: str, date: str, headers: dict[str, str], block: bytes
) -> None:
    """Append one gzip member, as every WARC reader expects of a `.warc.gz`."""
    head = {
        "WARC-Type": kind,
        "WARC-Record-ID": _record_id(kind, name),
        "WARC-Date": date,
        "WARC-Block-Digest": _digest(block),
        "Content-Type": "application/warc-fields",
        **headers,
        "Content-Length": str(len(block)),
    }
    lines = ["WARC/1.1", *(f"{name}: {value}" for name, value in head.items())]
    file.write(gzip.compress(_block(lines) + block + b"\r\n\r\n", mtime=0))


def _record_id(kind: str, name: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {name}')}>"


def _digest(data: bytes) -> str:
    return f"sha1:{base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()}"
