"""Read the robots.txt of every host once, and hold URLs against them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple, Protocol

import pyarrow as pa
import xxhash

from pipeline import schemas
from pipeline.fetching.exchange import Answer
from pipeline.fetching.refusals import FetchRefused
from pipeline.fetching.robots import RobotsTxt, cut_down, read_rules
from pipeline.fetching.targets import Target, parse_target

UNREACHED = frozenset({"dns", "private_address", "connection", "tls", "timeout", "blocked"})
"""Reasons for which a host that gives no robots.txt would give no image either."""

MAX_RULES = 1_000_000
"""Kept in memory, in each process: about 200 MB."""


class Asker(Protocol):
    """What robots.txt files are read with."""

    def fetch_robots(self, origin: str) -> Answer:
        """See `Fetcher.fetch_robots`."""
        ...


class _Origin(NamedTuple):
    """What holds for one origin: its rules, or why nothing there may be fetched."""

    rules: Sequence[RobotsTxt]
    refusal: tuple[str, str] | None

    def check(self, path: str) -> None:
        if self.refusal is not None:
            raise FetchRefused(*self.refusal)
        if not all(rules.allows(path) for rules in self.rules):
            raise FetchRefused("robots_txt")

    @property
    def size(self) -> int:
        return 10 + sum(len(rules) for rules in self.rules)

    @property
    def crawl_delay(self) -> float:
        return max((rules.crawl_delay for rules in self.rules), default=0.0)


def origins_of(urls: Iterable[str]) -> list[str]:
    """Return the distinct origins of `urls`, sorted; what is no URL has none."""
    found = set()
    for url in urls:
        try:
            found.add(parse_target(url).origin)
        except FetchRefused:
            continue
    return sorted(found)


def bucket_of(origin: str, buckets: int) -> int:
    """Return which of so many buckets an origin is in; those of one host are in the same."""
    host = parse_target(origin).host
    return int(xxhash.xxh3_64_intdigest(host.encode()) % buckets)


def read_robots(
    origins: Sequence[str], asker: Asker, agents: Sequence[str], *, threads: int
) -> pa.Table:
    """Ask each of `origins` for its robots.txt and return ROBOTS, in their order."""
    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(lambda origin: _read(origin, asker, agents), origins))
    return pa.Table.from_pylist(rows, schemas.ROBOTS)


def _read(origin: str, asker: Asker, agents: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {
        "origin": origin,
        "status": None,
        "reason": None,
        "text": "",
        "fetched_bytes": 0,
    }
    try:
        answer = asker.fetch_robots(origin)
    except FetchRefused as refused:
        # RFC 9309: after too many redirects there is none.
        if refused.reason != "too_many_redirects":
            row["reason"] = refused.reason
        return row
    row["status"] = answer.status
    if answer.status == 429 or answer.status >= 500:
        row["reason"] = f"http_{answer.status}"
    elif 200 <= answer.status < 300:
        row["text"] = cut_down(answer.body.decode("utf-8", "replace"), agents)
        row["fetched_bytes"] = len(answer.body)
    return row


def _origin(row: Mapping[str, object], agents: Sequence[str]) -> _Origin:
    reason = row["reason"]
    if reason is None:
        return _Origin(read_rules(str(row["text"]), agents), None)
    if reason in UNREACHED:
        return _Origin((), (str(reason), "robots.txt"))
    return _Origin((), ("robots_unreachable", str(reason)))


class RobotRules:
    """What the robots.txt of many origins say; those that are not known are asked when first met."""

    def __init__(
        self,
        agents: Sequence[str],
        known: pa.Table | None = None,
        look_up: Callable[[str], pa.Table] | None = None,
    ) -> None:
        """Begin with what is known.

        Args:
            agents: names by which owners may address us; see `read_rules`.
            known: ROBOTS.
            look_up: returns ROBOTS of a further origin, none where nobody has asked it yet.
        """
        self._agents = tuple(agents)
        self._known = known
        self._look_up = look_up
        names = known.column("origin").to_pylist() if known else []
        self._rows = {origin: row for row, origin in enumerate(names)}
        self._read = _Kept()
        self._met = _met_in_this_process(self._agents)

    def check(self, target: Target, asker: Asker) -> None:
        """Make sure that `target` may be fetched.

        Raises:
            FetchRefused: robots_txt where it is disallowed, robots_unreachable where there was no
                telling, or why its host was not reached.
        """
        self._origin(target.origin, asker).check(target.path)

    def crawl_delay(self, target: Target, asker: Asker) -> float:
        """Return the seconds between requests that the host of `target` wants, 0 for any."""
        return self._origin(target.origin, asker).crawl_delay

    def _meet(self, origin: str, asker: Asker) -> _Origin:
        found = self._look_up(origin).to_pylist() if self._look_up else []
        return _origin(found[0] if found else _read(origin, asker, self._agents), self._agents)

    def _origin(self, origin: str, asker: Asker) -> _Origin:
        row = self._rows.get(origin)
        if row is None or self._known is None:
            return self._met.get(origin, lambda: self._meet(origin, asker))
        table = self._known
        return self._read.get(
            origin, lambda: _origin(table.slice(row, 1).to_pylist()[0], self._agents)
        )


class _Kept:
    """Origins made once; the least recently used are forgotten when their rules become too many."""

    def __init__(self) -> None:
        self._origins: OrderedDict[str, _Origin] = OrderedDict()
        self._rules = 0
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}

    def get(self, name: str, make: Callable[[], _Origin]) -> _Origin:
        with self._lock:
            if name in self._origins:
                self._origins.move_to_end(name)
                return self._origins[name]
            making = self._making.setdefault(name, threading.Lock())
        with making:
            with self._lock:
                if name in self._origins:
                    return self._origins[name]
            origin = make()
            with self._lock:
                self._origins[name] = origin
                self._rules += origin.size
                while self._rules > MAX_RULES and len(self._origins) > 1:
                    self._rules -= self._origins.popitem(last=False)[1].size
                self._making.pop(name, None)
        return origin


@cache
def _met_in_this_process(agents: tuple[str, ...]) -> _Kept:
    return _Kept()
