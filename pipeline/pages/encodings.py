"""Tell a page's encoding and bring the page to UTF-8."""

import re
from functools import lru_cache

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

_META_CHARSET = re.compile(rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?\s*([\w:.-]{2,40})")
_DECLARED_BYTES = 4096
_GUESSED_BYTES = 256 << 10
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
# Guesses that on the web are nearly always the other encoding, equal but for a few letters.
_LIKELIER = {"mac-cyrillic": "cp1251", "iso8859-1": "cp1252"}


def decode_page(page: bytes | memoryview, charset: str | None) -> str:
    """Return the text of `page`; what its encoding cannot mean becomes U+FFFD.

    The byte order mark counts first, then `charset`, then the page's `<meta>`; without those, UTF-8
    if it is valid, else what the bytes look like.
    """
    if page[:3] == _UTF8_MARK:
        return str(page[3:], "utf-8", "replace")
    marked = _UTF16_MARKS.get(bytes(page[:2]))
    if marked:
        return str(page[2:], marked, "replace")
    declared = find_declared(page, charset)
    if declared == "utf-8":
        return str(page, "utf-8", "replace")
    if declared:
        return str(bytes_to_str(bytes(page), declared, "replace", ()))
    try:
        return str(page, "utf-8")
    except UnicodeDecodeError:
        start = bytes(page[:_GUESSED_BYTES])
        guess = detect_encoding(start, html5_compatible=False) or "cp1252"
        return str(bytes_to_str(bytes(page), _LIKELIER.get(guess, guess), "replace", ()))


def as_utf8(page: bytes | memoryview, charset: str | None) -> bytes | memoryview:
    """Return `page` in UTF-8; what is UTF-8 already stays as it is, wrong bytes included."""
    if page[:3] == _UTF8_MARK:
        return page[3:]
    if bytes(page[:2]) not in _UTF16_MARKS:
        declared = find_declared(page, charset)
        if declared == "utf-8" or (declared is None and _is_utf8(page)):
            return page
    return decode_page(page, charset).encode("utf-8", "replace")


def _is_utf8(page: bytes | memoryview) -> bool:
    try:
        str(page, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def find_declared(page: bytes | memoryview, charset: str | None) -> str | None:
    """Return the encoding that `charset`, of the HTTP header, or else the page's `<meta>` names."""
    return _known(charset or "") or _declared_inside(page)


@lru_cache(1024)
def _known(label: str) -> str | None:
    cleaned = label.strip(" \t\"'")
    return map_encoding_to_html5(cleaned, fallback_utf8=False) if cleaned else None


def _declared_inside(page: bytes | memoryview) -> str | None:
    found = _META_CHARSET.search(bytes(page[:_DECLARED_BYTES]).lower())
    encoding = _known(found[1].decode("ascii", "replace")) if found else None
    # A page whose <meta> could be read is not in UTF-16, whatever it says.
    return "utf-8" if encoding and encoding.startswith("utf-16") else encoding
