"""Fetch one file from a web nobody vouches for, within limits, and only where its owner lets us."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from ipaddress import ip_network
from typing import NamedTuple, Protocol

from pipeline.fetching.blocklist import Blocklist
from pipeline.fetching.certificates import certificate_bundle
from pipeline.fetching.curl_transport import transport
from pipeline.fetching.exchange import Answer, Headers, Request
from pipeline.fetching.host_turns import HostTurns
from pipeline.fetching.refusals import FetchRefused as FetchRefused
from pipeline.fetching.robots import MAX_ROBOTS_BYTES
from pipeline.fetching.robots_tag import agents_of, check_headers
from pipeline.fetching.targets import Target, parse_target, redirected

MAX_REDIRECTS = 5
MAX_REPEATS = 2
"""Times that a host which answers 429 or 503 is asked again for one file."""

_REDIRECTS = {301, 302, 303, 307, 308}
_BUSY = {429, 503}
_GUESSED_WAITS_S = {429: (5.0, 10.0, 0.0), 503: (1.0, 2.0, 0.0)}
"""Where the host does not say how long."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a fetch may cost and where it may go.

    Attributes:
        user_agent: sent as it is; see `agents_of` for the names in it that owners may address.
        timeout_s: for everything from connecting to the last byte, redirects included.
        per_host: requests to one host at a time.
        per_host_rate: requests to one host in a second, by all processes of a machine; 0 for any.
        max_wait_s: longest that a host may ask us to wait.
        allow_addresses: ranges reached although they are not public, such as 127.0.0.0/8.
        allow_downgrade: whether to follow redirects from https to http.
    """

    user_agent: str
    timeout_s: float = 10.0
    max_bytes: int = 20_000_000
    per_host: int = 2
    per_host_rate: float = 0.0
    max_wait_s: float = 60.0
    allow_addresses: tuple[str, ...] = ()
    allow_downgrade: bool = False


class Robots(Protocol):
    """The rules of robots.txt."""

    def check(self, target: Target, asker: "Fetcher") -> None:
        """Make sure that `target` may be fetched; `asker` is for what is not known yet."""
        ...

    def crawl_delay(self, target: Target, asker: "Fetcher") -> float:
        """Return the seconds between requests that the host wants."""
        ...


class _Purpose(NamedTuple):
    """What is asked for, and how: a picture, or a robots.txt, which needs no robots.txt's leave."""

    headers: tuple[str, ...]
    max_bytes: int
    wants_body: Callable[[int, Headers], bool]
    is_robots: bool


class Fetcher:
    """Fetches under `limits`; one for all threads.

    Attributes:
        asked: requests sent, those after redirects and repeated ones included.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        robots: Robots | None = None,
        blocklist: Blocklist | None = None,
    ) -> None:
        """Prepare; nothing is connected yet."""
        self.limits = limits
        self.asked = 0
        allowed = tuple(ip_network(a) for a in limits.allow_addresses)
        self._transport = transport(allowed, certificate_bundle())
        self._turns = HostTurns(limits.per_host, limits.per_host_rate, limits.max_wait_s)
        self._robots = robots
        self._blocklist = blocklist
        agent = f"User-Agent: {limits.user_agent}"
        picture = ("Accept: image/*,*/*;q=0.5", "Accept-Encoding: identity", agent)
        judge = _Judge(agents_of(limits.user_agent), limits.max_bytes)
        self._file = _Purpose(picture, limits.max_bytes, judge.wants_body, False)
        self._rules = _Purpose(("Accept: text/plain", agent), MAX_ROBOTS_BYTES, _is_success, True)

    @property
    def seconds_waited(self) -> float:
        """Time spent waiting for turns at hosts, by all threads together."""
        return self._turns.seconds_waited

    def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`. Time spent waiting for a turn at a host does not count.

        Raises:
            FetchRefused: with a reason code of the download stage.
        """
        body = self._follow(parse_target(url), self._file).body
        if not body:
            raise FetchRefused("empty")
        return body

    def fetch_robots(self, origin: str) -> Answer:
        """Return what `origin` answers when asked for its robots.txt, after redirects.

        Raises:
            FetchRefused: with a reason code of the download stage, if it does not answer.
        """
        return self._follow(parse_target(f"{origin}/robots.txt"), self._rules)

    def _follow(self, target: Target, purpose: _Purpose) -> Answer:
        spent = 0.0
        for _ in range(MAX_REDIRECTS + 1):
            answer, spent = self._ask(target, purpose, spent)
            location = _header(answer, "location") if answer.status in _REDIRECTS else None
            if not location:
                return answer
            place, target = target, redirected(target, location)
            is_downgrade = (place.scheme, target.scheme) == ("https", "http")
            if is_downgrade and not self.limits.allow_downgrade:
                raise FetchRefused("bad_url", "redirect from https to http")
        raise FetchRefused("too_many_redirects", f"more than {MAX_REDIRECTS}")

    def _ask(self, target: Target, purpose: _Purpose, spent: float) -> tuple[Answer, float]:
        delay = self._check(target, purpose)
        for repeat in range(MAX_REPEATS + 1):
            with self._turns.hold(target.server, delay):
                begun = time.monotonic()
                answer = self._exchange(target, purpose, begun + self.limits.timeout_s - spent)
                spent += time.monotonic() - begun
            if answer.status not in _BUSY:
                return answer, spent
            wait = _wanted_wait(answer)
            if wait is None:
                wait = _GUESSED_WAITS_S[answer.status][repeat]
            self._turns.leave(target.server, wait)
            if wait > self.limits.max_wait_s:
                break
        self._turns.refused(target.server)
        if purpose.is_robots:
            return answer, spent
        raise FetchRefused(f"http_{answer.status}")

    def _check(self, target: Target, purpose: _Purpose) -> float:
        """Make sure that `target` may be asked for; return the seconds that its host wants between."""
        if self._blocklist and self._blocklist.blocks_target(target):
            raise FetchRefused("blocked")
        if self._robots is None or purpose.is_robots:
            return 0.0
        self._robots.check(target, self)
        return self._robots.crawl_delay(target, self)

    def _exchange(self, target: Target, purpose: _Purpose, deadline: float) -> Answer:
        def wants_body(status: int, headers: Headers) -> bool:
            if status not in _BUSY:
                self._turns.answered(target.server)
            return purpose.wants_body(status, headers)

        self.asked += 1
        try:
            return self._transport.ask(
                Request(
                    target=target,
                    headers=purpose.headers,
                    deadline=deadline,
                    max_bytes=purpose.max_bytes,
                    wants_body=wants_body,
                    cut=purpose.is_robots,
                )
            )
        except FetchRefused as refused:
            if refused.reason == "timeout":
                raise FetchRefused("timeout", f"{self.limits.timeout_s:g} s") from refused
            raise


@dataclass(frozen=True)
class _Judge:
    """Says by status and headers whether a file may be used."""

    agents: tuple[str, ...]
    max_bytes: int

    def wants_body(self, status: int, headers: Headers) -> bool:
        """Return whether the body is the file; raise FetchRefused where there will be none."""
        leads_on = status in _REDIRECTS and any(n == "location" and v for n, v in headers)
        if status in _BUSY:
            return False
        if status != 200 and not leads_on:
            raise FetchRefused(f"http_{status}")
        check_headers(headers, self.agents)
        if leads_on:
            return False
        for name, value in headers:
            if name == "content-encoding" and value.lower() not in ("", "identity"):
                raise FetchRefused("content_encoding", value.lower()[:50])
            is_number = value.isascii() and value.isdigit()
            if name == "content-length" and is_number and int(value[:20]) > self.max_bytes:
                raise FetchRefused("too_large", f"{value[:20]} bytes announced")
        return True


def _is_success(status: int, _: Headers) -> bool:
    return 200 <= status < 300


def _header(answer: Answer, name: str) -> str | None:
    return next((value for header, value in answer.headers if header == name), None)


def _wanted_wait(answer: Answer) -> float | None:
    """Return the seconds that a busy host wants us to wait, said as such or as a date."""
    value = _header(answer, "retry-after") or ""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
        # A date of HTTP is one of Greenwich, also in the old form that does not say so.
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None
