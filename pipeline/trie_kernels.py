"""The compiled loops of the token trie: scan texts into tokens, number them, link and walk the trie.

A token is known by its first 8 bytes (`low`), the next 8 (`high`) and its length, which for up to
16 bytes is the token itself; for a longer one `high` is a hash, and the bytes are compared as well.
An edge is found by its key, (node, token). So no match rests on a hash.

Nodes are numbered so that the one reached from the root by token t is node t; deeper nodes follow.

All loops stand in one module because numba's cache notices changes only in the module itself, and
inner ones take plain arrays because slices and tuples, whose references are counted, cost twice the time.
"""

import numpy as np

from pipeline.runtime.compiled import compiled, inlined
from pipeline.trie_tables import Bytes, Codes, Ids, Offsets, Rows, Tables, Words

# A byte's code: one of these, plus the byte it is folded to.
SEPARATES, OWN_TOKEN, IN_WORD = 0x000, 0x100, 0x200
# Columns of a scanned token. A slot of the token table has LOW and HIGH too, then length << 32 | token + 1
# (0 where the slot is empty) and the content of the token's node.
LOW, HIGH, LENGTH, START = 0, 1, 2, 3
NAME, CONTENT = 2, 3
# Columns of an edge's slot: (node + 1) << 32 | token, 0 where empty; child << 32 | the child's content.
EDGE, CHILD = 0, 1
# A node's content: (query id + 1) << 1 | whether it has children.

U0, U1, U6, U8, U16, U32 = (np.uint64(n) for n in (0, 1, 6, 8, 16, 32))
HALF = np.uint64(0xFFFFFFFF)
MIX, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


@inlined
def spread(key: np.uint64) -> np.uint64:
    """Return a hash of `key` that is good in its low 32 bits."""
    key = (key ^ (key >> U32)) * MIX
    return key ^ (key >> U32)


@compiled
def table_size(entries: int) -> int:
    """Return a power of two of which `entries` fill at most two thirds."""
    size = 64
    while 2 * size < 3 * entries:
        size *= 2
    return size


@compiled
def most_tokens(starts: Offsets, ends: Offsets) -> int:
    """Return a number of tokens that no row exceeds."""
    longest = 0
    for row in range(starts.size):
        longest = max(longest, ends[row] - starts[row])
    return 2 * longest + 1


@inlined
def scan(text: Bytes, start: int, end: int, codes: Codes, keep_empty: bool, found: Words) -> int:
    """Cut `text[start:end]` into tokens, described one a row in `found`; return their number."""
    n, i, after_separator = 0, start, True
    while i < end:
        code = codes[text[i]]
        if code >= IN_WORD:
            i = scan_word(text, i, end, codes, found, n)
            n, after_separator = n + 1, False
            continue
        if keep_empty and after_separator:
            n = describe(found, n, U0, U0, U0, i)
        if code >= OWN_TOKEN:
            n = describe(found, n, np.uint64(code & 0xFF), U0, U1, i)
        i, after_separator = i + 1, True
    if keep_empty and after_separator:
        n = describe(found, n, U0, U0, U0, i)
    return n


@inlined
def describe(
    found: Words, n: int, low: np.uint64, high: np.uint64, length: np.uint64, start: int
) -> int:
    """Write row n of `found`; return n + 1."""
    found[n, LOW], found[n, HIGH] = low, high
    found[n, LENGTH], found[n, START] = length, np.uint64(start)
    return n + 1


@inlined
def scan_word(text: Bytes, start: int, end: int, codes: Codes, found: Words, n: int) -> int:
    """Describe the word that starts at `start` in row n of `found`; return where it ends."""
    end_of_word = start + 1
    while end_of_word < end and codes[text[end_of_word]] >= IN_WORD:
        end_of_word += 1
    # Reading the bytes again is nearly twice as fast as finding the end and reading them in one loop.
    low, high = U0, U0
    for i in range(min(end_of_word, start + 8) - 1, start - 1, -1):
        low = low << U8 | np.uint64(codes[text[i]] & 0xFF)
    for i in range(min(end_of_word, start + 16) - 1, start + 7, -1):
        high = high << U8 | np.uint64(codes[text[i]] & 0xFF)
    for i in range(start + 16, end_of_word):
        high = (high ^ np.uint64(codes[text[i]] & 0xFF)) * MIX
        high ^= high >> U32
    describe(found, n, low, high, np.uint64(end_of_word - start), start)
    return end_of_word


@inlined
def find_token(
    text: Bytes,
    found: Words,
    k: int,
    codes: Codes,
    tokens: Words,
    arena: Bytes,
    arena_starts: Offsets,
) -> np.uint64:
    """Return the slot of the token in row k of `found`, or the empty one where it would stand."""
    low, high, length = found[k, LOW], found[k, HIGH], found[k, LENGTH]
    mask = np.uint64(len(tokens) - 1)
    slot = spread(low * MIX ^ high * MIX_2 ^ length) & mask
    while tokens[slot, NAME] != U0:
        name = tokens[slot, NAME]
        if tokens[slot, LOW] == low and tokens[slot, HIGH] == high and name >> U32 == length:
            if length <= U16:
                return slot
            kept = arena_starts[(name & HALF) - U1]
            if same_bytes(text, np.int64(found[k, START]), np.int64(length), codes, arena, kept):
                return slot
        slot = (slot + U1) & mask
    return slot


@inlined
def same_bytes(
    text: Bytes, start: np.int64, length: np.int64, codes: Codes, arena: Bytes, kept: np.int64
) -> bool:
    """Whether the token of the text, folded, is the one that stands in the arena at `kept`."""
    k = 0
    while k < length and arena[kept + k] == codes[text[start + k]] & 0xFF:
        k += 1
    return bool(k == length)


@inlined
def edge_key(node: np.uint64, token: np.int32) -> np.uint64:
    """Return the key of the edge from `node` by `token`, never 0."""
    return (node + U1) << U32 | np.uint64(token)


@inlined
def find_edge(key: np.uint64, edges: Words) -> np.uint64:
    """Return the slot of the edge `key`, or the empty one where it would stand."""
    mask = np.uint64(len(edges) - 1)
    slot = spread(key) & mask
    while edges[slot, EDGE] != U0 and edges[slot, EDGE] != key:
        slot = (slot + U1) & mask
    return slot


@inlined
def hint(key: np.uint64, hints: Words) -> np.uint64:
    """Return the number of the bit of `hints` that stands for the edge `key`."""
    return (spread(key) >> U8) & np.uint64(64 * hints.size - 1)


# Building


@compiled
def count_tokens(rows: Rows, codes: Codes, keep_empty: bool) -> int:
    """Return the number of tokens in all rows."""
    found = np.empty((most_tokens(rows.starts, rows.ends), 4), np.uint64)
    total = 0
    for row in range(rows.starts.size):
        text = rows.folded if rows.in_folded[row] else rows.data
        total += scan(text, rows.starts[row], rows.ends[row], codes, keep_empty, found)
    return total


@compiled
def number_tokens(
    rows: Rows, codes: Codes, keep_empty: bool
) -> tuple[Words, Bytes, Offsets, Ids, Offsets]:
    """Give each distinct token a number, in order of appearance.

    Returns:
        Token table without contents, arena, where each token starts in the arena; and the tokens
        of all rows by number, with where each row's begin.
    """
    total = count_tokens(rows, codes, keep_empty)
    tokens = np.zeros((table_size(total), 4), np.uint64)
    arena, arena_used = np.empty((rows.ends - rows.starts).sum(), np.uint8), 0
    arena_starts = np.zeros(total, np.int64)
    names, offsets = np.empty(total, np.int32), np.zeros(rows.starts.size + 1, np.int64)
    found = np.empty((most_tokens(rows.starts, rows.ends), 4), np.uint64)
    at, distinct = 0, 0
    for row in range(rows.starts.size):
        text = rows.folded if rows.in_folded[row] else rows.data
        n = scan(text, rows.starts[row], rows.ends[row], codes, keep_empty, found)
        for k in range(n):
            slot = find_token(text, found, k, codes, tokens, arena, arena_starts)
            if tokens[slot, NAME] == U0:
                tokens[slot, LOW], tokens[slot, HIGH] = found[k, LOW], found[k, HIGH]
                length, start = np.int64(found[k, LENGTH]), np.int64(found[k, START])
                tokens[slot, NAME] = np.uint64(length) << U32 | np.uint64(distinct + 1)
                if length > 16:
                    arena_starts[distinct] = arena_used
                    for byte in text[start : start + length]:
                        arena[arena_used] = codes[byte] & 0xFF
                        arena_used += 1
                distinct += 1
            names[at + k] = np.int32(np.int64(tokens[slot, NAME] & HALF) - 1)
        at += n
        offsets[row + 1] = at
    arena, arena_starts = arena[:arena_used].copy(), arena_starts[:distinct].copy()
    return tokens, arena, arena_starts, names, offsets


@compiled
def link(names: Ids, offsets: Offsets, query_ids: Ids, distinct: int) -> tuple[Words, Words, int]:
    """Build the trie of the rows' tokens.

    Returns:
        Edges without contents; each node's content; the first row that repeats an earlier one or
        is empty, where building stopped, or -1.
    """
    edges = np.zeros((table_size(names.size), 2), np.uint64)
    contents = np.zeros(distinct + names.size, np.uint64)
    nodes = np.uint64(distinct)
    for row in range(query_ids.size):
        if offsets[row] == offsets[row + 1]:
            return edges, contents, row
        node = np.uint64(names[offsets[row]])
        for k in range(offsets[row] + 1, offsets[row + 1]):
            contents[node] |= U1
            key = edge_key(node, names[k])
            slot = find_edge(key, edges)
            if edges[slot, EDGE] == U0:
                edges[slot, EDGE], edges[slot, CHILD] = key, nodes << U32
                nodes += U1
            node = edges[slot, CHILD] >> U32
        if contents[node] > U1:
            return edges, contents, row
        contents[node] |= np.uint64(query_ids[row] + 1) << U1
    return edges, contents[: np.int64(nodes)], -1


@compiled
def pack_tokens(loose: Words, contents: Words, distinct: int) -> Words:
    """Return a token table of the right size, with each token's node's content."""
    tokens = np.zeros((table_size(distinct), 4), np.uint64)
    mask = np.uint64(len(tokens) - 1)
    for old in range(len(loose)):
        low, high, name = loose[old, LOW], loose[old, HIGH], loose[old, NAME]
        if name == U0:
            continue
        slot = spread(low * MIX ^ high * MIX_2 ^ (name >> U32)) & mask
        while tokens[slot, NAME] != U0:
            slot = (slot + U1) & mask
        tokens[slot, LOW], tokens[slot, HIGH], tokens[slot, NAME] = low, high, name
        tokens[slot, CONTENT] = contents[(name & HALF) - U1]
    return tokens


@compiled
def pack_edges(loose: Words, contents: Words, count: int) -> tuple[Words, Words]:
    """Return an edge table of the right size, with each child's content, and the hints."""
    edges = np.zeros((table_size(count), 2), np.uint64)
    # Eight bits a slot: 256 KB to 512 KB for 350,000 edges, which stay in the second-level cache.
    hints = np.zeros(len(edges) // 8, np.uint64)
    for old in range(len(loose)):
        key, child = loose[old, EDGE], loose[old, CHILD]
        if key == U0:
            continue
        slot = find_edge(key, edges)
        edges[slot, EDGE], edges[slot, CHILD] = key, child | contents[child >> U32]
        bit = hint(key, hints)
        hints[bit >> U6] |= U1 << (bit & np.uint64(63))
    return edges, hints


# Matching


@compiled
def match_rows(rows: Rows, codes: Codes, keep_empty: bool, tables: Tables) -> tuple[Ids, Offsets]:
    """Return all rows' distinct ascending query ids, end to end, and where each row's begin."""
    hits = np.empty(16 * rows.starts.size + 64, np.int32)
    offsets = np.zeros(rows.starts.size + 1, np.int64)
    row = 0
    while True:
        row = match_until_full(row, rows, codes, keep_empty, tables, hits, offsets)
        if row == rows.starts.size:
            return hits[: offsets[row]].copy(), offsets
        hits = np.concatenate((hits, np.empty_like(hits)))


@compiled
def match_until_full(
    row: int,
    rows: Rows,
    codes: Codes,
    keep_empty: bool,
    tables: Tables,
    hits: Ids,
    offsets: Offsets,
) -> int:
    """Match from `row` on; return the first row whose ids no longer fit in `hits`, or one past the last."""
    data, folded, starts, ends, in_folded = rows
    tokens, arena, arena_starts, edges, hints, depth = tables
    limit = most_tokens(starts, ends)
    found = np.empty((limit, 4), np.uint64)
    names, contents = np.empty(limit, np.int32), np.empty(limit, np.uint64)
    while row < starts.size:
        # Two calls, because a variable that holds either array is counted, which takes a tenth longer.
        if in_folded[row]:
            n = name_tokens(
                folded, starts[row], ends[row], codes, keep_empty, found,
                tokens, arena, arena_starts, names, contents,
            )  # fmt: skip
        else:
            n = name_tokens(
                data, starts[row], ends[row], codes, keep_empty, found,
                tokens, arena, arena_starts, names, contents,
            )  # fmt: skip
        used = offsets[row]
        for k in range(n):
            if used + depth > hits.size:
                return row
            if names[k] >= 0:
                used = walk(names, contents[k], k, n, edges, hints, hits, used)
        row += 1
        offsets[row] = sort_distinct(hits, offsets[row - 1], used)
    return row


@inlined
def name_tokens(
    text: Bytes,
    start: int,
    end: int,
    codes: Codes,
    keep_empty: bool,
    found: Words,
    tokens: Words,
    arena: Bytes,
    arena_starts: Offsets,
    names: Ids,
    contents: Words,
) -> int:
    """Scan `text[start:end]` and write its tokens' numbers, -1 for unknown ones, and nodes' contents."""
    n = scan(text, start, end, codes, keep_empty, found)
    for k in range(n):
        slot = find_token(text, found, k, codes, tokens, arena, arena_starts)
        names[k] = np.int32(np.int64(tokens[slot, NAME] & HALF) - 1)
        contents[k] = tokens[slot, CONTENT]
    return n


@inlined
def walk(
    names: Ids, content: np.uint64, k: int, n: int, edges: Words, hints: Words, hits: Ids, used: int
) -> int:
    """Append to `hits[:used]` the queries that start at token k of n; return how far it now goes."""
    node = np.uint64(names[k])
    while True:
        if content > U1:
            hits[used] = np.int32(np.int64(content >> U1) - 1)
            used += 1
        k += 1
        if content & U1 == U0 or k == n or names[k] < 0:
            return used
        key = edge_key(node, names[k])
        bit = hint(key, hints)
        if (hints[bit >> U6] >> (bit & np.uint64(63))) & U1 == U0:
            return used
        slot = find_edge(key, edges)
        if edges[slot, EDGE] == U0:
            return used
        node, content = edges[slot, CHILD] >> U32, edges[slot, CHILD] & HALF


@inlined
def sort_distinct(hits: Ids, first: int, used: int) -> int:
    """Sort `hits[first:used]` in place, each id once; return where they now end."""
    if used - first > 64:
        hits[first:used].sort()
    else:
        for i in range(first + 1, used):
            hit, k = hits[i], i
            while k > first and hits[k - 1] > hit:
                hits[k] = hits[k - 1]
                k -= 1
            hits[k] = hit
    end = first
    for i in range(first, used):
        if end == first or hits[i] != hits[end - 1]:
            hits[end] = hits[i]
            end += 1
    return end
