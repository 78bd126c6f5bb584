"""One request and its answer, on the way from the thread that asks to the loop and back."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.fetching.addresses import Address
from pipeline.fetching.targets import Target

Headers = Sequence[tuple[str, str]]
"""Names in lower case, and values, in the order they came."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One GET.

    Attributes:
        deadline: on the clock of `time.monotonic`.
        wants_body: told status and headers when they have come, says whether the body is wanted; may
            raise FetchRefused. Called in the loop's thread.
        cut: whether a longer body is cut at `max_bytes` and decompressed, in place of refused.
    """

    target: Target
    headers: tuple[str, ...]
    deadline: float
    max_bytes: int
    wants_body: Callable[[int, Headers], bool]
    cut: bool = False


@dataclass(frozen=True)
class Answer:
    """What came; the body is empty where it was not wanted."""

    status: int
    headers: Headers
    body: bytes


class Exchange:
    """A request on its way from the thread that asks to the loop and back."""

    def __init__(self, request: Request, addresses: Sequence[Address]) -> None:
        """Begin; `addresses` are those of the target's host, none if it is an address itself."""
        self.request = request
        self.addresses = addresses
        self._outcome: Answer | BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def entries(self) -> list[str]:
        """Return what libcurl is told of the name, to be forgotten in time."""
        if not self.addresses:
            return []
        target = self.request.target
        known = ",".join(f"[{a}]" if a.version == 6 else str(a) for a in self.addresses)
        return [f"+{target.host}:{target.port}:{known}"]

    def wait(self) -> Answer:
        """Return the answer when it has come, or raise what came in its place."""
        self._ended.acquire()
        assert self._outcome is not None
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def end(self, outcome: Answer | BaseException) -> None:
        """Let go who waits."""
        self._outcome = outcome
        self._ended.release()
