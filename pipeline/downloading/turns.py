"""Whose turn it is: the next URL of a part to ask for, so that no thread waits for a busy host.

This orders one part's URLs before a thread takes one. `host_turns` then makes the thread wait, also
for other parts and processes, and at every host that redirects lead to.
"""

import heapq
import threading

import numpy as np
import numpy.typing as npt

MAX_WAITING_BYTES = 256 << 20
"""Fetched and not yet decoded, in each process; beyond it nothing more is asked for."""


class Turns:
    """Hands out each position of a list of URLs once, to any number of threads.

    The next is the first whose host has room. So requests to a host are spread over the whole part
    as the list spreads them, and a slow host keeps at most `per_host` threads busy.
    """

    def __init__(self, hosts: npt.NDArray[np.int64], per_host: int) -> None:
        """Begin with the first.

        Args:
            hosts: number of the host of each position, from 0.
            per_host: positions of one host that are handed out at a time.
        """
        self._hosts = hosts
        self._per_host = per_host
        self._following, first = _chains(hosts)
        self._busy = np.zeros(int(hosts.max(initial=-1)) + 1, np.int32)
        # The next position of each host that has room, and, by host, the one after those handed out.
        self._ready: list[int] = np.sort(first[first >= 0]).tolist()
        self._next = first.copy()
        self._waiting_bytes = 0
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._hosts)

    def take(self) -> int:
        """Return a position; to be called once for each of them, waits until a host has room."""
        with self._changed:
            while not self._ready or self._waiting_bytes > MAX_WAITING_BYTES:
                self._changed.wait()
            position = heapq.heappop(self._ready)
            host = self._hosts[position]
            self._next[host] = self._following[position]
            self._busy[host] += 1
            if self._busy[host] < self._per_host:
                self._make_ready(host)
            return position

    def fetched(self, position: int, size: int) -> None:
        """Note that the host of `position` has room again, and that `size` bytes wait to be decoded."""
        with self._changed:
            self._waiting_bytes += size
            host = self._hosts[position]
            if self._busy[host] == self._per_host:
                self._make_ready(host)
            self._busy[host] -= 1
            self._changed.notify()

    def decoded(self, size: int) -> None:
        """Note that `size` bytes wait no more."""
        with self._changed:
            was_full = self._waiting_bytes > MAX_WAITING_BYTES
            self._waiting_bytes -= size
            if was_full and self._waiting_bytes <= MAX_WAITING_BYTES:
                self._changed.notify_all()

    def _make_ready(self, host: int) -> None:
        if self._next[host] >= 0:
            heapq.heappush(self._ready, int(self._next[host]))


def _chains(
    hosts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, by position, the next of the same host, or -1; and the first position of each host."""
    order = np.argsort(hosts, kind="stable")
    sorted_hosts = hosts[order]
    following = np.full(len(hosts), -1, np.int64)
    is_same = sorted_hosts[1:] == sorted_hosts[:-1]
    following[order[:-1][is_same]] = order[1:][is_same]
    first = np.full(int(hosts.max(initial=-1)) + 1, -1, np.int64)
    starts = np.flatnonzero(np.append(True, ~is_same)[: len(hosts)])
    first[sorted_hosts[starts]] = order[starts]
    return following, first
