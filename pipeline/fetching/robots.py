"""The rules of a robots.txt for us (RFC 9309), however long or strange the file.

What is kept are the groups that address us, in one pass over the lines. Patterns are matched piece by
piece without going back, so that none takes longer than its own length and the path's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.fetching.robots_tag import product_token
from pipeline.fetching.targets import canonical_path

MAX_ROBOTS_BYTES = 500 * 1024
"""Of a robots.txt, the first so many count."""
MAX_CRAWL_DELAY_S = 10.0

_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE = re.compile(r"\s*(user-?agent|(?:dis)?allow|crawl-delay)\s*:([^#]*)", re.IGNORECASE)
_STARS = re.compile(r"\*+")


@dataclass(frozen=True, slots=True)
class _Rule:
    pieces: tuple[str, ...]
    is_anchored: bool
    allows: bool

    def matches(self, path: str) -> bool:
        first, *middle = self.pieces
        if not path.startswith(first):
            return False
        if not middle:
            return not self.is_anchored or path == first
        last = middle.pop()
        place = len(first)
        for piece in middle:
            place = path.find(piece, place)
            if place < 0:
                return False
            place += len(piece)
        if self.is_anchored:
            return path.endswith(last) and len(path) - len(last) >= place
        return path.find(last, place) >= 0


@dataclass(eq=False)
class _Group:
    """The rules of all groups that name one agent."""

    patterns: dict[str, bool] = field(default_factory=dict)
    delay: float = 0.0

    def add(self, key: str, value: str) -> None:
        if key == "crawl-delay":
            self.delay = _seconds(value) or self.delay
        elif value:
            slashed = value if value[0] in "/*" else f"/{value}"
            pattern = _canonical_pattern(slashed)
            self.patterns[pattern] = self.patterns.get(pattern, False) or key == "allow"


class RobotsTxt:
    """What one robots.txt tells one agent."""

    def __init__(self, group: _Group) -> None:
        """Order the rules: the longest pattern that matches decides, and of two the one that allows."""
        self.crawl_delay = min(group.delay, MAX_CRAWL_DELAY_S)
        ordered = sorted(group.patterns.items(), key=lambda rule: (-len(rule[0]), not rule[1]))
        self._rules = [
            _Rule(tuple(pattern.removesuffix("$").split("*")), pattern.endswith("$"), allows)
            for pattern, allows in ordered
        ]
        self._beginnings = tuple({rule.pieces[0] for rule in self._rules})

    def __len__(self) -> int:
        return len(self._rules)

    def allows(self, path: str) -> bool:
        """Return whether the path, with its query, may be fetched."""
        path = canonical_path(path)
        # One look in C settles it for nearly every path of a file with thousands of rules.
        if not path.startswith(self._beginnings):
            return True
        return next((rule.allows for rule in self._rules if rule.matches(path)), True)


def read_rules(text: str, agents: Sequence[str]) -> list[RobotsTxt]:
    """Return what a robots.txt tells `agents`, each of which must allow a path.

    Args:
        agents: in lower case. The first is told what everybody is told where no group names it;
            the others count only where one does.
    """
    return [RobotsTxt(group) for group in _told(text, agents).values()]


def cut_down(text: str, agents: Sequence[str]) -> str:
    """Return a robots.txt that tells `agents` the same as `text`, and nothing to anybody else."""
    lines = []
    for name, group in _told(text, agents).items():
        # Without any rule, the next line of an agent would go on with this one's.
        rules = [f"{'Allow' if yes else 'Disallow'}: {p}" for p, yes in group.patterns.items()]
        delay = [f"Crawl-delay: {group.delay:g}"] if group.delay else []
        lines += [f"User-agent: {name}", *(delay + rules or ["Disallow:"])]
    return "".join(f"{line}\n" for line in lines)


def _told(text: str, agents: Sequence[str]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    addressed: list[_Group] = []
    is_list = False
    for line in _LINE_END.split(text.removeprefix("\ufeff")):
        found = _LINE.match(line)
        if not found:
            continue
        key, value = found[1].lower(), found[2].strip()
        if key in ("user-agent", "useragent"):
            addressed = addressed if is_list else []
            is_list = True
            name = value if value == "*" else product_token(value)
            if name == "*" or name in agents:
                group = groups.setdefault(name, _Group())
                addressed = addressed if group in addressed else [*addressed, group]
            continue
        is_list = False
        for group in addressed:
            group.add(key, value)
    own = agents[0] if agents[0] in groups else "*"
    return {name: groups[name] for name in (own, *agents[1:]) if name in groups}


def _canonical_pattern(pattern: str) -> str:
    """Write a pattern as paths are; only its stars, and a $ at its end, stand for something."""
    text = pattern.removesuffix("$")
    pieces = [canonical_path(piece) for piece in _STARS.split(text)]
    return "*".join(pieces) + pattern[len(text) :]


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0
