"""Count words, and pairs of neighbouring words, in more text than fits in memory.

What a token is, `queries.text` says; the matcher's compiled loop finds them. Words are neighbours if
nothing but space stands between them, on one line.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.matching.token_kernels import number_tokens
from pipeline.matching.trie import caption_bytes, text_rows
from pipeline.matching.trie_tables import Ids

Keys = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Text numbered in one go: enough to make calls free, few enough for its tokens to stay in the cache.
BATCH_CHARACTERS = 2_000_000
# Between two lines, in place of a token's number.
BREAK = -1
_NEWLINE = 10


class Numbered(NamedTuple):
    """Distinct tokens, how often each occurs, and the text, in pieces, as their numbers.

    After each line stands BREAK.
    """

    tokens: pa.Array
    counts: Counts
    pieces: list[Ids]


class KeyCounts(NamedTuple):
    """Pairs of neighbours as keys (first << 32 | second), ascending, and how often each occurs."""

    keys: Keys
    counts: Counts

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "KeyCounts":
        """Return some of the pairs, by mask or by place."""
        return KeyCounts(self.keys[rows], self.counts[rows])

    def words(self) -> tuple[Keys, Keys]:
        """Return the numbers of the pairs' first and second words."""
        return self.keys >> 32, self.keys & 0xFFFFFFFF


class Numberer:
    """Numbers the tokens of texts as they come, and keeps nothing of the texts."""

    def __init__(self) -> None:
        """Begin with no text."""
        self._waiting: list[str] = []
        self._waiting_characters = 0
        self._tokens: list[pa.Array] = [pa.array([], pa.large_string())]
        self._pieces: list[Ids] = []

    def add(self, text: str) -> None:
        """Number the tokens of `text`."""
        self._waiting.append(text)
        self._waiting_characters += len(text)
        if self._waiting_characters >= BATCH_CHARACTERS:
            self._number_waiting()

    def finish(self) -> Numbered:
        """Return the tokens of all texts, the most frequent first."""
        self._number_waiting()
        found = pa.chunked_array(self._tokens).combine_chunks().dictionary_encode()
        joint = found.indices.to_numpy().astype(np.int32)
        counts = np.zeros(len(found.dictionary), np.int64)
        first = 0
        # In place, piece by piece: this is most of what a task holds in memory.
        for tokens, piece in zip(self._tokens[1:], self._pieces, strict=True):
            piece[:] = _look_up(joint[first : first + len(tokens)], piece)
            counts += np.bincount(piece[piece != BREAK], minlength=len(counts))
            first += len(tokens)
        order = np.argsort(-counts, kind="stable")
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        for piece in self._pieces:
            piece[:] = _look_up(place, piece)
        return Numbered(found.dictionary.take(pa.array(order)), counts[order], self._pieces)

    def _number_waiting(self) -> None:
        tokens, numbers = number_lines("\n".join(self._waiting))
        self._tokens.append(tokens)
        self._pieces.append(numbers)
        self._waiting.clear()
        self._waiting_characters = 0


def number_lines(text: str) -> tuple[pa.Array, Ids]:
    """Return the distinct tokens of `text`, and its tokens by number, with BREAK after each line."""
    data = text.encode(errors="replace")
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE) + 1
    bounds = np.concatenate([[0], ends, [len(data)]]).astype(np.int64)
    lines = _strings(bounds, data)
    rows = text_rows(lines, "words")
    _, token_bytes, token_bounds, numbers, offsets = number_tokens(rows, caption_bytes("words"))
    spaced = np.insert(numbers, offsets[1:], np.int32(BREAK))
    return _strings(token_bounds, token_bytes.tobytes()), spaced


def count_pairs(pieces: Iterator[Ids]) -> KeyCounts:
    """Count the neighbours in a text of word numbers, given in pieces; negative ones are no words."""
    found: list[Keys] = []
    last = np.array([BREAK], np.int32)
    for piece in pieces:
        text = np.concatenate([last, piece]).astype(np.int64)
        first, second = text[:-1], text[1:]
        are_words = (first >= 0) & (second >= 0)
        found.append(first[are_words] << 32 | second[are_words])
        last = piece[-1:] if len(piece) else last
    keys = np.concatenate([np.empty(0, np.int64), *found])
    found.clear()
    keys.sort()
    first_of = np.flatnonzero(_differs(keys))
    counts = np.diff(first_of, append=len(keys))
    return KeyCounts(keys[first_of], counts)


def add_up(pairs: KeyCounts) -> KeyCounts:
    """Return each key once, with the sum of its counts."""
    order = np.argsort(pairs.keys, kind="stable")
    keys, counts = pairs.keys[order], pairs.counts[order]
    if not len(keys):
        return KeyCounts(keys, counts)
    first_of = np.flatnonzero(_differs(keys))
    return KeyCounts(keys[first_of], np.add.reduceat(counts, first_of))


def pmi(pairs: KeyCounts, word_counts: Counts, total: int) -> Floats:
    """Return log2(p(xy) / (p(x) p(y))) of each pair, in bits.

    Args:
        word_counts: how often each word occurs, by its number.
        total: words in the corpus.
    """
    first, second = pairs.words()
    chance: Floats = word_counts[first].astype(np.float64) * word_counts[second] / total
    bits: Floats = np.log2(pairs.counts / chance)
    # Rounded, so that no platform's logarithm decides the order of two pairs.
    return bits.round(3)


def best_first(pairs: KeyCounts, bits: Floats, words: pa.Array) -> npt.NDArray[np.intp]:
    """Return the order of pairs by PMI and count, highest first, then by their text."""
    by_text = np.empty(len(words), np.int64)
    by_text[pc.sort_indices(words).to_numpy()] = np.arange(len(words))
    first, second = pairs.words()
    return np.lexsort((by_text[second], by_text[first], -pairs.counts, -bits))


def _strings(bounds: npt.NDArray[np.int64], data: bytes) -> pa.Array:
    return pa.LargeStringArray.from_buffers(
        len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(data)
    )


def _differs(keys: Keys) -> npt.NDArray[np.bool_]:
    """Return for each of ascending keys whether it is the first of its kind."""
    differs = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=differs[1:])
    return differs


def _look_up(table: Ids, numbers: Ids) -> Ids:
    """Return what `table` says of each number; BREAK stays."""
    # Index -1 is the last element.
    return np.append(table, np.int32(BREAK))[numbers]
