"""Fetch one file from a web nobody vouches for, within limits, and only where its owner lets us."""

import http.client
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, IncompleteRead, LocationParseError
from urllib3.util import Url, parse_url

from pipeline.pictures.addresses import (
    AddressRefused,
    DeadlineTLSSocket,
    Network,
    connect,
    resolve,
    seconds_left,
)

MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 16

FORBIDDING = {"noai", "noimageai", "noindex", "noimageindex", "none"}
"""X-Robots-Tag directives by which an owner says no."""

_REDIRECTS = {301, 302, 303, 307, 308}
_NOT_AGENTS = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


class FetchRefused(Exception):
    """Nothing was fetched; `reason` is a code of the download stage, `detail` says what was seen, if anything."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        """Remember why."""
        # Both as `args`: by them an exception is made again in another process.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.reason if self.detail is None else f"{self.reason}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a fetch may cost and where it may go.

    Attributes:
        timeout_s: for everything from connecting to the last byte, redirects included.
        user_agent: sent as it is; its product token is what X-Robots-Tag may address.
        robots_tokens: further names by which X-Robots-Tag may address us.
        per_host: requests to one host at a time.
        allow_addresses: ranges reached although they are not public, such as 127.0.0.0/8.
    """

    user_agent: str
    timeout_s: float = 10.0
    max_bytes: int = 20_000_000
    per_host: int = 2
    robots_tokens: tuple[str, ...] = ()
    allow_addresses: tuple[str, ...] = ()


class Fetcher:
    """Fetches under `limits`; one for all threads. Proxies of the environment are not used."""

    def __init__(self, limits: Limits) -> None:
        """Prepare; nothing is connected yet."""
        self.limits = limits
        self._allowed: Sequence[Network] = [ip_network(a) for a in limits.allow_addresses]
        self._slots = _HostSlots(limits.per_host)
        self._names = {product_token(limits.user_agent), *limits.robots_tokens}
        self._tls = ssl.create_default_context()
        self._tls.sslsocket_class = DeadlineTLSSocket

    def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`. Time spent waiting for a turn at a busy host does not count.

        Raises:
            FetchRefused: with a reason code of the download stage.
        """
        spent = 0.0
        for _ in range(MAX_REDIRECTS + 1):
            place = _parse(url)
            assert place.host is not None
            with self._slots.hold(place.host):
                begun = time.monotonic()
                answer = self._ask(place, deadline=begun + self.limits.timeout_s - spent)
                spent += time.monotonic() - begun
            if isinstance(answer, bytes):
                return answer
            url = _redirected(place, answer)
        raise FetchRefused("too_many_redirects", f"more than {MAX_REDIRECTS}")

    def _ask(self, place: Url, *, deadline: float) -> bytes | str:
        """Return the body, or where the answer redirects to."""
        late = FetchRefused("timeout", f"{self.limits.timeout_s:g} s")
        try:
            connection = self._connect(place, deadline)
            try:
                return self._exchange(connection, place)
            finally:
                connection.close()
        except TimeoutError as error:
            raise late from error
        except (HTTPError, http.client.HTTPException, OSError) as error:
            if time.monotonic() >= deadline:
                raise late from error
            raise _lost(error) from error

    def _connect(self, place: Url, deadline: float) -> HTTPConnection:
        host = str(place.host).strip("[]")
        port = place.port or (443 if place.scheme == "https" else 80)
        try:
            addresses = resolve(host, port)
        except OSError as error:
            raise FetchRefused("dns", host) from error
        seconds_left(deadline)
        try:
            plain = connect(addresses, port, allowed=self._allowed, deadline=deadline)
        except AddressRefused as error:
            raise FetchRefused("private_address", str(error)) from error
        if place.scheme == "http":
            connection = HTTPConnection(host, port)
            connection.sock = plain
            return connection
        secure = HTTPSConnection(host, port)
        try:
            encrypted = self._tls.wrap_socket(plain, server_hostname=host.rstrip("."))
        except (ssl.SSLError, ValueError) as error:
            plain.close()
            raise FetchRefused("tls", _about(error)) from error
        except OSError:
            plain.close()
            raise
        assert isinstance(encrypted, DeadlineTLSSocket)
        encrypted.deadline = deadline
        secure.sock = encrypted
        return secure

    def _exchange(self, connection: HTTPConnection, place: Url) -> bytes | str:
        connection.request(
            "GET",
            place.request_uri,
            headers={
                "User-Agent": self.limits.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
            preload_content=False,
        )
        response = connection.getresponse()
        try:
            target = response.headers.get("Location") if response.status in _REDIRECTS else None
            if response.status != 200 and not target:
                raise FetchRefused(f"http_{response.status}")
            self._check_robots_tag(response)
            if target:
                return target
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                raise FetchRefused("content_encoding", encoding[:50])
            return self._body(response)
        finally:
            response.close()

    def _check_robots_tag(self, response: urllib3.BaseHTTPResponse) -> None:
        for value in response.headers.getlist("X-Robots-Tag"):
            directive = forbidding_directive(value, self._names)
            if directive:
                raise FetchRefused("robots_tag", directive)

    def _body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        limit = self.limits.max_bytes
        announced = response.headers.get("Content-Length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
            raise FetchRefused("too_large", f"{announced[:20]} bytes announced")
        body = bytearray()
        while chunk := response.read(CHUNK_BYTES, decode_content=False):
            body += chunk
            if len(body) > limit:
                raise FetchRefused("too_large", f"more than {limit} bytes")
        if not body:
            raise FetchRefused("empty")
        return bytes(body)


def product_token(user_agent: str) -> str:
    """Return the name before the version in a user agent, lower case."""
    return re.split(r"[/\s]", user_agent, maxsplit=1)[0].lower()


def forbidding_directive(value: str, names: set[str]) -> str | None:
    """Return the directive of an X-Robots-Tag value that forbids use by one of `names`, if any.

    A directive after `agent:` is for that agent alone; one without is for everybody.
    """
    is_for_us = True
    for piece in value.lower().split(","):
        name, colon, rest = piece.partition(":")
        if colon and name.strip() not in _NOT_AGENTS:
            is_for_us = name.strip() in names or name.strip() == "*"
            piece = rest
        if is_for_us and piece.strip() in FORBIDDING:
            return piece.strip()
    return None


def _parse(url: str) -> Url:
    try:
        place = parse_url(url)
    except (LocationParseError, UnicodeError) as error:
        raise FetchRefused("bad_url") from error
    if place.scheme not in ("http", "https"):
        raise FetchRefused("bad_url", f"scheme {str(place.scheme)[:20]}")
    if not place.host:
        raise FetchRefused("bad_url", "no host")
    return place


def _redirected(place: Url, location: str) -> str:
    try:
        # Headers are read as Latin-1; what stands there beyond ASCII is UTF-8 in practice.
        target = urljoin(
            place.url, location.encode("latin-1", "replace").decode("utf-8", "replace")
        )
    except ValueError as error:
        raise FetchRefused("bad_url", "redirect") from error
    if place.scheme == "https" and _parse(target).scheme == "http":
        raise FetchRefused("bad_url", "redirect from https to http")
    return target


def _lost(error: Exception) -> FetchRefused:
    # What was received by then varies from run to run, and so has no place in the detail.
    if isinstance(error, http.client.RemoteDisconnected):
        return FetchRefused("connection", "closed without an answer")
    if isinstance(error, IncompleteRead | http.client.IncompleteRead):
        return FetchRefused("connection", "closed before the end")
    if isinstance(error, HTTPError):
        cause = next((a for a in reversed(error.args) if isinstance(a, Exception)), None)
        return FetchRefused("bad_response", type(error).__name__) if cause is None else _lost(cause)
    if isinstance(error, http.client.HTTPException | ValueError):
        return FetchRefused("bad_response", type(error).__name__)
    return FetchRefused("connection", _about(error))


def _about(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or type(error).__name__
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else type(error).__name__


class _HostSlots:
    """Lets at most `per_host` threads at a time have a host; forgets hosts nobody waits for."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._lock = threading.Lock()
        self._slots: dict[str, threading.Semaphore] = {}
        self._users: dict[str, int] = {}

    @contextmanager
    def hold(self, host: str) -> Iterator[None]:
        with self._lock:
            slot = self._slots.setdefault(host, threading.Semaphore(self._per_host))
            self._users[host] = self._users.get(host, 0) + 1
        try:
            with slot:
                yield
        finally:
            with self._lock:
                self._users[host] -= 1
                if not self._users[host]:
                    del self._users[host], self._slots[host]
