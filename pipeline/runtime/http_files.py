"""Read files over http and https: retried with growing pauses, resumed where they broke off, checked for length."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, InvalidHeader, MaxRetryError

from pipeline.errors import StorageError
from pipeline.runtime.storage import COPY_BYTES, local_path, storage_errors

Answer = TypeVar("Answer")

ATTEMPTS = 6
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
PROGRESS_BYTES = 1 << 20
"""An attempt that brought as much counts as the first again: large files over bad lines do end."""

_TIMEOUT = urllib3.Timeout(connect=30, read=60)
_REDIRECTS = urllib3.Retry(total=None, connect=0, read=0, other=0, redirect=5)
_MOST_DIGITS = 18
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class _NotNow(Exception):
    """The server may answer better later; `wait_s` is how long it asks to wait."""

    def __init__(self, seen: str, wait_s: float = 0.0) -> None:
        super().__init__(seen)
        self.wait_s = wait_s


def copy_file(url: str, target: str) -> None:
    """Write the file at `url` to the local path `target`.

    Raises:
        StorageError: if it cannot be had: refused, cut short however often, or unreachable.
    """
    with storage_errors("write", target), Path(local_path(target)).open("wb") as file:
        transfer = _Transfer(url, target, file)
        _persist(url, transfer.go_on, file.tell)


def read_range(url: str, offset: int, length: int) -> bytes:
    """Return `length` bytes of the file at `url` from `offset` on, or as many as there are.

    Raises:
        StorageError: if they cannot be had, or the server sends whole files only.
    """
    headers = {"Range": f"bytes={offset}-{offset + length - 1}"}

    def receive() -> bytes:
        with _answer(url, headers) as response:
            if response.status != 206:
                raise StorageError(
                    f"cannot read a part of {url}: the server sends whole files only; "
                    "expected one that answers range requests, or a local copy"
                )
            _check_place(response, offset)
            data = bytearray()
            for piece in response.stream(COPY_BYTES, decode_content=False):
                data += piece
                if len(data) >= length:
                    break
            whole = _whole_length(response)
            if whole is not None and len(data) < min(length, whole - offset):
                raise _NotNow(f"{len(data):,} of the {length:,} bytes from {offset} on came")
            return bytes(data[:length])

    return _persist(url, receive, lambda: 0)


@dataclass
class _Transfer:
    """A file on its way; `tag` says which version of it the bytes so far belong to."""

    url: str
    target: str
    file: BinaryIO
    tag: str = ""

    def go_on(self) -> None:
        """Ask for what is missing and write it."""
        received = self.file.tell() if self.tag else 0
        headers = {"Range": f"bytes={received}-", "If-Range": self.tag} if received else {}
        with _answer(self.url, headers) as response:
            if not _continues(response, received):
                self.file.seek(0)
                self.file.truncate()
            tag = response.headers.get("ETag", "")
            # A weak tag says nothing about bytes.
            self.tag = "" if tag.startswith("W/") else tag
            for piece in response.stream(COPY_BYTES, decode_content=False):
                with storage_errors("write", self.target):
                    self.file.write(piece)
            whole, received = _whole_length(response), self.file.tell()
            if whole is not None and received < whole:
                raise _NotNow(f"it breaks off, {received:,} of {whole:,} bytes came")


def _continues(response: urllib3.BaseHTTPResponse, received: int) -> bool:
    if response.status == 206:
        _check_place(response, received)
    return response.status == 206


def _check_place(response: urllib3.BaseHTTPResponse, start: int) -> None:
    place = response.headers.get("Content-Range", "")
    if not place.startswith(f"bytes {start}-"):
        raise _NotNow(f"bytes from {start} on were asked for, {place or 'others'} came")


def _whole_length(response: urllib3.BaseHTTPResponse) -> int | None:
    whole = response.headers.get("Content-Range", "").rpartition("/")[2].strip()
    return int(whole) if whole.isdecimal() and len(whole) <= _MOST_DIGITS else None


@contextmanager
def _answer(url: str, headers: Mapping[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
    response = _pool(url).request(
        "GET",
        url,
        headers={"Accept-Encoding": "identity", **headers},
        preload_content=False,
        decode_content=False,
        retries=_REDIRECTS,
        timeout=_TIMEOUT,
    )
    try:
        if response.status in _PASSING:
            raise _NotNow(_status_line(response), _retry_after(response))
        if response.status not in (200, 206):
            raise StorageError(f"cannot read {url}: {_status_line(response)}; check the address")
        yield response
    finally:
        # Not released for reuse: what may be left of a body would be read to the end first.
        response.close()


def _pool(url: str) -> urllib3.PoolManager:
    place = urlsplit(url)
    proxy = getproxies().get(place.scheme)
    return _pool_through(None if not proxy or proxy_bypass(place.netloc) else proxy)


@cache
def _pool_through(proxy: str | None) -> urllib3.PoolManager:
    return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()


def _status_line(response: urllib3.BaseHTTPResponse) -> str:
    return f"HTTP Error {response.status} {response.reason or ''}".rstrip()


def _retry_after(response: urllib3.BaseHTTPResponse) -> float:
    try:
        return _REDIRECTS.get_retry_after(response) or 0.0
    except InvalidHeader:
        return 0.0


def _persist(url: str, attempt: Callable[[], Answer], received: Callable[[], int]) -> Answer:
    failures = 0
    while True:
        before = received()
        try:
            return attempt()
        except (_NotNow, HTTPError, OSError) as error:
            failures = 1 if received() >= before + PROGRESS_BYTES else failures + 1
            pause = max(FIRST_PAUSE_S * 2 ** (failures - 1), getattr(error, "wait_s", 0.0))
            if failures == ATTEMPTS or pause > LONGEST_PAUSE_S:
                later = f"; it asks to come back in {pause:,.0f} s" if failures < ATTEMPTS else ""
                raise StorageError(f"cannot read {url}: {_seen(error)}{later}") from error
            time.sleep(pause)


def _seen(error: Exception) -> str:
    if isinstance(error, MaxRetryError) and error.reason:
        return _seen(error.reason)
    if isinstance(error, IncompleteRead):
        whole = error.partial + error.expected
        return f"it breaks off, {error.partial:,} of {whole:,} bytes came"
    cause = next((e for e in reversed(error.args) if isinstance(e, Exception)), None)
    if isinstance(error, HTTPError) and cause is not None:
        return _seen(cause)
    return (str(error).splitlines() or [type(error).__name__])[0]
