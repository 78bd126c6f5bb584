"""Compiled loops that cut texts into tokens, and find each token in a hash table by its bytes.

A token of up to 8 bytes is its own key; a longer one's key is a hash, and its bytes are compared too.
So two tokens are never taken for each other.

Inner loops take plain arrays: slices and tuples, whose references are counted, cost twice the time.
"""

import numpy as np

from pipeline.matching.trie_tables import ByteRules, Bytes, Ids, Index, Offsets, Rows, Words
from pipeline.runtime.compiled import compiled, inlined
from pipeline.runtime.intrinsics import load_word, store_word, trailing_zeros

# Bytes that may be read past a text's end.
PADDING = 16
# Columns of a slot of the token table; WORD is content << 32 | length code << 28 | token, 0 where empty.
KEY, WORD = 0, 1
MOST_TOKENS = 1 << 28

U0, U1, U3, U8, U28, U32, U128 = (np.uint64(n) for n in (0, 1, 3, 8, 28, 32, 128))
HALF = np.uint64(0xFFFFFFFF)
TOKEN = np.uint64(MOST_TOKENS - 1)
# A length code is the length plus one, or this for tokens whose key is a hash.
LONG = np.uint64(15)
NOT_IN_WORD = np.uint8(0x80)
MIX, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


# Cutting


@compiled
def gather(rows: Rows, first: int, last: int, text: Bytes, text_starts: Offsets) -> int:
    """Copy rows `first` to `last` into `text`, a byte between two; return how far that goes."""
    data, folded, starts, ends, in_folded = rows
    at = 0
    for row in range(first, last):
        text_starts[row - first] = at
        start, length = starts[row], ends[row] - starts[row]
        if in_folded[row]:
            copy(folded, start, length, text, at)
        else:
            copy(data, start, length, text, at)
        at += length + 1
        text[at - 1] = 0
    text_starts[last - first] = at
    return at


@inlined
def copy(source: Bytes, start: int, length: int, target: Bytes, at: int) -> None:
    """Copy bytes, eight at a time; a plain loop takes five times as long."""
    if length < 8:
        for i in range(length):
            target[at + i] = source[start + i]
        return
    last = length - 8
    i = 0
    while i < last:
        store_word(target, at + i, load_word(source, start + i))
        i += 8
    store_word(target, at + last, load_word(source, start + last))


@compiled
def mark(
    text: Bytes, text_starts: Offsets, rows: int, in_word: Bytes, fold_case: bool, marks: Bytes
) -> None:
    """Fold the text of `rows` in place, and set `marks` where a byte is part of no word, and between rows."""
    used = text_starts[rows]
    if fold_case:
        for i in range(used):
            text[i] += (text[i] >= 0x41 and text[i] <= 0x5A) * np.uint8(0x20)
    for i in range(used + PADDING):
        marks[i] = NOT_IN_WORD
    for k in range(len(in_word)):
        low, high = in_word[k, 0], in_word[k, 1]
        for i in range(used):
            marks[i] = np.uint8(0) if (text[i] >= low) & (text[i] <= high) else marks[i]
    for row in range(rows):
        marks[text_starts[row + 1] - 1] = NOT_IN_WORD


@compiled
def scan(
    text: Bytes,
    marks: Bytes,
    start: int,
    end: int,
    alone: Bytes,
    keep_empty: bool,
    n: int,
    keys: Words,
    spans: Words,
) -> int:
    """Cut `text[start:end]` into tokens: the n-th and following `keys` and spans; return the next n.

    A span is the token's start << 32 | its length.
    """
    after_separator = True
    i: Index = start
    while i < end:
        ahead = load_word(marks, i)
        if ahead & U128 == U0:
            if ahead != U0:
                bits = np.uint64(trailing_zeros(ahead) - 7)
                key, length = load_word(text, i) & ((U1 << bits) - U1), np.int64(bits >> U3)
            else:
                key, length = long_word(text, marks, i)
            keys[n], spans[n] = key, np.uint64(i) << U32 | np.uint64(length)
            i, n, after_separator = i + length, n + 1, False
            continue
        if keep_empty and after_separator:
            keys[n], spans[n] = U0, np.uint64(i) << U32
            n += 1
        if alone[text[i]]:
            keys[n], spans[n] = np.uint64(text[i]), np.uint64(i) << U32 | U1
            n += 1
        i, after_separator = i + 1, True
    if keep_empty and after_separator:
        keys[n], spans[n] = U0, np.uint64(i) << U32
        n += 1
    return n


@compiled
def long_word(text: Bytes, marks: Bytes, start: Index) -> tuple[np.uint64, np.int64]:
    """Return the key and the length of the word of 8 bytes or more that starts at `start`."""
    length = np.int64(8)
    ahead = load_word(marks, start + length)
    while ahead == U0:
        length += 8
        ahead = load_word(marks, start + length)
    length += trailing_zeros(ahead) >> 3
    if length == 8:
        return load_word(text, start), length
    key, at, last = np.uint64(length), start, start + length - 8
    # A range with a step would take as long as all the rest.
    while at < last:
        key = mixed(key, load_word(text, at))
        at += 8
    return mixed(key, load_word(text, last)), length


@inlined
def mixed(key: np.uint64, word: np.uint64) -> np.uint64:
    """Return a hash of a hash and another word."""
    key = (key ^ word) * MIX_2
    return key ^ (key >> U32)


# Looking up


@compiled
def table_size(entries: int) -> int:
    """Return a power of two of which `entries` fill at most a third: fuller tables cost a half more time."""
    size = 64
    while size < 3 * entries:
        size *= 2
    return size


@inlined
def shift_of(slots: int) -> np.uint64:
    """Return by how many bits to shift a hash right to have an index below `slots`, a power of two."""
    return np.uint64(64 - trailing_zeros(np.uint64(slots)))


@inlined
def find_token(
    key: np.uint64,
    span: np.uint64,
    text: Bytes,
    tokens: Words,
    shift: np.uint64,
    arena: Bytes,
    arena_starts: Offsets,
) -> np.uint64:
    """Return the slot of the token with this key and span, or the empty one where it would stand."""
    length = span & HALF
    code = length + U1 if length <= U8 else LONG
    mask = np.uint64(len(tokens) - 1)
    slot = (key * MIX) >> shift
    while tokens[slot, WORD] != U0:
        word = tokens[slot, WORD]
        if tokens[slot, KEY] == key and (word >> U28) & LONG == code:
            if code != LONG:
                return slot
            kept = arena_starts[word & TOKEN]
            if arena_starts[(word & TOKEN) + U1] - kept == np.int64(length) and same_bytes(
                text, np.int64(span >> U32), arena, kept, np.int64(length)
            ):
                return slot
        slot = (slot + U1) & mask
    return slot


@inlined
def same_bytes(text: Bytes, start: Index, arena: Bytes, kept: Index, length: Index) -> bool:
    """Whether `length` bytes, 8 or more, of the text are those of the arena."""
    last = start + length - 8
    while start < last:
        if load_word(text, start) != load_word(arena, kept):
            return False
        start, kept = start + 8, kept + 8
    return bool(load_word(text, last) == load_word(arena, kept + last - start))


# Numbering


@compiled
def number_tokens(rows: Rows, byte_rules: ByteRules) -> tuple[Words, Bytes, Offsets, Ids, Offsets]:
    """Give each distinct token a number, in order of appearance.

    Returns:
        token table without contents; the distinct tokens' bytes, and where each begins and the last
        ends; and the tokens of all rows by number, with where each row's begin.
    """
    in_word, alone, fold_case, keep_empty = byte_rules
    lengths = rows.ends - rows.starts
    room = (lengths.max() if lengths.size else 0) + 1
    text, marks = np.empty(room + PADDING, np.uint8), np.empty(room + PADDING, np.uint8)
    keys, spans = np.empty(2 * room, np.uint64), np.empty(2 * room, np.uint64)
    text_starts = np.empty(2, np.int64)
    tokens, distinct = np.zeros((64, 2), np.uint64), 0
    arena, arena_starts = np.empty(lengths.sum() + PADDING, np.uint8), np.zeros(65, np.int64)
    names, offsets = np.empty(64, np.int32), np.zeros(lengths.size + 1, np.int64)
    for row in range(lengths.size):
        used = gather(rows, row, row + 1, text, text_starts)
        mark(text, text_starts, 1, in_word, fold_case, marks)
        n = scan(text, marks, 0, used - 1, alone, keep_empty, 0, keys, spans)
        at = offsets[row]
        while at + n > names.size:
            names = np.concatenate((names, np.empty_like(names)))
        for k in range(n):
            if 3 * distinct >= len(tokens):
                tokens = resized(tokens)
                arena_starts = np.concatenate((arena_starts, np.empty_like(arena_starts)))
            slot = find_token(
                keys[k], spans[k], text, tokens, shift_of(len(tokens)), arena, arena_starts
            )
            if tokens[slot, WORD] == U0:
                length, start = np.int64(spans[k] & HALF), np.int64(spans[k] >> U32)
                kept = arena_starts[distinct]
                arena[kept : kept + length] = text[start : start + length]
                arena_starts[distinct + 1] = kept + length
                code = np.uint64(length + 1) if length <= 8 else LONG
                tokens[slot, KEY], tokens[slot, WORD] = keys[k], code << U28 | np.uint64(distinct)
                distinct += 1
            names[at + k] = np.int32(tokens[slot, WORD] & TOKEN)
        offsets[row + 1] = at + n
    arena, arena_starts = (
        arena[: arena_starts[distinct]].copy(),
        arena_starts[: distinct + 1].copy(),
    )
    return tokens, arena, arena_starts, names[: offsets[-1]].copy(), offsets


@compiled
def resized(tokens: Words) -> Words:
    """Return the token table with twice the slots."""
    larger = np.zeros((2 * len(tokens), 2), np.uint64)
    place_tokens(tokens, larger)
    return larger


@compiled
def place_tokens(tokens: Words, target: Words) -> None:
    """Put the tokens of one table into another, which has none of them."""
    shift, mask = shift_of(len(target)), np.uint64(len(target) - 1)
    for old in range(len(tokens)):
        if tokens[old, WORD] != U0:
            slot = (tokens[old, KEY] * MIX) >> shift
            while target[slot, WORD] != U0:
                slot = (slot + U1) & mask
            target[slot, KEY], target[slot, WORD] = tokens[old, KEY], tokens[old, WORD]
