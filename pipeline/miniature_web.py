"""Serve the miniature web of `examples/web` on this machine: what a crawl meets, good and bad.

Content is one zip per host, `shop.zip` for `shop.localhost`; what goes wrong on purpose is a table,
`behaviours.toml`. Answers and headers depend on the request alone: no clock, no state.
"""

import fnmatch
import socket
import tomllib
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Event, Lock, Thread
from typing import Literal
from urllib.parse import quote, unquote

from pydantic import Field

from pipeline.errors import ConfigError, InputError
from pipeline.runtime.settings import Settings, read_settings

SITE_PORT = 8417
"""The port written in the site's own links; served on another, they are rewritten."""

IDLE_TIMEOUT_S = 30
ZEROS_AT_ONCE = 1 << 16
PNG_START = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x04\x00\x00\x00\x04\x00\x08\x02\x00\x00\x00"
)

MEDIA_TYPES = {
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tif": "image/tiff",
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
}

MAIL_GREETING = b"220 mail.localhost ESMTP ready\r\n"
NOT_FOUND = b"<!doctype html><html lang=en><title>Not found</title><h1>404 Not found</h1></html>\n"


class Behaviour(Settings):
    """How to answer requests whose host and path fit two shell patterns; the first that fits holds."""

    host: str
    """pattern of the host name, such as "old.localhost" """
    path: str = "*"
    """pattern of the decoded path, such as "/dead/410/*" """
    answer: Literal["file", "status", "redirect", "hang_up", "not_http", "cut", "drip", "zeros"] = (
        "file"
    )
    """file: as stored; hang_up: close at once; not_http: greet as a mail server does; cut: close half-way; drip: slowly; zeros: many bytes"""
    status: int = Field(200, ge=100, le=599)
    """status code to answer with"""
    headers: dict[str, str] = Field(default_factory=dict)
    """headers to add, or to send instead of the usual ones"""
    to: str = ""
    """where a redirect leads; {name} stands for the last step of the path asked for"""
    length: int = Field(0, ge=0)
    """bytes that zeros sends"""
    declared: bool = True
    """whether zeros tells its length before"""
    pause_s: float = Field(0.0, ge=0)
    """seconds between two bytes of a drip"""


class MiniatureWeb:
    """A running miniature web: where it is, and what was asked of it."""

    def __init__(
        self, files: Mapping[tuple[str, str], bytes], behaviours: Sequence[Behaviour]
    ) -> None:
        """Hold `files`, by host and path, to be answered as `behaviours` say."""
        self.files = files
        self.behaviours = behaviours
        self.port = SITE_PORT
        self.requests: Counter[tuple[str, str]] = Counter()
        self.stopping = Event()
        self._lock = Lock()

    @property
    def hosts(self) -> list[str]:
        """The names served, sorted."""
        return sorted({host for host, _ in self.files})

    @property
    def seed(self) -> str:
        """The page from which a crawl finds all others."""
        return self.local("http://portal.localhost:8417/")

    def local(self, url: str) -> str:
        """Return a URL of the site, as its pages and `planted.json` write it, with the port in use."""
        return url.replace(f".localhost:{SITE_PORT}", f".localhost:{self.port}")

    def behaviour(self, host: str, path: str) -> Behaviour:
        """Return how to answer for `path` on `host`."""
        for behaviour in self.behaviours:
            if fnmatch.fnmatchcase(host, behaviour.host) and fnmatch.fnmatchcase(
                path, behaviour.path
            ):
                return behaviour
        return Behaviour(host=host)

    def count(self, host: str, path: str) -> None:
        """Count a request."""
        with self._lock:
            self.requests[host, path] += 1


@contextmanager
def serve(root: Path, port: int = SITE_PORT) -> Iterator[MiniatureWeb]:
    """Serve the site in `root` on 127.0.0.1 while the block runs.

    Args:
        port: 0 takes any free one; `MiniatureWeb.port` then tells which.

    Raises:
        ConfigError: if the port is taken, or a behaviour is mistaken.
        InputError: if `root` holds no site.
    """
    web = MiniatureWeb(read_files(root), read_behaviours(root / "behaviours.toml"))
    server = _listen(web, port)
    web.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield web
    finally:
        web.stopping.set()
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


def read_files(root: Path) -> dict[tuple[str, str], bytes]:
    """Return every file of the site by host and path; a folder's `index.html` stands for the folder.

    Raises:
        InputError: if there is none, or a zip cannot be read.
    """
    files = {}
    for archive in sorted(root.glob("*.zip")):
        host = f"{archive.stem}.localhost"
        try:
            with zipfile.ZipFile(archive) as content:
                for name in content.namelist():
                    files[host, f"/{name.removesuffix('index.html')}"] = content.read(name)
        except (zipfile.BadZipFile, zlib.error, OSError) as error:
            raise InputError(f"{archive} cannot be read: {error}; build it again") from error
    if not files:
        raise InputError(f"{root} holds no site, expected one HOST.zip per host, as examples/web")
    return files


def read_behaviours(path: Path) -> list[Behaviour]:
    """Return the table of behaviours, in order.

    Raises:
        InputError: if it cannot be read.
        ConfigError: naming a row's wrong keys.
    """
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("behaviour", [])
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; expected a TOML table") from error
    return [
        read_settings(Behaviour, row, where=f"{path.name} behaviour {number}")
        for number, row in enumerate(rows, 1)
    ]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256
    # On Linux this only skips the wait for connections of an earlier server; it shares no port.
    allow_reuse_address = True

    def __init__(self, web: MiniatureWeb, port: int) -> None:
        self.web = web
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The client, or the thread that served it, was faster.
                continue


def _listen(web: MiniatureWeb, port: int) -> _Server:
    try:
        return _Server(web, port)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"port {port} of 127.0.0.1 cannot be used: {error}; expected a free one, choose another"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            # The client hung up, as one does that refuses to read on.
            self.close_connection = True

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").partition(":")[0].lower()
        path = unquote(self.path.partition("?")[0], errors="replace")
        self.server.web.count(host, path)
        self._answer(host, path)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, host: str, path: str) -> None:
        web = self.server.web
        behaviour = web.behaviour(host, path)
        stored = web.files.get((host, path))
        if behaviour.answer == "hang_up":
            self.close_connection = True
        elif behaviour.answer == "not_http":
            self.close_connection = True
            self.wfile.write(MAIL_GREETING)
        elif behaviour.answer == "zeros":
            self._zeros(behaviour)
        elif behaviour.answer in ("status", "redirect"):
            self._send(behaviour.status, self._headers(behaviour, path), b"")
        elif stored is None:
            self._send(404, {"Content-Type": MEDIA_TYPES[".html"]}, NOT_FOUND)
        else:
            headers = self._headers(behaviour, path)
            if headers["Content-Type"].startswith("text/html"):
                stored = _with_port(stored, web.port)
            self._send(behaviour.status, headers, stored, behaviour)

    def _headers(self, behaviour: Behaviour, path: str) -> dict[str, str]:
        suffix = ".html" if path.endswith("/") else PurePosixPath(path).suffix
        headers = {"Content-Type": MEDIA_TYPES.get(suffix, "application/octet-stream")}
        if behaviour.to:
            target = behaviour.to.replace("{name}", quote(PurePosixPath(path).name))
            headers = {"Location": self.server.web.local(target)}
        return headers | behaviour.headers

    def _send(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        behaviour: Behaviour | None = None,
    ) -> None:
        answer = behaviour.answer if behaviour else "file"
        head = _head(status, {**headers, "Content-Length": str(len(body))})
        if self.command == "HEAD":
            self.wfile.write(head)
        elif behaviour is None or answer == "file":
            # Head and body in one write: two would wait for each other's acknowledgement.
            self.wfile.write(head + body)
        elif answer == "cut":
            self.close_connection = True
            self.wfile.write(head + body[: len(body) // 2])
        else:
            self._drip(head, body, behaviour.pause_s)

    def _drip(self, head: bytes, body: bytes, pause_s: float) -> None:
        self.wfile.write(head)
        for position in range(len(body)):
            if self.server.web.stopping.wait(pause_s):
                self.close_connection = True
                return
            self.wfile.write(body[position : position + 1])

    def _zeros(self, behaviour: Behaviour) -> None:
        self.close_connection = True
        headers = {"Content-Type": MEDIA_TYPES[".png"], "Connection": "close"}
        if behaviour.declared:
            headers["Content-Length"] = str(behaviour.length)
        self.wfile.write(_head(behaviour.status, headers))
        if self.command == "HEAD":
            return
        self.wfile.write(PNG_START)
        left = behaviour.length - len(PNG_START)
        while left > 0 and not self.server.web.stopping.is_set():
            self.wfile.write(bytes(min(left, ZEROS_AT_ONCE)))
            left -= ZEROS_AT_ONCE


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}", "Server: miniature-web"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _with_port(page: bytes, port: int) -> bytes:
    return page.replace(f".localhost:{SITE_PORT}".encode(), f".localhost:{port}".encode())
