"""Find the queries that stand in captions, straight from Arrow's buffers.

`compile_queries` puts the tokens of all queries in a trie; `QueryTrie.match` walks it for every
caption. Nothing is made per caption but its ids, and the interpreter lock is free all the while.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, InputError
from pipeline.matching import folding, token_kernels, trie_kernels
from pipeline.matching.trie_tables import ByteRules, Bytes, Ids, Offsets, Rows, Tables
from pipeline.runtime import storage
from queries.text import RULES, Rules, fold, metaclip_text, normalize, query_tokens, space_out

# Captions matched in one go: enough to make calls free, few enough for all in between to stay small.
BLOCK_ROWS = 65_536
# An id plus one, shifted by a bit, fits 32 bits.
MOST_ID = 2**31 - 2


@dataclass(frozen=True)
class QueryTrie:
    """All queries of a list, ready to be found."""

    rules: Rules
    tables: Tables

    @property
    def nbytes(self) -> int:
        """Return the bytes its tables take."""
        return sum(table.nbytes for table in self.tables)

    def match(self, captions: pa.Array | pa.ChunkedArray) -> pa.ListArray:
        """Return for each caption the ids of the queries in it: list<int32>, ascending, each id once.

        A null caption contains no query. Bytes that are not UTF-8 count as U+FFFD under rules
        "words" and as themselves under "metaclip".

        Raises:
            InputError: if `captions` are not strings, or their offsets point outside their data.
        """
        parts = [self._match_block(block) for block in _blocks(captions)]
        hits = [hits for hits, _ in parts]
        counts = [np.diff(offsets) for _, offsets in parts]
        ends = np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64)
        if ends[-1] > np.iinfo(np.int32).max:
            raise InputError(
                f"{len(captions)} captions hold {ends[-1]} queries; match fewer at a time"
            )
        values = pa.array(np.concatenate([np.empty(0, np.int32), *hits]), pa.int32())
        return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), values)

    def _match_block(self, captions: pa.Array) -> tuple[Ids, Offsets]:
        return trie_kernels.match_rows(
            text_rows(captions, self.rules), caption_bytes(self.rules), self.tables
        )


def compile_queries(queries: pa.Table, rules: str) -> QueryTrie:
    """Build the trie of `queries`, a table with the columns of QUERIES.

    Raises:
        ConfigError: if there are no such `rules`.
        InputError: if two queries are the same under the rules, one has no token, or an id is negative.
    """
    if rules not in RULES:
        raise ConfigError(f"rules are {rules!r}, expected one of: {', '.join(RULES)}")
    texts = queries.column("query").combine_chunks()
    given_ids = queries.column("query_id").to_numpy()
    for wrong in given_ids[(given_ids < 0) | (given_ids > MOST_ID)][:1]:
        raise InputError(f"a query has the id {wrong}, expected 0 to {MOST_ID}")
    query_ids = given_ids.astype(np.int32)
    loose_tokens, arena, arena_starts, names, offsets = token_kernels.number_tokens(
        text_rows(texts, rules), query_bytes(rules)
    )
    distinct = len(arena_starts) - 1
    if distinct > token_kernels.MOST_TOKENS:
        raise InputError(
            f"the queries have {distinct} tokens, expected at most {token_kernels.MOST_TOKENS}"
        )
    loose_edges, contents, refused = trie_kernels.link(names, offsets, query_ids, distinct)
    if refused >= 0:
        raise InputError(_refusal(texts.to_pylist(), refused, rules))
    packed = trie_kernels.pack(loose_tokens, loose_edges, contents, distinct)
    depth = np.array([np.diff(offsets).max(initial=0)], np.int64)
    tables = Tables(*packed, arena, arena_starts, depth)
    # As those read from a file are; the loops would be compiled once more for writable ones.
    for table in tables:
        table.flags.writeable = False
    return QueryTrie(rules, tables)


def save_trie(path: str, trie: QueryTrie) -> None:
    """Write the tables of `trie` to `path`, from where any number of processes can share them."""
    target = pa.BufferOutputStream()
    for table in trie.tables:
        pa.ipc.write_tensor(pa.Tensor.from_numpy(np.atleast_2d(table)), target)
    storage.write_bytes(path, target.getvalue())


def load_trie(path: str, rules: Rules) -> QueryTrie:
    """Read what `save_trie` wrote; a local file is mapped, so that processes share one copy in memory."""
    if storage.is_url(path):
        source = pa.BufferReader(storage.read_bytes(path))
    else:
        source = pa.memory_map(storage.local_path(path))
    with source:
        tables = [pa.ipc.read_tensor(source).to_numpy() for _ in Tables._fields]
    flat = {"arena", "arena_starts", "hints", "depth"}
    named = zip(Tables._fields, tables, strict=True)
    return QueryTrie(rules, Tables(*(t[0] if name in flat else t for name, t in named)))


def _refusal(texts: list[str], row: int, rules: Rules) -> str:
    wanted = query_tokens(texts[row], rules)
    if not wanted:
        return f"query {row}, {texts[row]!r}, has no token under rules {rules!r}; remove it"
    first = next(i for i, text in enumerate(texts) if query_tokens(text, rules) == wanted)
    return (
        f"queries {first} and {row}, {texts[first]!r} and {texts[row]!r}, are the same under rules "
        f"{rules!r}; keep one"
    )


def _blocks(captions: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    chunks = captions.chunks if isinstance(captions, pa.ChunkedArray) else [captions]
    for chunk in chunks:
        for start in range(0, len(chunk), BLOCK_ROWS):
            yield chunk.slice(start, BLOCK_ROWS)


def text_rows(texts: pa.Array, rules: Rules) -> Rows:
    """Return the texts' bytes, by rules "words" folded except for ASCII's letter case."""
    data, starts, ends = _buffers(texts)
    if rules == "metaclip":
        return Rows(data, data, starts, ends, np.zeros(len(starts), np.uint8))
    folded, starts, ends, states = folding.fold_rows(data, starts, ends, folding.fold_table())
    hard = np.flatnonzero(states == folding.HARD)
    spelled = [_normalized(data[starts[row] : ends[row]]) for row in hard]
    lengths = np.array([len(text) for text in spelled], np.int64)
    ends[hard] = len(folded) + np.cumsum(lengths)
    starts[hard] = ends[hard] - lengths
    folded = np.frombuffer(folded.tobytes() + b"".join(spelled), np.uint8)
    return Rows(data, folded, starts, ends, states)


def _normalized(text: Bytes) -> bytes:
    return normalize(text.tobytes().decode("utf-8", errors="replace")).encode()


def _buffers(texts: pa.Array) -> tuple[Bytes, Offsets, Offsets]:
    """Return the array's bytes, and where each row's begin and end in them; a null row is empty.

    Raises:
        InputError: if it is not an array of strings, or an offset points outside the bytes.
    """
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise InputError(f"texts are {texts.type}, expected string or large_string")
    _, offset_buffer, byte_buffer = texts.buffers()
    data = np.frombuffer(byte_buffer or b"", np.uint8)
    # Some buffers are writable, and the loops would be compiled again for those.
    data.flags.writeable = False
    if len(texts) == 0:
        return data, np.empty(0, np.int64), np.empty(0, np.int64)
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    stored = np.frombuffer(offset_buffer, width)[texts.offset : texts.offset + len(texts) + 1]
    offsets = stored.astype(np.int64)
    if len(offsets) <= len(texts) or offsets[0] < 0 or offsets[-1] > len(data):
        raise InputError("a string array's offsets point outside its data")
    starts, ends = offsets[:-1].copy(), offsets[1:].copy()
    if (ends < starts).any():
        raise InputError("a string array's offsets decrease")
    if texts.null_count:
        ends = np.where(pc.is_null(texts).to_numpy(zero_copy_only=False), starts, ends)
    return data, starts, ends


@cache
def caption_bytes(rules: Rules) -> ByteRules:
    """Return what each byte of a caption does under `rules`; those of longer characters are in words."""
    if rules == "metaclip":
        return _byte_rules([metaclip_text(chr(byte))[1:-1] for byte in range(128)], rules)
    return _byte_rules([space_out(fold(chr(byte))) for byte in range(128)], rules)


@cache
def query_bytes(rules: Rules) -> ByteRules:
    """Return what each byte of a query does: MetaCLIP cuts entries at spaces only."""
    if rules == "metaclip":
        return _byte_rules([chr(byte) for byte in range(128)], rules)
    return caption_bytes(rules)


def _byte_rules(spaced: list[str], rules: Rules) -> ByteRules:
    """Return the rules by which each ASCII character becomes its text in `spaced`."""
    in_word = [len(text) == 1 and text != " " for text in spaced] + [True] * 128
    alone = [
        len(text.strip(" ")) == 1 and not word for text, word in zip(spaced, in_word, strict=False)
    ]
    bounds = np.flatnonzero(np.diff([False, *in_word, False])).reshape(-1, 2) - [0, 1]
    return ByteRules(
        bounds.astype(np.uint8),
        np.array([*alone, *[False] * 128], np.uint8),
        fold_case=rules == "words",
        keep_empty=rules == "metaclip",
    )
