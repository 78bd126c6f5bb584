"""Compiled loops that link tokens into a trie of queries, and walk it for captions.

An edge's key is (node, token). Nodes are numbered so that the one reached from the root by token t is
node t; deeper nodes follow.

Captions are matched some hundred at a time, in steps over all their tokens: what the next step will
touch is then known early enough to be fetched ahead, and few branches depend on the text.
"""

import numpy as np

from pipeline.matching.token_kernels import (
    HALF,
    MIX,
    PADDING,
    TOKEN,
    U0,
    U1,
    U32,
    WORD,
    find_token,
    gather,
    mark,
    place_tokens,
    scan,
    shift_of,
    table_size,
)
from pipeline.matching.trie_tables import (
    ByteRules,
    Bytes,
    Contents,
    Ids,
    Index,
    Offsets,
    Rows,
    Tables,
    Words,
)
from pipeline.runtime.compiled import compiled, inlined
from pipeline.runtime.intrinsics import prefetch

# Text in work at a time, unless one caption is longer: with its tokens it stays in a core's own cache.
CHUNK_BYTES = 4096
# Ids of one caption from which a library's sort is faster.
MANY = 64
# Columns of an edge's slot: (node + 1) << 32 | token, 0 where empty; child << 32 | the child's content.
EDGE, CHILD = 0, 1
# A node's content: (query id + 1) << 1 | whether it has children.
HAS_CHILDREN = np.uint32(1)

U6, U63 = np.uint64(6), np.uint64(63)


@inlined
def edge_key(node: np.uint64, token: np.int32) -> np.uint64:
    """Return the key of the edge from `node` by `token`, never 0."""
    return (node + U1) << U32 | np.uint64(token)


@inlined
def find_edge(key: np.uint64, edges: Words, shift: np.uint64) -> np.uint64:
    """Return the slot of the edge `key`, or the empty one where it would stand."""
    mask = np.uint64(len(edges) - 1)
    slot = (key * MIX) >> shift
    while edges[slot, EDGE] != U0 and edges[slot, EDGE] != key:
        slot = (slot + U1) & mask
    return slot


# Building


@compiled
def link(names: Ids, offsets: Offsets, query_ids: Ids, distinct: int) -> tuple[Words, Words, int]:
    """Build the trie of the rows' tokens.

    Returns:
        Edges without contents; each node's content; the first row that repeats an earlier one or
        is empty, where building stopped, or -1.
    """
    edges = np.zeros((table_size(names.size), 2), np.uint64)
    shift = shift_of(len(edges))
    contents = np.zeros(distinct + names.size, np.uint64)
    nodes = np.uint64(distinct)
    for row in range(query_ids.size):
        if offsets[row] == offsets[row + 1]:
            return edges, contents, row
        node = np.uint64(names[offsets[row]])
        for k in range(offsets[row] + 1, offsets[row + 1]):
            contents[node] |= U1
            key = edge_key(node, names[k])
            slot = find_edge(key, edges, shift)
            if edges[slot, EDGE] == U0:
                edges[slot, EDGE], edges[slot, CHILD] = key, nodes << U32
                nodes += U1
            node = edges[slot, CHILD] >> U32
        if contents[node] > U1:
            return edges, contents, row
        contents[node] |= np.uint64(query_ids[row] + 1) << U1
    return edges, contents[: np.int64(nodes)], -1


@compiled
def pack(
    loose_tokens: Words, loose_edges: Words, contents: Words, distinct: int
) -> tuple[Words, Words, Words]:
    """Return token and edge tables of the right size, with the nodes' contents, and the hints."""
    tokens = np.zeros((table_size(distinct), 2), np.uint64)
    place_tokens(loose_tokens, tokens)
    for slot in range(len(tokens)):
        if tokens[slot, WORD] != U0:
            tokens[slot, WORD] |= contents[tokens[slot, WORD] & TOKEN] << U32
    edges = np.zeros((table_size(len(contents) - distinct), 2), np.uint64)
    # Four bits a slot: 512 KB for 350,000 edges, which stay in the second-level cache.
    hints = np.zeros(max(1, len(edges) // 16), np.uint64)
    for old in range(len(loose_edges)):
        key, child = loose_edges[old, EDGE], loose_edges[old, CHILD]
        if key != U0:
            place = find_edge(key, edges, shift_of(len(edges)))
            edges[place, EDGE], edges[place, CHILD] = key, child | contents[child >> U32]
            bit = (key * MIX) >> shift_of(64 * hints.size)
            hints[bit >> U6] |= U1 << (bit & U63)
    return tokens, edges, hints


# Matching


@compiled
def match_rows(rows: Rows, byte_rules: ByteRules, tables: Tables) -> tuple[Ids, Offsets]:
    """Return all rows' distinct ascending query ids, end to end, and where each row's begin."""
    in_word, alone, fold_case, keep_empty = byte_rules
    tokens, edges, hints, arena, arena_starts, depth = tables
    lengths = rows.ends - rows.starts
    room = max(CHUNK_BYTES, (lengths.max() if lengths.size else 0) + 1)
    text, marks = np.empty(room + PADDING, np.uint8), np.empty(room + PADDING, np.uint8)
    # A row has at most two tokens a byte and one more; another ends it.
    keys, spans = np.empty(2 * room, np.uint64), np.empty(2 * room, np.uint64)
    names, contents = np.empty(2 * room, np.int32), np.empty(2 * room, np.uint32)
    text_starts = np.empty(CHUNK_BYTES + 1, np.int64)
    token_starts = np.empty(CHUNK_BYTES + 1, np.int64)
    hits = np.empty(16 * lengths.size + 64, np.int32)
    offsets = np.zeros(lengths.size + 1, np.int64)
    first = 0
    while first < lengths.size:
        last, size = first + 1, lengths[first] + 1
        while last < lengths.size and size + lengths[last] + 1 <= CHUNK_BYTES:
            size += lengths[last] + 1
            last += 1
        gather(rows, first, last, text, text_starts)
        mark(text, text_starts, last - first, in_word, fold_case, marks)
        n = 0
        for row in range(last - first):
            token_starts[row] = n
            end = text_starts[row + 1] - 1
            n = scan(text, marks, text_starts[row], end, alone, keep_empty, n, keys, spans)
            keys[n], spans[n] = U0, U0
            n += 1
        token_starts[last - first] = n
        name_tokens(keys, spans, n, text, tokens, arena, arena_starts, names, contents)
        for row in range(last - first):
            end = token_starts[row + 1] - 1
            names[end], contents[end] = -1, 0
        likely = likely_edges(names, contents, n, edges, hints, keys, spans)
        most = offsets[first] + n + likely * depth[0]
        while hits.size < most + 1:
            hits = np.concatenate((hits, np.empty_like(hits)))
        find_queries(names, contents, token_starts, keys, spans, edges, first, last, hits, offsets)
        first = last
    return hits[: offsets[-1]].copy(), offsets


@compiled
def name_tokens(
    keys: Words,
    spans: Words,
    n: int,
    text: Bytes,
    tokens: Words,
    arena: Bytes,
    arena_starts: Offsets,
    names: Ids,
    contents: Contents,
) -> None:
    """Write the numbers of n tokens, -1 for those in no query, and their nodes' contents."""
    shift = shift_of(len(tokens))
    for k in range(n):
        prefetch(tokens, np.int64((keys[k] * MIX) >> shift))
    for k in range(n):
        slot = find_token(keys[k], spans[k], text, tokens, shift, arena, arena_starts)
        word = tokens[slot, WORD]
        contents[k] = np.uint32(word >> U32)
        names[k] = np.int32(word & TOKEN) if word != U0 else np.int32(-1)


@compiled
def likely_edges(
    names: Ids,
    contents: Contents,
    n: int,
    edges: Words,
    hints: Words,
    keys: Words,
    places: Words,
) -> int:
    """Write key and place of each token that, by the hints, has an edge to the next; return how many.

    After the last one stands n as a place.
    """
    shift, found = shift_of(64 * hints.size), 0
    for k in range(n - 1):
        key = edge_key(np.uint64(names[k]), names[k + 1])
        bit = (key * MIX) >> shift
        hinted = (hints[bit >> U6] >> (bit & U63)) & np.uint64(contents[k]) & U1
        keys[found], places[found] = key, np.uint64(k)
        found += np.int64(hinted) * (names[k + 1] >= 0)
    places[found] = np.uint64(n)
    shift = shift_of(len(edges))
    for c in range(found):
        prefetch(edges, np.int64((keys[c] * MIX) >> shift))
    return found


@compiled
def find_queries(
    names: Ids,
    contents: Contents,
    token_starts: Offsets,
    keys: Words,
    places: Words,
    edges: Words,
    first: int,
    last: int,
    hits: Ids,
    offsets: Offsets,
) -> None:
    """Append the ids of rows `first` to `last` to `hits`, and write where each row's end in `offsets`."""
    shift, at = shift_of(len(edges)), 0
    for row in range(last - first):
        begin, end = token_starts[row], token_starts[row + 1] - 1
        filled = offsets[first + row]
        for k in range(begin, end):
            hits[filled] = np.int32(np.int64(contents[k] >> 1) - 1)
            filled += np.int64(contents[k] > HAS_CHILDREN)
        while np.int64(places[at]) < end:
            filled = walk(names, np.int64(places[at]), keys[at], edges, shift, hits, filled)
            at += 1
        offsets[first + row + 1] = sort_distinct(hits, offsets[first + row], filled)


@inlined
def walk(
    names: Ids, k: Index, key: np.uint64, edges: Words, shift: np.uint64, hits: Ids, filled: Index
) -> Index:
    """Append the longer queries that begin with token k, whose edge is `key`; return how far that goes."""
    while True:
        slot = find_edge(key, edges, shift)
        if edges[slot, EDGE] == U0:
            return filled
        child = edges[slot, CHILD]
        hits[filled] = np.int32(np.int64((child & HALF) >> U1) - 1)
        filled += np.int64((child & HALF) > U1)
        k += 1
        if child & U1 == U0 or names[k + 1] < 0:
            return filled
        key = edge_key(child >> U32, names[k + 1])


@compiled
def sort_distinct(hits: Ids, first: Index, filled: Index) -> Index:
    """Sort `hits[first:filled]` in place, each id once; return where they now end."""
    if filled - first > MANY:
        hits[first:filled].sort()
    else:
        # Insertion over all that went before has no branch to mispredict: half the time of the usual.
        for i in range(first + 1, filled):
            high = hits[i]
            for k in range(first, i):
                hit = hits[k]
                hits[k], high = min(hit, high), max(hit, high)
            hits[i] = high
    end, before = first, np.int32(-1)
    for i in range(first, filled):
        hit = hits[i]
        hits[end] = hit
        end += np.int64(hit != before)
        before = hit
    return end
