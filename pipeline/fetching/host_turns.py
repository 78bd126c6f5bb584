"""Whose turn it is at a host: so many at a time, so many a second, nobody while it wants to be left alone."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.fetching.host_pace import HostPace, machine_pace
from pipeline.fetching.refusals import FetchRefused

STRIKES = 5
"""Files in a row that a host gave only 429 and 503 for, after which it is left alone."""
REST_S = 600.0


class HostTurns:
    """Makes threads wait until a host may be asked.

    Attributes:
        seconds_waited: by all threads together.
    """

    def __init__(
        self, per_host: int, rate: float, max_wait_s: float, pace: HostPace | None = None
    ) -> None:
        """Let `per_host` threads at a time have a host, all processes together `rate` times a second.

        Args:
            rate: 0 for any.
            max_wait_s: longest that a closed host is waited for.
            pace: that of the machine by default.
        """
        self.seconds_waited = 0.0
        self._per_host = per_host
        self._interval = 1 / rate if rate else 0.0
        self._max_wait_s = max_wait_s
        self._pace = pace or machine_pace()
        self._lock = threading.Lock()
        self._slots: dict[str, threading.Semaphore] = {}
        self._users: dict[str, int] = {}
        self._strikes: dict[str, int] = {}

    @contextmanager
    def hold(self, host: str, delay: float) -> Iterator[None]:
        """Have a turn at `host`, `delay` seconds from the one before if not more.

        Raises:
            FetchRefused: host_busy, if it is closed for longer than anybody may wait.
        """
        begun = time.monotonic()
        with self._slot(host):
            try:
                self._wait(host, max(self._interval, delay))
            finally:
                with self._lock:
                    self.seconds_waited += time.monotonic() - begun
            yield

    def _wait(self, host: str, interval: float) -> None:
        patience = self._max_wait_s
        while True:
            closed = self._pace.seconds_closed(host)
            if closed > patience:
                raise FetchRefused("host_busy")
            patience -= closed
            if interval:
                closed = self._pace.reserve(host, interval) - time.monotonic()
            if closed > 0:
                time.sleep(closed)
            if not self._pace.seconds_closed(host):
                return

    def leave(self, host: str, seconds: float) -> None:
        """Let nobody ask `host` for so long."""
        self._pace.close(host, seconds)

    def refused(self, host: str) -> None:
        """Note that a file was given up for 429 or 503."""
        with self._lock:
            self._strikes[host] = self._strikes.get(host, 0) + 1
            is_out = self._strikes[host] >= STRIKES
        if is_out:
            self.leave(host, REST_S)

    def answered(self, host: str) -> None:
        """Note any other answer."""
        with self._lock:
            self._strikes.pop(host, None)

    @contextmanager
    def _slot(self, host: str) -> Iterator[None]:
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
