"""A server that does what its paths name, right and wrong, over http or https, and notes who asked when."""

import datetime
import gzip
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BODY = bytes(range(256)) * 40
SECOND = datetime.timedelta(seconds=1)


class Asked(NamedTuple):
    host: str
    path: str
    headers: dict[str, str]
    at: float
    connection: tuple[str, int]


class HostileServer(ThreadingHTTPServer):
    """Plays, on 127.0.0.1, the misbehaviour that a path's first step names.

    Attributes:
        files: bodies by path, for /file/.
        robots: what /robots.txt answers: a text, or a status; `robots_of` by host, where it differs.
        asked: every request that came.
        busy: by path, how many requests for /busy/ are answered 429 or 503 before one is answered well.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), HostileHandler)
        self.context = context
        self.lock = threading.Lock()
        self.asked: list[Asked] = []
        self.files: dict[str, bytes] = {}
        self.robots: str | int = 404
        self.robots_of: dict[str, str | int] = {}
        self.retry_after: str | None = None
        self.at_once = self.most_at_once = 0
        self.times_left: dict[str, int] = {}
        self.away = ""
        self.port = self.server_address[1]
        self.scheme = "https" if context else "http"
        self.url = self.at("pictures.localhost")

    def at(self, host: str) -> str:
        return f"{self.scheme}://{host}:{self.port}"

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def finish_request(self, request, client_address):
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        pass


class HostileHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    server: HostileServer

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path
        now = time.monotonic()
        host = self.headers["Host"].partition(":")[0]
        with self.server.lock:
            self.server.asked.append(
                Asked(host, path, dict(self.headers), now, self.client_address)
            )
        name, _, argument = path.partition("?")[0].strip("/").partition("/")
        try:
            getattr(self, name.replace(".", "_"))(unquote(argument))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def answer(self, status=200, body=BODY, **headers):
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self, *headers: str):
        """Send a head by hand; the connection ends with the answer."""
        self.close_connection = True
        self.wfile.write("\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode())

    def drip(self, data):
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def file(self, _):
        self.answer(body=self.server.files[self.path])

    def fine(self, _):
        self.answer()

    def robots_txt(self, _):
        host = self.headers["Host"].partition(":")[0]
        robots = self.server.robots_of.get(host, self.server.robots)
        if isinstance(robots, int):
            after = self.server.retry_after
            headers = {"Retry_After": after} if after is not None else {}
            self.answer(robots, b"", **headers)
        else:
            self.answer(body=robots.encode())

    def status(self, code):
        self.answer(int(code), X_Robots_Tag="noai")

    def long_status(self, code):
        self.answer(int(code), bytes(1_000_000))

    def empty(self, _):
        self.answer(body=b"")

    def loop(self, count):
        self.answer(302, b"", Location=f"/loop/{int(count or 0) + 1}")

    def redirects(self, count):
        self.answer(301, b"", Location=f"/redirects/{int(count) - 1}" if int(count) else "/fine/")

    def lazy(self, _):
        time.sleep(0.2)
        self.answer(302, b"", Location="/lazy/")

    def away(self, _):
        self.answer(302, b"", Location=self.server.away)

    def to(self, target):
        self.answer(302, b"", Location=target)

    def unicode(self, _):
        self.answer(302, b"", Location="/fine/für".encode().decode("latin-1"))

    def tagged(self, value):
        self.answer(X_Robots_Tag=value)

    def reserved(self, value):
        self.answer(TDM_Reservation=value)

    def gzipped(self, _):
        self.answer(body=gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")

    def transfer(self, encoding):
        self.begin(f"Transfer-Encoding: {encoding}")
        self.wfile.write(gzip.compress(bytes(10_000_000)))

    def announced(self, _):
        self.begin(f"Content-Length: {'9' * 18}")

    def announced_absurdly(self, _):
        self.begin(f"Content-Length: {'9' * 30}")

    def announced_twice(self, _):
        self.begin("Content-Length: 5", "Content-Length: 7")
        self.wfile.write(b"hello, world")

    def endless(self, _):
        self.begin()
        for _ in range(100_000):
            self.wfile.write(bytes(100_000))

    def crumbs(self, _):
        self.begin("Transfer-Encoding: chunked")
        for _ in range(2_000):
            self.wfile.write(b"1\r\nx\r\n" * 1000)

    def cut(self, _):
        self.begin("Content-Length: 1000")
        self.wfile.write(bytes(500))

    def more_than_announced(self, _):
        self.begin("Content-Length: 5")
        self.wfile.write(b"hello, world")

    def chunked(self, _):
        self.begin("Transfer-Encoding: chunked")
        self.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    def cut_chunk(self, _):
        self.begin("Transfer-Encoding: chunked")
        self.wfile.write(b"ff\r\nhello")

    def broken_chunk(self, _):
        self.begin("Transfer-Encoding: chunked")
        self.wfile.write(b"zz\r\nhello\r\n")

    def garbage(self, _):
        self.close_connection = True
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    def ancient(self, _):
        self.close_connection = True
        self.wfile.write(b"<html>no header at all</html>")

    def silence(self, _):
        self.close_connection = True

    def slow_body(self, _):
        self.begin("Content-Length: 1000")
        self.drip(b"x" * 1000)

    def slow_header(self, _):
        self.close_connection = True
        self.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)

    def continues(self, _):
        self.close_connection = True
        self.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def flood(self, _):
        self.close_connection = True
        for _ in range(1000):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    def many_headers(self, _):
        self.begin(*[f"X-{i}: {'y' * 50}" for i in range(2000)])

    def long_header(self, _):
        self.begin("X-Long: " + "x" * 90_000)

    def cookie(self, _):
        self.answer(Set_Cookie="a=b", WWW_Authenticate="Basic")

    def busy(self, status):
        """Answer so as often as `times_left` says, 429 or 503 with Retry-After where one is set."""
        with self.server.lock:
            left = self.server.times_left.get(self.path, 10**9)
            self.server.times_left[self.path] = left - 1
        after = self.server.retry_after
        headers = {"Retry_After": after} if after is not None else {}
        self.answer(*((200, BODY) if left <= 0 else (int(status), b"")), **headers)

    def shared(self, _):
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        time.sleep(0.1)
        with self.server.lock:
            self.server.at_once -= 1
        self.answer()


@contextmanager
def serving(server: HostileServer) -> Iterator[HostileServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def secure_context(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def write_certificate(path: Path, *names: str) -> str:
    """Write a certificate that is its own authority, with its key; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [
        *(x509.DNSName(n) for n in names),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    signed = (
        x509.CertificateBuilder(name, name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - 86400 * SECOND)
        .not_valid_after(now + 86400 * SECOND)
        .add_extension(x509.SubjectAlternativeName(alternatives), False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(path)
