"""Many HTTP exchanges at a time through one event loop, a thread of its own, on top of libcurl.

libcurl keeps connections and TLS sessions, and reads the trusted certificates once. It is told the
addresses of names, because of its own look-ups only ten run at a time.
"""

import atexit
import contextlib
import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cache

import pycurl

from pipeline.fetching.addresses import Address, Network, may_connect
from pipeline.fetching.curl_handle import Handle
from pipeline.fetching.exchange import Answer, Exchange, Request
from pipeline.fetching.names import process_names
from pipeline.fetching.refusals import FetchRefused

MAX_ADDRESSES = 4
"""Addresses of one host that are tried, of those that may be."""

_IDLE_CONNECTIONS = 256


class Transport:
    """Exchanges with addresses that are public or in `allowed`; may be used by any number of threads."""

    def __init__(self, allowed: Sequence[Network], certificates: str) -> None:
        """Start the loop; `certificates` is a file of those to trust."""
        self._allowed = allowed
        self._certificates = certificates
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _IDLE_CONNECTIONS)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self._selector = selectors.DefaultSelector()
        self._waker, woken = socket.socketpair()
        self._waker.setblocking(False)
        woken.setblocking(False)
        self._selector.register(woken, selectors.EVENT_READ)
        self._woken = woken
        self._due = math.inf
        self._inbox: deque[Exchange] = deque()
        self._idle: list[Handle] = []
        self._active: dict[pycurl.Curl, Handle] = {}
        self._stopping = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="witmill-fetch", daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> Answer:
        """Return the answer to `request`.

        Raises:
            FetchRefused: with a reason code of the download stage, or what `wants_body` raised.
        """
        exchange = Exchange(request, self._addresses(request))
        with self._lock:
            if self._error is not None:
                raise self._error
            self._inbox.append(exchange)
            is_first = len(self._inbox) == 1
        # The loop looks after all that is there when it is woken.
        if is_first:
            self._wake()
        return exchange.wait()

    def _addresses(self, request: Request) -> list[Address]:
        host = request.target.host
        if host.startswith("["):
            return []
        try:
            found = process_names().look_up(host, request.deadline)
        except TimeoutError as error:
            raise FetchRefused("timeout") from error
        except OSError as error:
            raise FetchRefused("dns", host) from error
        usable = [address for address in found if may_connect(address, self._allowed)]
        if not usable:
            raise FetchRefused("private_address", str(found[0]))
        return usable[:MAX_ADDRESSES]

    def close(self) -> None:
        """End the loop; whatever is under way fails."""
        self._stopping = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        # A full buffer wakes as well as one more byte; a closed loop has answered everything.
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def _run(self) -> None:
        error: BaseException = RuntimeError("the transport was closed")
        try:
            while not self._stopping:
                self._turn()
        except BaseException as fault:  # noqa: BLE001 - raised in every thread that waits
            error = fault
        finally:
            with self._lock:
                self._error = error
            # First those who wait, as libcurl may be what has failed.
            for exchange in (*self._inbox, *(h.exchange for h in self._active.values())):
                exchange.end(error)
            self._waker.close()
            self._woken.close()
            for curl in self._active:
                # The one that failed may not be in it.
                with contextlib.suppress(pycurl.error):
                    self._multi.remove_handle(curl)
            self._multi.close()
            self._selector.close()

    def _turn(self) -> None:
        wait = None if self._due == math.inf else max(0.0, self._due - time.monotonic())
        for key, events in self._selector.select(wait):
            if key.fileobj is self._woken:
                self._begin_new()
            else:
                ready = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
                ready |= pycurl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
                self._multi.socket_action(key.fd, ready)
        if time.monotonic() >= self._due:
            self._due = math.inf
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        more = 1
        while more:
            more, finished, failed = self._multi.info_read()
            for curl in finished:
                self._end(curl, 0, "")
            for curl, code, message in failed:
                self._end(curl, code, message)

    def _begin_new(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        while self._inbox:
            handle = self._idle.pop() if self._idle else Handle(self._allowed, self._certificates)
            exchange = self._inbox.popleft()
            # From here on it is told whatever fails.
            self._active[handle.curl] = handle
            try:
                handle.begin(exchange)
            except (pycurl.error, ValueError):
                self._rest(handle, pycurl.E_URL_MALFORMAT, "")
                continue
            self._multi.add_handle(handle.curl)

    def _end(self, curl: pycurl.Curl, code: int, message: str) -> None:
        self._multi.remove_handle(curl)
        self._rest(self._active[curl], code, message)

    def _rest(self, handle: Handle, code: int, message: str) -> None:
        handle.end(code, message)
        self._idle.append(self._active.pop(handle.curl))

    def _watch(self, what: int, descriptor: int, *_: object) -> None:
        known = descriptor in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if known:
                self._selector.unregister(descriptor)
            return
        events = selectors.EVENT_READ if what & pycurl.POLL_IN else 0
        events |= selectors.EVENT_WRITE if what & pycurl.POLL_OUT else 0
        (self._selector.modify if known else self._selector.register)(descriptor, events)

    def _set_timer(self, milliseconds: int) -> None:
        self._due = math.inf if milliseconds < 0 else time.monotonic() + milliseconds / 1000


@cache
def transport(allowed: tuple[Network, ...], certificates: str) -> Transport:
    """Return this process's transport to the public and `allowed` addresses; it ends with the process."""
    shared = Transport(allowed, certificates)
    atexit.register(shared.close)
    return shared
