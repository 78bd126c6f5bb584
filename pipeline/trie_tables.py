"""What the token trie is made of, as arrays that compiled loops can take."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint16]
Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class Rows(NamedTuple):
    """Texts as they lie in memory: row r's bytes are in `folded` if `in_folded[r]`, else in `data`."""

    data: Bytes
    folded: Bytes
    starts: Offsets
    ends: Offsets
    in_folded: Bytes


class Tables(NamedTuple):
    """The trie. `arena` keeps the tokens over 16 bytes; `hints` has a bit set for each edge's hash."""

    tokens: Words
    arena: Bytes
    arena_starts: Offsets
    edges: Words
    hints: Words
    depth: int
