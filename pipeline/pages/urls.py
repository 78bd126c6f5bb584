"""Turn the address of an image, as a page or table gives it, into an absolute http(s) URL.

As browsers do: outer white space and control characters, tabs and line breaks inside, and the
fragment go; a backslash before the query is a slash; spaces and non-ASCII characters of path and
query are percent-encoded as UTF-8. Everything else, host names included, stays as it was.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

MAX_URL_CHARACTERS = 2048

# Nothing to change and nothing to check: nine in ten URLs of a table take this way.
_PLAIN = re.compile(r"https?://[A-Za-z0-9._-]*[A-Za-z0-9](?::[1-9]\d{0,3})?(?:/[!$-\[\]-~]*)?")
_OUTER = "".join(map(chr, range(33)))
_INNER = str.maketrans("", "", "\t\r\n")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_AUTHORITY = re.compile(r"[^\x00-\x20\"#%/<>?\\^`{|}\x7f\ud800-\udfff]+")
_ASCII = "".join(map(chr, range(33, 127)))


class Address(NamedTuple):
    """An absolute http(s) URL, or the reason code of why there is none."""

    url: str | None
    problem: str = ""


def resolve(reference: str, base: str | None) -> Address:
    """Return the URL that `reference` means on the page `base`.

    The problem is "no_url" for nothing at all, "data_url" for the image's own bytes, "bad_scheme" for
    another scheme than http or https, "bad_url" for what is no URL or has over 2,048 characters.
    """
    if len(reference) <= MAX_URL_CHARACTERS and _PLAIN.fullmatch(reference):
        return Address(reference)
    trimmed = reference.strip(_OUTER)
    if not trimmed:
        return Address(None, "no_url")
    if trimmed[:5].lower() == "data:":
        return Address(None, "data_url")
    # A longer one is not worth the work: no escape is shorter than what it stands for.
    if len(trimmed) > MAX_URL_CHARACTERS:
        return Address(None, "bad_url")
    return _join(trimmed.translate(_INNER), base)


def _join(reference: str, base: str | None) -> Address:
    scheme = _SCHEME.match(reference)
    if scheme and scheme[1].lower() not in ("http", "https"):
        return Address(None, "bad_scheme")
    path, question, query = reference.partition("?")
    slashed = path.replace("\\", "/") + question + query
    try:
        joined = urljoin(base, slashed) if base else slashed
        parts = urlsplit(joined)
        usable = parts.port != 0 and parts.hostname and _AUTHORITY.fullmatch(parts.netloc)
        path, query = quote(parts.path, safe=_ASCII), quote(parts.query, safe=_ASCII)
    except ValueError:
        return Address(None, "bad_url")
    if parts.scheme not in ("http", "https"):
        return Address(None, "bad_scheme" if parts.scheme else "bad_url")
    url = f"{parts.scheme}://{parts.netloc}{path}" + (f"?{query}" if query else "")
    return Address(url) if usable and len(url) <= MAX_URL_CHARACTERS else Address(None, "bad_url")
