"""Undo HTML's character references in attribute values, as browsers do."""

import re
from html.entities import html5

import numpy as np
import numpy.typing as npt

_REFERENCE = re.compile(r"&(?:#([xX][0-9a-fA-F]+|[0-9]+);?|([A-Za-z][A-Za-z0-9]*)(;?))")
_LONGEST_NAME = 32
_MOST_DIGITS = 9
# Numbers 128 to 159 mean what they do in windows-1252, where that has a character.
_WINDOWS = {n: bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(0x80, 0xA0)}


def read_attribute(raw: str) -> str:
    """Return the value of an attribute written as `raw`."""
    if "\r" in raw:
        raw = raw.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in raw:
        raw = raw.replace("\0", "\ufffd")
    return _REFERENCE.sub(_character, raw) if "&" in raw else raw


def _character(found: re.Match[str]) -> str:
    digits, name, semicolon = found.groups()
    if digits:
        base = 16 if digits[0] in "xX" else 10
        significant = digits.lstrip("xX0")[:_MOST_DIGITS]
        return _numbered(int(significant or "0", base))
    if semicolon and name + ";" in html5:
        return html5[name + ";"]
    for length in range(min(len(name), _LONGEST_NAME), 1, -1):
        if name[:length] in html5:
            # In an attribute, a name that goes on or has a value is no reference but a parameter.
            rest = name[length:] + semicolon
            after = found.string[found.end() : found.end() + 1]
            goes_on = name[length:] or (not semicolon and after == "=")
            return found[0] if goes_on else html5[name[:length]] + rest
    return found[0]


def _numbered(code: int) -> str:
    if code == 0 or code > 0x10FFFF or 0xD800 <= code < 0xE000:
        return "\ufffd"
    return _WINDOWS.get(code) or chr(code)


def _short_names() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    codes = {
        int.from_bytes(name[:-1].encode(), "little"): ord(character)
        for name, character in html5.items()
        if name.endswith(";") and len(name) <= 9 and len(character) == 1
    }
    names = sorted(codes)
    return np.array(names, np.uint64), np.array([codes[name] for name in names], np.int64)


ENTITY_NAMES, ENTITY_CODES = _short_names()
"""Names of up to eight letters as numbers, the first letter lowest, ascending, and their characters.

They are for the loops of `pipeline.runtime.compiled`.
"""
