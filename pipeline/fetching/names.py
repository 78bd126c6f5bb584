"""Look names up: many at a time, no longer than anybody waits, and each once in a while."""

import socket
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, ip_address
from queue import SimpleQueue

from pipeline.fetching.addresses import Address

LOOK_UPS = 256
"""At a time; one that nobody answers takes the resolver's own patience, 10 seconds and more."""
KEPT_NAMES = 100_000
KEPT_S, FAILURE_KEPT_S = 600.0, 60.0


@dataclass
class _Name:
    """A name that was asked for, and until when anybody waits for its answer."""

    name: str
    asked: float
    deadline: float
    answer: Future[list[Address]] = field(default_factory=Future)

    def is_old(self) -> bool:
        failed = self.answer.done() and self.answer.exception() is not None
        return time.monotonic() > self.asked + (FAILURE_KEPT_S if failed else KEPT_S)


class Names:
    """Remembers what names lead to; for any number of threads."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._found: OrderedDict[str, _Name] = OrderedDict()
        self._asked: SimpleQueue[_Name] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._lock = threading.Lock()

    def look_up(self, host: str, deadline: float) -> list[Address]:
        """Return the addresses of `host`, in the resolver's order.

        Raises:
            TimeoutError: if they are not known by `deadline`, on the clock of `time.monotonic`.
            OSError: if there are none.
        """
        name = host.rstrip(".").lower()
        with self._lock:
            kept = self._found.get(name)
            if kept is None or kept.is_old():
                kept = self._found[name] = _Name(name, time.monotonic(), deadline)
                self._found.move_to_end(name)
                self._begin(kept)
            kept.deadline = max(kept.deadline, deadline)
            if len(self._found) > KEPT_NAMES:
                self._found.popitem(last=False)
        return kept.answer.result(max(0.0, deadline - time.monotonic()))

    def _begin(self, asked: _Name) -> None:
        self._asked.put(asked)
        if not self._idle.acquire(blocking=False) and self._threads < LOOK_UPS:
            # The resolver cannot be interrupted, and the end of the process does not wait for these.
            threading.Thread(target=self._work, name="witmill-names", daemon=True).start()
            self._threads += 1

    def _work(self) -> None:
        while True:
            asked = self._asked.get()
            with self._lock:
                is_wanted = time.monotonic() <= asked.deadline
                if not is_wanted and self._found.get(asked.name) is asked:
                    del self._found[asked.name]
            if is_wanted:
                try:
                    asked.answer.set_result(resolve(asked.name))
                except BaseException as error:  # noqa: BLE001 - raised in every thread that waits
                    asked.answer.set_exception(error)
            self._idle.release()


def resolve(name: str) -> list[Address]:
    """Return the addresses of `name`, lower case without a dot at its end, in the resolver's order.

    Names below `.localhost` and `.invalid` are decided here, as RFC 6761 wants and glibc does not.

    Raises:
        OSError: if it has none. The resolver's own time limits apply.
    """
    if name == "localhost" or name.endswith(".localhost"):
        return [IPv4Address("127.0.0.1")]
    if name == "invalid" or name.endswith(".invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "reserved name")
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    texts = dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found)
    return [ip_address(text) for text in texts]


@cache
def process_names() -> Names:
    """Return the names that all of this process know."""
    return Names()
