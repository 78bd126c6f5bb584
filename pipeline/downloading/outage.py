"""Notice that the network is gone, before its absence is taken for the answer of every host."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from pipeline.downloading.hosts import NOT_ASKED, UNREACHED
from pipeline.errors import NetworkDown
from pipeline.fetching.refusals import FetchRefused

Answer = TypeVar("Answer")

WATCHED_HOSTS = 200
"""Hosts, the last that were asked, of whose answers the share is taken; fewer tell nothing."""


class Watch:
    """Looks at the newest answer of each of the last hosts that were asked.

    Attributes:
        round: goes up by one with each host that comes new among them; so an answer that was followed
            by `WATCHED_HOSTS` rounds was no part of an outage.
    """

    def __init__(self, max_unreachable: float) -> None:
        """Stop when more than this share of the hosts cannot be reached."""
        self.round = 0
        self._max_unreachable = max_unreachable
        self._hosts: OrderedDict[str, str | None] = OrderedDict()
        self._unreached = 0
        self._down = ""
        self._lock = threading.Lock()

    def watched(self, fetch: Callable[[str], Answer]) -> Callable[[str], Answer]:
        """Return `fetch` with its answers looked at.

        It raises NetworkDown once too many hosts cannot be reached, and asks for nothing from then on.
        """

        def fetch_and_see(url: str) -> Answer:
            if self._down:
                raise NetworkDown(self._down)
            try:
                answer = fetch(url)
            except FetchRefused as refused:
                if refused.reason not in NOT_ASKED:
                    self.see(url, refused.reason)
                raise
            self.see(url, None)
            return answer

        return fetch_and_see

    def see(self, url: str, reason: str | None) -> None:
        """Note the answer of a host: why it gave nothing, if so.

        Raises:
            NetworkDown: if too many of the last hosts cannot be reached.
        """
        host = urlsplit(url).netloc.lower()
        missed = reason if reason in UNREACHED else None
        with self._lock:
            if host in self._hosts:
                self._unreached -= self._hosts.pop(host) is not None
            else:
                self.round += 1
            self._hosts[host] = missed
            self._unreached += missed is not None
            if len(self._hosts) > WATCHED_HOSTS:
                self._unreached -= self._hosts.popitem(last=False)[1] is not None
            is_full = len(self._hosts) == WATCHED_HOSTS
            if is_full and self._unreached > self._max_unreachable * WATCHED_HOSTS:
                self._down = self._message()
                raise NetworkDown(self._down)

    def _message(self) -> str:
        counts = Counter(reason for reason in self._hosts.values() if reason)
        seen = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
        return (
            f"of the last {WATCHED_HOSTS} hosts asked, {self._unreached} could not be reached at all "
            f"({seen}), as if the network were down; nothing of that is kept: run the same command "
            "again once it is up, or raise --max-unreachable"
        )
