"""What owners say of the use of a file in the headers it is served with."""

import re
from collections.abc import Collection, Iterable

from pipeline.fetching.refusals import FetchRefused

FORBIDDING = {"noai", "noimageai", "noindex", "noimageindex", "none"}
"""X-Robots-Tag directives by which an owner says no."""

ALSO_ADDRESSED = ("img2dataset",)
"""Owners who shut out img2dataset by name mean what is built on it, too."""

_TDM = "tdm-reservation"
_VALUED = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
_NAME = re.compile(r"\s*([^\s:]+)\s*:")
_TOKEN = re.compile(r"[\w.-]+")


def agents_of(user_agent: str) -> tuple[str, ...]:
    """Return the names by which owners may address us, our own first, lower case."""
    return (product_token(user_agent), *ALSO_ADDRESSED)


def product_token(user_agent: str) -> str:
    """Return the name before the version in a user agent, lower case."""
    found = _TOKEN.search(user_agent)
    return found[0].lower() if found else ""


def check_headers(headers: Iterable[tuple[str, str]], agents: Collection[str]) -> None:
    """Make sure that no header forbids the use.

    Args:
        headers: names in lower case, and values.

    Raises:
        FetchRefused: robots_tag, or tdm_reservation for that of the TDM Reservation Protocol.
    """
    for name, value in headers:
        if name == _TDM and value.strip() == "1":
            raise FetchRefused("tdm_reservation")
        if name == "x-robots-tag" and (directive := forbidding_directive(value, agents)):
            raise FetchRefused("tdm_reservation" if directive == _TDM else "robots_tag", directive)


def forbidding_directive(value: str, agents: Collection[str]) -> str | None:
    """Return the directive of an X-Robots-Tag value that forbids use by one of `agents`, if any.

    A directive after `agent:` is for that agent alone; one without is for everybody. What owners write
    in place of commas is taken for them.
    """
    is_for_us = True
    for piece in re.split("[,;]", value.lower()):
        found = _NAME.match(piece)
        name, rest = (found[1], piece[found.end() :]) if found else ("", piece)
        # The rest of a date may begin with the hour.
        if name and not (name in _VALUED or name in FORBIDDING or name == _TDM or name.isdigit()):
            is_for_us = name == "*" or product_token(name) in agents
            piece = rest
        if not is_for_us or name in _VALUED:
            continue
        if re.fullmatch(rf"\s*{_TDM}\s*:\s*1\s*", piece):
            return _TDM
        for word in piece.replace(":", " ").split():
            if word in FORBIDDING:
                return word
    return None
