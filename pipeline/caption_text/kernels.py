"""The compiled loops of the caption rules: measure captions and hash them, straight from Arrow's buffers.

All that the rules count is counted without a Python object per caption. A caption is decoded once, to
one set of flags a character; the loops over them are plain sums, or look at one flag after another.
"""

import numpy as np
import numpy.typing as npt

from pipeline.caption_text.characters import (
    ANGLE,
    AT,
    CONTROL,
    FOREIGN,
    IN_WORD,
    INVISIBLE,
    JOINER,
    LATIN,
    LETTER,
    MARK,
    NUMBER,
    SEPARATOR,
    UNDERSCORE,
    UNSPACED,
    VISIBLE,
    Codes,
    Flags,
)
from pipeline.matching.folding import decode
from pipeline.runtime.compiled import compiled, inlined

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int32]

# What is counted of a caption, in the order of `Measures`, which says what each is.
FIELDS = 13
CHARACTERS, WORDS, REPEATED_WORDS, PLAIN_WORDS, LETTERS, VISIBLES = range(6)
NUMBERS, CONTROLS, ITEMS, LONGEST_ITEM, ATS, ANGLES, UNDERSCORES = range(6, FIELDS)

_PLAIN_LETTERS = 3
_SMALLEST_TABLE = 64
_HYPHEN = np.uint64(ord("-"))
_AT, _SLASH, _QUESTION, _HASH = ord("@"), ord("/"), ord("?"), ord("#")
_DOT, _W, _CAPITAL_A, _CAPITAL_Z, _TO_SMALL = ord("."), ord("w"), ord("A"), ord("Z"), 32
_MIX, _START = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xCBF29CE484222325)
_U1, _U29, _U32 = np.uint64(1), np.uint64(29), np.uint64(32)


@inlined
def _mix(hashed: np.uint64, value: int) -> np.uint64:
    hashed = (hashed ^ np.uint64(value)) * _MIX
    return hashed ^ (hashed >> _U29)


@inlined
def _decode_row(
    data: Bytes, start: int, end: int, known: Flags, folded: Codes, flags: Flags, codes: Codes
) -> int:
    """Write each character's flags, and what it is without letter case; return their number.

    A byte that is not UTF-8 counts as a zero byte.
    """
    n, i = 0, start
    while i < end:
        code, width = int(data[i]), 1
        if code >= 0x80:
            code, width = decode(data, i, end)
            width = max(width, 1)
        flags[n] = known[code]
        codes[n] = folded[code] if code < folded.size else code
        n, i = n + 1, i + width
    return n


@inlined
def _count_flags(flags: Flags, n: int, counts: Counts, row: int) -> None:
    letters, visible, numbers, controls = 0, 0, 0, 0
    ats, angles, underscores = 0, 0, 0
    for i in range(n):
        flag = flags[i]
        letters += (flag & LETTER) != 0
        visible += (flag & VISIBLE) != 0
        numbers += (flag & NUMBER) != 0
        controls += (flag & CONTROL) != 0
        ats += (flag & AT) != 0
        angles += (flag & ANGLE) != 0
        underscores += (flag & UNDERSCORE) != 0
    counts[row, CHARACTERS], counts[row, LETTERS] = n, letters
    counts[row, VISIBLES], counts[row, NUMBERS] = visible, numbers
    counts[row, CONTROLS], counts[row, ATS], counts[row, ANGLES] = controls, ats, angles
    counts[row, UNDERSCORES] = underscores


@inlined
def _count_plain_words(flags: Flags, n: int) -> int:
    words, letters, is_code = 0, 0, False
    for i in range(n):
        flag = flags[i]
        if flag & LATIN:
            letters += 1
        elif flag & FOREIGN:
            words += 1
        elif flag & (NUMBER | UNDERSCORE):
            is_code = True
        elif not flag & (MARK | INVISIBLE):
            words += not is_code and letters >= _PLAIN_LETTERS
            letters, is_code = 0, False
    return words + int(not is_code and letters >= _PLAIN_LETTERS)


@inlined
def _is_known(word: np.uint64, row: int, mask: np.uint64, seen: Hashes, seen_in: Offsets) -> bool:
    """Whether the row had the word before; remembers it."""
    slot = word & mask
    while seen_in[slot] == row + 1:
        if seen[slot] == word:
            return True
        slot = (slot + _U1) & mask
    seen[slot], seen_in[slot] = word, row + 1
    return False


@inlined
def _read_word(flags: Flags, codes: Codes, start: int, n: int) -> tuple[np.uint64, int]:
    """Return the hash of the word that starts at `start`, and where it ends."""
    word, i = _START, start
    while True:
        while i < n and flags[i] & IN_WORD:
            word = (word ^ np.uint64(codes[i])) * _MIX
            i += 1
        if i < n and flags[i] & (MARK | INVISIBLE):
            if flags[i] & MARK:
                word = (word ^ np.uint64(codes[i])) * _MIX
            i += 1
            continue
        if i + 1 < n and flags[i] & JOINER and flags[i + 1] & IN_WORD:
            word = (word ^ _HYPHEN) * _MIX
            i += 1
            continue
        return word ^ (word >> _U32), i


@inlined
def _count_words(
    flags: Flags, codes: Codes, n: int, seen: Hashes, seen_in: Offsets, counts: Counts, row: int
) -> None:
    words, repeated, items, item_words, longest, i = 0, 0, 0, 0, 0, 0
    # As much of the table as the row can need, so that it stays in the cache.
    size = _SMALLEST_TABLE
    while size <= 2 * n:
        size *= 2
    mask = np.uint64(size - 1)
    while i < n:
        if flags[i] & IN_WORD:
            word, i = _read_word(flags, codes, i, n)
        elif flags[i] & UNSPACED:
            word, i = np.uint64(codes[i]) * _MIX >> _U1, i + 1
        else:
            if flags[i] & SEPARATOR:
                items += item_words > 0
                longest, item_words = max(longest, item_words), 0
            i += 1
            continue
        words, item_words = words + 1, item_words + 1
        repeated += _is_known(word, row, mask, seen, seen_in)
    counts[row, WORDS], counts[row, REPEATED_WORDS] = words, repeated
    counts[row, ITEMS] = items + (item_words > 0)
    counts[row, LONGEST_ITEM] = max(longest, item_words)


@compiled
def measure_rows(
    data: Bytes, starts: Offsets, ends: Offsets, known: Flags, folded: Codes
) -> Counts:
    """Return FIELDS counts for each row.

    Args:
        known: the flags of each code point.
        folded: what each is without letter case; those beyond the table have none.
    """
    size = _SMALLEST_TABLE
    for row in range(starts.size):
        while size <= 2 * (ends[row] - starts[row]):
            size *= 2
    flags, codes = np.empty(size, np.uint16), np.empty(size, np.int32)
    # The words of a row: entries of other rows count as empty, so nothing is ever cleared.
    seen, seen_in = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    counts = np.zeros((starts.size, FIELDS), np.int32)
    for row in range(starts.size):
        n = _decode_row(data, starts[row], ends[row], known, folded, flags, codes)
        _count_flags(flags, n, counts, row)
        counts[row, PLAIN_WORDS] = _count_plain_words(flags, n)
        _count_words(flags, codes, n, seen, seen_in, counts, row)
    return counts


@compiled
def hash_rows(data: Bytes, starts: Offsets, ends: Offsets) -> Hashes:
    """Return a 64-bit hash of each row's bytes."""
    hashes = np.empty(starts.size, np.uint64)
    for row in range(starts.size):
        hashed = _START
        for i in range(starts[row], ends[row]):
            hashed = _mix(hashed, data[i])
        hashes[row] = _mix(hashed, ends[row] - starts[row])
    return hashes


@inlined
def _find_site(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return where the host of a URL begins, and where it and its port end; both `end` if there is none."""
    begin = start
    while begin + 1 < end and not (data[begin] == _SLASH and data[begin + 1] == _SLASH):
        begin += 1
    begin = min(begin + 2, end)
    stop = begin
    while stop < end and not (
        data[stop] == _SLASH or data[stop] == _QUESTION or data[stop] == _HASH
    ):
        if data[stop] == _AT:
            begin = stop + 1
        stop += 1
    return begin, stop


@inlined
def _small(byte: int) -> int:
    return byte + _TO_SMALL if _CAPITAL_A <= byte <= _CAPITAL_Z else byte


@compiled
def hash_sites(data: Bytes, starts: Offsets, ends: Offsets) -> Hashes:
    """Return a 64-bit hash of the host and port of each URL; letter case and "www." do not count."""
    hashes = np.empty(starts.size, np.uint64)
    for row in range(starts.size):
        begin, stop = _find_site(data, starts[row], ends[row])
        leading_w = 0
        while leading_w < 3 and begin + 3 < stop and _small(data[begin + leading_w]) == _W:
            leading_w += 1
        if leading_w == 3 and data[begin + 3] == _DOT:
            begin += 4
        hashed = _START
        for i in range(begin, stop):
            hashed = _mix(hashed, _small(data[i]))
        hashes[row] = hashed
    return hashes
