"""Read a URL into what a request is made of."""

import re
import string
from typing import NamedTuple
from urllib.parse import quote, urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from pipeline.fetching.refusals import FetchRefused

_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_LEFT_ALONE = "".join(set(map(chr, range(33, 127))) - set("*$"))


class Target(NamedTuple):
    """What is asked and where: lower-case ASCII host, path with query, escaped; no user, no fragment."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port, as RFC 9309 scopes a robots.txt."""
        usual = _PORTS[self.scheme] == self.port
        return f"{self.scheme}://{self.host}" + ("" if usual else f":{self.port}")

    @property
    def server(self) -> str:
        """Whom manners are owed: the host, and the port if it is an unusual one."""
        host = self.host.rstrip(".")
        return host if self.port in _PORTS.values() else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL to ask for."""
        return self.origin + self.path


def parse_target(url: str) -> Target:
    """Read `url`; names and passwords in it are left out.

    Raises:
        FetchRefused: bad_url.
    """
    try:
        parts = parse_url(url)
    except (LocationParseError, UnicodeError) as error:
        raise FetchRefused("bad_url") from error
    if parts.scheme not in _PORTS:
        raise FetchRefused("bad_url", f"scheme {str(parts.scheme)[:20]}")
    if not parts.host:
        raise FetchRefused("bad_url", "no host")
    if parts.port == 0:
        raise FetchRefused("bad_url", "port 0")
    port = parts.port or _PORTS[parts.scheme]
    return Target(parts.scheme, parts.host, port, parts.request_uri)


def redirected(place: Target, location: str) -> Target:
    """Return where a Location header, read as Latin-1, leads to from `place`.

    Raises:
        FetchRefused: bad_url.
    """
    try:
        # What stands there beyond ASCII is UTF-8 in practice.
        text = location.encode("latin-1").decode("utf-8", "replace")
        return parse_target(urljoin(place.url, text))
    except ValueError as error:
        raise FetchRefused("bad_url", "redirect") from error


def canonical_path(path: str) -> str:
    """Write equal paths equally: what must be escaped is, with * and $, and nothing else."""

    def rewrite(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in _UNRESERVED else found[0].upper()

    return _ESCAPE.sub(rewrite, quote(path, safe=_LEFT_ALONE, errors="replace"))
