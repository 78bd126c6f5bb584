"""What the token trie is made of, as arrays that compiled loops can take."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Index = int | np.int64
Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int32]
Contents = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class ByteRules(NamedTuple):
    """How bytes make tokens.

    `in_word` are inclusive ranges of the bytes that words are made of, [ranges, 2]. Of the others,
    `alone[byte]` is 1 for a token of its own and 0 for what only separates. With `fold_case`, A to Z
    are read as a to z. With `keep_empty`, nothing between two separators is an empty token.
    """

    in_word: Bytes
    alone: Bytes
    fold_case: bool
    keep_empty: bool


class Rows(NamedTuple):
    """Texts as they lie in memory: row r's bytes are in `folded` if `in_folded[r]`, else in `data`."""

    data: Bytes
    folded: Bytes
    starts: Offsets
    ends: Offsets
    in_folded: Bytes


class Tables(NamedTuple):
    """The trie: its tokens and edges, by hash; a bit set in `hints` for each edge.

    `arena[arena_starts[t]:arena_starts[t + 1]]` are the bytes of token t; no query is deeper than
    `depth[0]` tokens.
    """

    tokens: Words
    edges: Words
    hints: Words
    arena: Bytes
    arena_starts: Offsets
    depth: Offsets
