"""Fold UTF-8 to NFKC_Casefold without Python strings, wherever characters do not influence each other.

`queries.text` says what the folded form is. Characters of `FoldTable` fold one by one: their folded
forms, side by side, are the folded form of the whole. Texts with any other character (decomposed
accents, conjoining jamo, bytes that are not UTF-8) are left to Python.
"""

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.matching.trie_tables import Bytes, Offsets
from pipeline.runtime.compiled import compiled, inlined
from pipeline.runtime.intrinsics import load_word, store_word
from queries.text import space_out, strip_invisible

# The two first planes: everything but the rarer ideographs.
TABLE_SIZE = 0x20000
_HANGUL_VOWELS_AND_FINALS = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))

# What became of a row: left as it is (ASCII), folded, beyond the table, or out of room.
AS_IT_IS, FOLDED, HARD, FULL = 0, 1, 2, 3
HIGH_BITS = np.uint64(0x8080808080808080)
# More bytes than one code point folds to, spaces included.
LONGEST = 64


class FoldTable(NamedTuple):
    """What each code point below `TABLE_SIZE` folds to, spaced out.

    `pool[start:start + length]` are the bytes for a code point; `alone` is 0 where it must be left to
    Python. `first_class` and `last_class` are the canonical combining classes at both ends: a mark of
    a lower class than what it follows is left to Python too, for NFKC would put it first.
    """

    pool: Bytes
    start: npt.NDArray[np.int32]
    length: Bytes
    alone: Bytes
    first_class: Bytes
    last_class: Bytes


@cache
def fold_table() -> FoldTable:
    """Build the table from Python's own Unicode data; 0.2 s, once a process."""
    composing = _composing()
    pool = bytearray()
    starts = np.zeros(TABLE_SIZE, np.int32)
    lengths, alone, first_class, last_class = np.zeros((4, TABLE_SIZE), np.uint8)
    for code in range(TABLE_SIZE):
        stages = _stages(chr(code))
        firsts, lasts = zip(*map(_end_classes, stages), strict=True)
        if len(set(firsts)) > 1 or any(_touches_neighbours(s, composing) for s in stages):
            continue
        folded = space_out(stages[-1]).encode(errors="ignore")
        alone[code] = 1
        starts[code], lengths[code] = len(pool), len(folded)
        first_class[code], last_class[code] = firsts[0], max(lasts)
        pool += folded
    return FoldTable(
        np.frombuffer(bytes(pool), np.uint8), starts, lengths, alone, first_class, last_class
    )


def _composing() -> set[str]:
    """Return the characters that NFKC may merge into the one before them; all are in the first planes."""
    seconds = {chr(code) for code in _HANGUL_VOWELS_AND_FINALS}
    for code in range(TABLE_SIZE):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(chr(int(parts[1], 16)))
    return seconds


def _stages(character: str) -> list[str]:
    """Return `character` after each step of `queries.text.fold`, until nothing changes."""
    if unicodedata.is_normalized("NFKC", character) and character.casefold() == character:
        return [strip_invisible(character)]
    stages: list[str] = []
    text = character
    while True:
        composed = unicodedata.normalize("NFKC", strip_invisible(text))
        stages += [composed, composed.casefold()]
        if stages[-1] == text:
            return stages
        text = stages[-1]


def _end_classes(stage: str) -> tuple[int, int]:
    if not stage:
        return 0, 0
    return unicodedata.combining(stage[0]), unicodedata.combining(stage[-1])


def _touches_neighbours(stage: str, composing: set[str]) -> bool:
    """Whether NFKC could change `stage` on account of what stands before it."""
    if not stage:
        return False
    return stage[0] in composing or (len(stage) > 1 and unicodedata.combining(stage[0]) != 0)


@inlined
def decode(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return the code point that starts at `at`, not ASCII, and its length; length 0 if malformed."""
    lead = int(data[at])
    if 0xC2 <= lead < 0xE0:
        length, code, least = 2, lead & 0x1F, 0x80
    elif 0xE0 <= lead < 0xF0:
        length, code, least = 3, lead & 0x0F, 0x800
    elif 0xF0 <= lead < 0xF5:
        length, code, least = 4, lead & 0x07, 0x10000
    else:
        return 0, 0
    if at + length > end:
        return 0, 0
    for i in range(at + 1, at + length):
        if data[i] & 0xC0 != 0x80:
            return 0, 0
        code = code << 6 | int(data[i] & 0x3F)
    if code < least or 0xD800 <= code < 0xE000:
        return 0, 0
    return code, length


@inlined
def is_ascii(data: Bytes, start: int, end: int) -> bool:
    """Whether no byte of the row has its high bit set."""
    seen = np.uint64(0)
    while start + 8 <= end:
        seen |= load_word(data, start)
        start += 8
    for i in range(start, end):
        seen |= np.uint64(data[i])
    return bool(seen & HIGH_BITS == 0)


@inlined
def fold_row(
    data: Bytes, start: int, end: int, table: FoldTable, out: Bytes, used: int
) -> tuple[int, int]:
    """Append a row's folded form to `out[:used]`; return how far that goes, and the row's state."""
    pool, starts, lengths, alone, first_class, last_class = table
    ends_in = np.uint8(0)
    i = start
    while i < end:
        if used + LONGEST > out.size:
            return used, FULL
        if i + 8 <= end and load_word(data, i) & HIGH_BITS == 0:
            store_word(out, used, load_word(data, i))
            used, i, ends_in = used + 8, i + 8, np.uint8(0)
            continue
        if data[i] < 0x80:
            out[used] = data[i]
            used, i, ends_in = used + 1, i + 1, np.uint8(0)
            continue
        code, width = decode(data, i, end)
        if width == 0 or code >= TABLE_SIZE or alone[code] == 0:
            return used, HARD
        if first_class[code] != 0 and first_class[code] < ends_in:
            return used, HARD
        count, first = int(lengths[code]), starts[code]
        for k in range(count):
            out[used + k] = pool[first + k]
        if count:
            ends_in = last_class[code]
        used, i = used + count, i + width
    return used, FOLDED


@compiled
def fold_rows(
    data: Bytes, starts: Offsets, ends: Offsets, table: FoldTable
) -> tuple[Bytes, Offsets, Offsets, Bytes]:
    """Fold the rows that are not ASCII; return the folded bytes, where each row stands, and its state.

    Returns:
        Folded bytes; new starts and ends, which count in them for rows that are FOLDED and in `data`
        for rows left AS_IT_IS; states.
    """
    out, used = np.empty(4096, np.uint8), 0
    states = np.zeros(starts.size, np.uint8)
    new_starts, new_ends = starts.copy(), ends.copy()
    row = 0
    while row < starts.size:
        if is_ascii(data, starts[row], ends[row]):
            row += 1
            continue
        reached, state = fold_row(data, starts[row], ends[row], table, out, used)
        if state == FULL:
            out = np.concatenate((out, np.empty_like(out)))
            continue
        if state == FOLDED:
            new_starts[row], new_ends[row] = used, reached
            used = reached
        states[row] = state
        row += 1
    return out[:used].copy(), new_starts, new_ends, states
