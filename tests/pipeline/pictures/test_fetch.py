import datetime
import gzip
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline import download
from pipeline.pictures import addresses
from pipeline.pictures.fetch import (
    Fetcher,
    FetchRefused,
    Limits,
    forbidding_directive,
    product_token,
)

LOOPBACK = ("127.0.0.0/8",)
BODY = bytes(range(256)) * 40


class HostileHandler(BaseHTTPRequestHandler):
    """Plays the misbehaviour its path names."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        name, _, argument = self.path.strip("/").partition("/")
        try:
            getattr(self, name)(argument)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, status=200, body=BODY, **headers):
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fine(self, _):
        self.answer()

    def status(self, code):
        self.answer(int(code), X_Robots_Tag="noai")

    def empty(self, _):
        self.answer(body=b"")

    def loop(self, count):
        self.answer(302, b"", Location=f"/loop/{int(count) + 1}")

    def redirects(self, count):
        self.answer(301, b"", Location=f"/redirects/{int(count) - 1}" if int(count) else "/fine/")

    def lazy(self, _):
        time.sleep(0.2)
        self.answer(302, b"", Location="/lazy/")

    def away(self, _):
        self.answer(302, b"", Location=self.server.away)

    def unicode(self, _):
        self.answer(302, b"", Location="/fine/für".encode().decode("latin-1"))

    def robots(self, value):
        self.answer(X_Robots_Tag=value.replace("%20", " "))

    def gzipped(self, _):
        self.answer(body=gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")

    def announced(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "9" * 30)
        self.end_headers()

    def endless(self, _):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(100_000))

    def cut(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(bytes(500))

    def chunked(self, _):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    def cut_chunk(self, _):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ff\r\nhello")

    def garbage(self, _):
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    def silence(self, _):
        self.close_connection = True

    def slow_body(self, _):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.drip(b"x" * 1000)

    def slow_header(self, _):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)

    def continues(self, _):
        self.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def drip(self, data):
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def busy(self, _):
        with self.server.lock:
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        time.sleep(0.1)
        with self.server.lock:
            self.server.at_once -= 1
        self.answer()


class HostileServer(ThreadingHTTPServer):
    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), HostileHandler)
        self.context = context
        self.lock = threading.Lock()
        self.asked: list = []
        self.at_once = self.most_at_once = 0
        self.away = ""
        scheme = "https" if context else "http"
        self.url = f"{scheme}://pictures.localhost:{self.server_address[1]}"

    def finish_request(self, request, client_address):
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        pass


def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web():
    yield from serving(HostileServer())


@pytest.fixture
def certificate(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(path)


@pytest.fixture
def secure_web(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    yield from serving(HostileServer(context))


def fetcher(**limits) -> Fetcher:
    given = {"user_agent": "witmill/1 (+test)", "timeout_s": 5, "max_bytes": 1_000_000}
    return Fetcher(Limits(**{**given, "allow_addresses": LOOPBACK, **limits}))


def refusal(url: str, **limits) -> tuple[str, str | None]:
    with pytest.raises(FetchRefused) as refused:
        fetcher(**limits).fetch(url)
    reason, detail = refused.value.reason, refused.value.detail
    assert reason in download.REASONS or reason.startswith("http_")
    assert "0x" not in (detail or "")
    return reason, detail


def test_the_bytes_come_back_whole(web):
    assert fetcher().fetch(f"{web.url}/fine/") == BODY
    assert fetcher().fetch(f"{web.url}/chunked/") == b"hello world"
    assert fetcher(max_bytes=len(BODY)).fetch(f"{web.url}/fine/") == BODY


def test_the_request_says_who_asks_and_for_what(web):
    fetcher().fetch(f"{web.url}/fine/a b?q=ü#part")
    path, headers = web.asked[0]
    assert path == "/fine/a%20b?q=%C3%BC"
    assert headers["User-Agent"] == "witmill/1 (+test)"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"] == web.url.removeprefix("http://")


def test_passwords_in_an_address_are_not_sent(web):
    fetcher().fetch(f"{web.url}/fine/".replace("//", "//user:secret@"))
    assert "Authorization" not in web.asked[0][1]


def test_proxies_of_the_environment_are_ignored(web, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetcher().fetch(f"{web.url}/fine/") == BODY


@pytest.mark.parametrize(
    ("path", "reason", "detail"),
    [
        ("status/404", "http_404", None),
        ("status/500", "http_500", None),
        ("status/204", "http_204", None),
        ("status/302", "http_302", None),
        ("empty/", "empty", None),
        ("gzipped/", "content_encoding", "gzip"),
        ("announced/", "too_large", "99999999999999999999 bytes announced"),
        ("endless/", "too_large", "more than 1000000 bytes"),
        ("cut/", "connection", "closed before the end"),
        ("cut_chunk/", "connection", "closed before the end"),
        ("silence/", "connection", "closed without an answer"),
        ("garbage/", "bad_response", "BadStatusLine"),
        ("loop/0", "too_many_redirects", "more than 5"),
        ("redirects/5", "too_many_redirects", "more than 5"),
    ],
)
def test_what_a_server_does_wrong_has_a_reason(web, path, reason, detail):
    assert refusal(f"{web.url}/{path}") == (reason, detail)


def test_one_byte_over_the_limit_is_too_large(web):
    assert refusal(f"{web.url}/fine/", max_bytes=len(BODY) - 1)[0] == "too_large"


@pytest.mark.parametrize("path", ["slow_body/", "slow_header/", "continues/"])
def test_a_slow_drip_ends_at_the_deadline(web, path):
    begun = time.monotonic()
    assert refusal(f"{web.url}/{path}", timeout_s=0.4) == ("timeout", "0.4 s")
    assert time.monotonic() - begun < 2


def test_the_deadline_spans_all_redirects(web):
    HostileHandler.lazy = lambda self, n: (
        time.sleep(0.2),
        self.answer(302, b"", Location="/lazy/"),
    )
    begun = time.monotonic()
    assert refusal(f"{web.url}/lazy/", timeout_s=0.5)[0] == "timeout"
    assert time.monotonic() - begun < 1


def test_five_redirects_are_followed(web):
    assert fetcher().fetch(f"{web.url}/redirects/4") == BODY


def test_a_redirect_beyond_ascii_is_followed(web):
    assert fetcher().fetch(f"{web.url}/unicode/") == BODY
    assert web.asked[1][0] == "/fine/f%C3%BCr"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("ftp://example.com/x", ("bad_url", "scheme ftp")),
        ("file:///etc/passwd", ("bad_url", "scheme file")),
        ("http://[", ("bad_url", "redirect")),
        ("http://169.254.169.254/latest/meta-data", ("private_address", "169.254.169.254")),
        ("http://10.0.0.1/", ("private_address", "10.0.0.1")),
        ("//2130706434:99999/", ("bad_url", None)),
    ],
)
def test_a_redirect_is_checked_like_an_address(web, target, expected):
    web.away = target
    assert refusal(f"{web.url}/away/") == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/x.jpg", "bad_url"),
        ("javascript:alert(1)", "bad_url"),
        ("data:image/png;base64,AAAA", "bad_url"),
        ("//example.com/x.jpg", "bad_url"),
        ("http://", "bad_url"),
        ("http:///x.jpg", "bad_url"),
        ("http://example.com:99999/", "bad_url"),
        ("http://exa mple.com/", "bad_url"),
        ("", "bad_url"),
        ("http://nothing.invalid/x.jpg", "dns"),
        ("http://nothing.invalid./x.jpg", "dns"),
        ("http://" + "a" * 70 + ".localhost.invalid/", "dns"),
        ("http://" + "a" * 70 + ".com/", "dns"),
        ("http://127.0.0.1/x.jpg", "private_address"),
        ("http://localhost/x.jpg", "private_address"),
        ("http://picture.localhost/x.jpg", "private_address"),
        ("http://2130706433/x.jpg", "private_address"),
        ("http://0x7f.1/x.jpg", "private_address"),
        ("http://[::1]/x.jpg", "private_address"),
        ("http://[::ffff:127.0.0.1]/x.jpg", "private_address"),
        ("http://0.0.0.0/x.jpg", "private_address"),
        ("http://192.168.1.1/x.jpg", "private_address"),
    ],
)
def test_an_address_that_may_not_be_asked_is_refused(url, reason):
    assert refusal(url, allow_addresses=())[0] == reason


def test_a_closed_port_is_a_connection_failure():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/") == ("connection", "Connection refused")


def test_the_address_checked_is_the_address_connected_to(web, monkeypatch):
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    connected = []

    def rebinding(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in next(answers)]

    def note(connection, address):
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(addresses.DeadlineSocket, "connect", note)
    assert refusal("http://rebinding.example/", allow_addresses=())[0] == "connection"
    assert connected == ["93.184.216.34"]


def test_only_the_public_ones_of_several_addresses_are_tried(monkeypatch):
    connected = []

    def note(connection, address):
        connected.append(address[0])
        raise ConnectionRefusedError

    def mixed(host, port, **_):
        names = ["10.0.0.1", "93.184.216.34", "169.254.169.254", "93.184.216.35"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in names]

    monkeypatch.setattr(socket, "getaddrinfo", mixed)
    monkeypatch.setattr(addresses.DeadlineSocket, "connect", note)
    assert refusal("http://mixed.example/", allow_addresses=())[0] == "connection"
    assert connected == ["93.184.216.34", "93.184.216.35"]


@pytest.mark.parametrize(
    ("value", "forbidden"),
    [
        ("noai", "noai"),
        ("NoImageAI", "noimageai"),
        ("nofollow, noindex", "noindex"),
        ("none", "none"),
        ("witmill: noai", "noai"),
        ("*: noimageindex", "noimageindex"),
        ("googlebot: noindex", None),
        ("googlebot: nofollow, noindex", None),
        ("googlebot: noindex, witmill: noai", "noai"),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", "noai"),
        ("max-snippet: 20, noindex", "noindex"),
        ("all", None),
        ("nofollow", None),
        ("noaitch", None),
        (":,::,", None),
        ("", None),
    ],
)
def test_robots_directives_are_read_as_their_owner_meant(value, forbidden):
    assert forbidding_directive(value, {"witmill"}) == forbidden


def test_an_owner_who_says_no_is_heard(web):
    assert refusal(f"{web.url}/robots/noai") == ("robots_tag", "noai")
    assert refusal(f"{web.url}/robots/Witmill:%20noindex") == ("robots_tag", "noindex")
    assert fetcher().fetch(f"{web.url}/robots/otherbot:%20noindex") == BODY


def test_a_product_token_is_the_name_before_the_version():
    assert product_token("WitMill/1.0 (+https://example.org)") == "witmill"
    assert product_token("bot") == "bot"


def test_a_host_is_not_asked_for_more_than_its_share_at_a_time(web):
    one = fetcher(per_host=2, timeout_s=0.3)
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(one.fetch, [f"{web.url}/busy/{i}" for i in range(10)]))
    assert bodies == [BODY] * 10
    assert web.most_at_once == 2
    assert not one._slots._slots


def test_an_untrusted_certificate_is_refused(secure_web):
    reason, detail = refusal(f"{secure_web.url}/fine/")
    assert (reason, detail) == ("tls", "self-signed certificate")


def test_a_certificate_for_another_name_is_refused(secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    reason, detail = refusal(f"{secure_web.url}/fine/".replace("pictures", "paintings"))
    assert reason == "tls"
    assert "Hostname mismatch" in detail


def test_plain_text_where_tls_was_expected_is_refused(web):
    assert refusal(f"{web.url}/fine/".replace("http:", "https:"))[0] == "tls"


def test_a_trusted_certificate_is_enough(secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert fetcher().fetch(f"{secure_web.url}/fine/") == BODY
    assert secure_web.asked[0][1]["Host"] == secure_web.url.removeprefix("https://")


def test_a_slow_drip_over_tls_ends_at_the_deadline(secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert refusal(f"{secure_web.url}/slow_body/", timeout_s=0.5)[0] == "timeout"


def test_a_silent_tls_handshake_ends_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert refusal(url, timeout_s=0.3)[0] == "timeout"


def test_encryption_is_not_given_up_on_the_way(web, secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    secure_web.away = f"{web.url}/fine/"
    web.away = f"{secure_web.url}/fine/"
    assert refusal(f"{secure_web.url}/away/") == ("bad_url", "redirect from https to http")
    assert fetcher().fetch(f"{web.url}/away/") == BODY
