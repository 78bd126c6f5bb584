"""A server of files, with ranges and tags as object stores have them, that can be told to misbehave."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path. Each request takes the first of its path's `faults`, if any are left.

    A fault is a status, with headers, or "cut" (half of the body), "reset", "whole" (ranges are
    ignored), "other" (another range than asked for).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[tuple[int, dict[str, str]] | str]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.tag: str | None = '"one"'
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients go away."""


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else None
        body = self.server.files.get(self.path)
        if isinstance(fault, tuple):
            self._answer(fault[0], fault[1], b"")
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif body is None:
            self._answer(404, {}, b"")
        else:
            self._send(body, wanted, fault)

    def _send(self, body: bytes, wanted: str | None, fault: str | None) -> None:
        tag = self.server.tag
        headers = {"ETag": tag} if tag else {}
        whole = len(body)
        fits = self.headers.get("If-Range") in (None, tag)
        status = 200
        if wanted and fits and fault != "whole":
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first) + (fault == "other"), int(last or whole) + 1
            body, status = body[start:end], 206
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{whole}"
        self._answer(status, headers, body, part=len(body) // 2 if fault == "cut" else None)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, part: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:part])
        if part is not None:
            self.close_connection = True


def in_a_moment() -> str:
    """Return now as an HTTP date."""
    return formatdate(usegmt=True)


@contextmanager
def serving() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
