"""libcurl for one exchange at a time: what it may do, how much may come, and what its errors mean."""

import math
import os
import re
import socket
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import pycurl

from pipeline.fetching.addresses import Network, may_connect
from pipeline.fetching.exchange import Answer, Exchange
from pipeline.fetching.refusals import FetchRefused

MAX_HEADER_BYTES = 1 << 16
"""Of one answer, with all that is sent ahead of it (100 Continue)."""
MAX_UNWANTED_BYTES = 1 << 14
"""Of a body nobody wants, read so that its connection can be used again."""

_CERTIFICATE_ERROR = re.compile(r"(?:problem|verify result): ([^:(]+)(?<! )")
_TLS_ERROR = re.compile(r"error:[0-9A-Fa-f]+:[^:]*:[^:]*:([^:]+)")


class Handle:
    """One of libcurl's handles, used for one exchange after another, and what has come of the present.

    Attributes:
        exchange: the present one; there is none in between.
    """

    exchange: Exchange

    def __init__(self, allowed: Sequence[Network], certificates: str) -> None:
        """Prepare for exchanges with addresses that are public or in `allowed`."""
        self._allowed = allowed
        self.curl = _new_curl()
        self.curl.setopt(pycurl.CAINFO, certificates)
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self.curl.setopt(pycurl.HEADERFUNCTION, self._header)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._write)

    def begin(self, exchange: Exchange) -> None:
        """Set libcurl up for `exchange`."""
        request = exchange.request
        self.exchange = exchange
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._header_bytes = self._unwanted = 0
        self._in_body = self._wanted = False
        self._body = bytearray()
        self._failure: BaseException | None = None
        self.curl.setopt(pycurl.URL, request.target.url)
        self.curl.setopt(pycurl.RESOLVE, exchange.entries())
        self.curl.setopt(pycurl.HTTPHEADER, request.headers)
        if request.cut:
            self.curl.setopt(pycurl.ACCEPT_ENCODING, "")
        else:
            self.curl.unsetopt(pycurl.ACCEPT_ENCODING)
        left = request.deadline - time.monotonic()
        self.curl.setopt(pycurl.TIMEOUT_MS, max(1, math.ceil(left * 1000)))

    def end(self, code: int, message: str) -> None:
        """Hand the outcome to whoever waits."""
        self.exchange.end(self._outcome(code, message))
        # Else an idle handle would keep the body.
        del self.exchange, self._body

    def _outcome(self, code: int, message: str) -> Answer | BaseException:
        request, body = self.exchange.request, bytes(self._body)
        is_cut = request.cut and len(body) == request.max_bytes
        if self._failure is not None:
            return self._failure
        if is_cut or (self._in_body and (code == 0 or not self._wanted)):
            return Answer(self._status, self._headers, body)
        return _refusal(code, message, self.curl.getinfo(pycurl.OS_ERRNO))

    def _open_socket(self, purpose: int, address: Any) -> Any:
        # This is the very address that libcurl connects to, wherever it has it from.
        found = ip_address(str(address.addr[0]).partition("%")[0])
        if purpose != pycurl.SOCKTYPE_IPCXN or not may_connect(found, self._allowed):
            self._failure = FetchRefused("private_address", str(found))
            return pycurl.SOCKET_BAD
        try:
            return _Socket(address.family, address.socktype, address.protocol)
        except OSError as error:
            self._failure = FetchRefused("connection", os.strerror(error.errno or 0))
            return pycurl.SOCKET_BAD

    def _header(self, line: bytes) -> int | None:
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            return self._stop(FetchRefused("bad_response", "headers too long"))
        if self._in_body:
            return None
        if not line.strip(b"\r\n"):
            return self._headers_end()
        if line.startswith(b"HTTP/") and not self._headers:
            words = line.split(None, 2)
            self._status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
            return None
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            self._headers.append((name.strip().lower(), value.strip()))
        return None

    def _headers_end(self) -> int | None:
        if 100 <= self._status < 200 and self._status != 101:
            self._headers = []
            return None
        self._in_body = True
        try:
            self._wanted = self.exchange.request.wants_body(self._status, self._headers)
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            self._failure = error
        if self._failure is None and self._wanted:
            return None
        is_short = self._status >= 200 and self._announced() <= MAX_UNWANTED_BYTES
        return None if is_short else 0

    def _announced(self) -> int:
        sizes = [value for name, value in self._headers if name == "content-length"]
        return int(sizes[0][:20]) if sizes and sizes[0].isascii() and sizes[0].isdigit() else 0

    def _write(self, data: bytes) -> int | None:
        request = self.exchange.request
        if not self._wanted or self._failure is not None:
            self._unwanted += len(data)
            return None if self._unwanted <= MAX_UNWANTED_BYTES else 0
        self._body += data
        if len(self._body) <= request.max_bytes:
            return None
        if request.cut:
            del self._body[request.max_bytes :]
            return 0
        return self._stop(FetchRefused("too_large", f"more than {request.max_bytes} bytes"))

    def _stop(self, error: FetchRefused) -> int:
        self._failure = self._failure or error
        return 0


class _Socket(socket.socket):
    """A socket that pycurl makes a copy of and drops."""

    def __del__(self) -> None:
        self.close()


def _new_curl() -> pycurl.Curl:
    """Return a handle for plain exchanges and nothing else."""
    curl = pycurl.Curl()
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.NOSIGNAL, 1)
    return curl


def _refusal(code: int, message: str, errno: int) -> FetchRefused:
    # What was received by then varies from run to run, and so has no place in the detail.
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return FetchRefused("timeout")
    if code == pycurl.E_COULDNT_RESOLVE_HOST:
        return FetchRefused("dns")
    if code == pycurl.E_URL_MALFORMAT:
        return FetchRefused("bad_url")
    if code == pycurl.E_PEER_FAILED_VERIFICATION:
        return FetchRefused("tls", _certificate_problem(message))
    if code == pycurl.E_SSL_CONNECT_ERROR and (found := _TLS_ERROR.search(message)):
        return FetchRefused("tls", found[1].strip())
    if code == pycurl.E_BAD_CONTENT_ENCODING:
        return FetchRefused("content_encoding", "in transfer")
    if code == pycurl.E_COULDNT_CONNECT:
        return FetchRefused("connection", os.strerror(errno) if errno else "no address answers")
    if code in _LOST and "chunk" not in message.lower():
        return FetchRefused("connection", _LOST[code])
    return FetchRefused("bad_response", _BROKEN.get(code, f"libcurl error {code}"))


# Which of the last four it is, and whether with an error number, is a matter of moments.
_LOST = {
    pycurl.E_SSL_CONNECT_ERROR: "closed during the TLS handshake",
    pycurl.E_GOT_NOTHING: "closed before the end",
    pycurl.E_PARTIAL_FILE: "closed before the end",
    pycurl.E_SEND_ERROR: "closed before the end",
    pycurl.E_RECV_ERROR: "closed before the end",
}
_BROKEN = {
    pycurl.E_RECV_ERROR: "broken chunks",
    pycurl.E_UNSUPPORTED_PROTOCOL: "no HTTP",
    getattr(pycurl, "E_WEIRD_SERVER_REPLY", 8): "no HTTP",
}


def _certificate_problem(message: str) -> str:
    if "subject name" in message or "subjectAltName" in message:
        return "certificate is for another name"
    found = _CERTIFICATE_ERROR.search(message)
    return found[1] if found else "certificate"
