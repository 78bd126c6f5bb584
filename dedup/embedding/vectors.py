"""Find vectors whose inner product reaches a bound: exactly, or among very many by an index.

A vector a is shortened to (Pa, |a - PᵀPa|), where the rows of P are main directions of the targets.
By Cauchy and Schwarz shortened vectors have at least the inner product of the whole ones. So a
search of them, by FAISS, passes over no pair, and those it finds are then compared in full.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.runtime.compiled import compiled

Vectors = npt.NDArray[np.float16]
"""[vectors, dimensions], none longer than 1."""

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
Candidates = Iterator[tuple[Positions, Positions]]

INDEX_FROM: Final = 4_000_000
"""Targets from which on an index is searched where not every pair is asked for."""

# If each query were similar to each target: 100 MB for one block against another.
QUERY_BLOCK: Final = 512
TARGET_BLOCK: Final = 1 << 14

# More than rounding to float32 takes from an inner product of vectors no longer than 1.
SLACK: Final = 1e-4
# Vectors that tell the main directions, and what share of the pairs has to be compared in full.
_SAMPLED: Final = 2048
_RANKS: Final = (64, 128, 256, 512)
# Nanoseconds of one core: for a pair, by dimension, and for one that is compared in full.
_PER_DIMENSION: Final = 0.018
_PER_PAIR: Final = 1000.0
# Pairs below which main directions take longer to find than they save.
_FEW: Final = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Similar:
    """Pairs of positions whose vectors are similar, by query, then by target.

    Attributes:
        similarity: inner product, exact.
    """

    query: Positions
    target: Positions
    similarity: npt.NDArray[np.float64]


def find_similar(
    queries: npt.NDArray[Any],
    targets: npt.NDArray[Any],
    min_similarity: float,
    *,
    exact: bool | None = None,
) -> Iterator[Similar]:
    """Yield every pair of a query and a target with an inner product of at least `min_similarity`.

    They come in pieces, so that memory does not grow with their number; over all pieces, the targets
    of a query ascend. Numbers are rounded to float16 first, which changes none that an embedding has.
    A sum of products of such numbers is never rounded in float64, so the pairs are the same on any
    machine.

    Args:
        queries, targets: [vectors, dimensions], none longer than 1.
        exact: whether no pair may be missed; by default that holds below INDEX_FROM targets, from
            there on see `vector_index`.

    Raises:
        ValueError: vectors differ in length, or hold a number that is none or infinite.
    """
    if not (len(queries) and len(targets)):
        return iter(())
    if queries.shape[1:] != targets.shape[1:]:
        raise ValueError(f"vectors have {queries.shape[1:]} and {targets.shape[1:]} dimensions")
    is_exact = len(targets) < INDEX_FROM if exact is None else exact
    return _search(_halves(queries), _halves(targets), min_similarity, is_exact=is_exact)


def _halves(vectors: npt.NDArray[Any]) -> Vectors:
    with np.errstate(over="ignore"):
        halves = np.ascontiguousarray(vectors, np.float16)
    for first in range(0, len(halves), TARGET_BLOCK):
        # Nothing compares with such a number, and FAISS would pass over others for its sake.
        if not np.isfinite(halves[first : first + TARGET_BLOCK]).all():
            raise ValueError("vectors hold numbers that are none or infinite")
    return halves


def _search(
    queries: Vectors, targets: Vectors, least: float, *, is_exact: bool
) -> Iterator[Similar]:
    directions = main_directions(queries, targets, least)
    if is_exact:
        candidates = every_block(queries, targets, directions, least)
    else:
        from dedup.embedding.vector_index import probe

        candidates = probe(queries, targets, directions, least)
    for maybe, others in candidates:
        query, target, similarity = confirmed(queries, targets, maybe, others, least)
        if len(query):
            order = np.lexsort((target, query))
            yield Similar(query=query[order], target=target[order], similarity=similarity[order])


def every_block(
    queries: Vectors, targets: Vectors, directions: Floats | None, least: float
) -> Candidates:
    """Yield positions of pairs that may be similar; no other pair is."""
    import faiss

    for first in range(0, len(targets), TARGET_BLOCK):
        block = shortened(targets[first : first + TARGET_BLOCK], directions)
        index = faiss.IndexFlatIP(block.shape[1])
        index.add(block)
        for start in range(0, len(queries), QUERY_BLOCK):
            some = shortened(queries[start : start + QUERY_BLOCK], directions)
            query, target = found_by(index, some, least)
            yield start + query, first + target


def found_by(index: Any, some: Floats, least: float) -> tuple[Positions, Positions]:
    """Return positions of pairs that may be similar, in `some` and in a FAISS index."""
    with one_thread():
        limits, _, found = index.range_search(some, least - SLACK)
    counts: Positions = np.diff(limits.astype(np.int64))
    return np.repeat(np.arange(len(some)), counts), found


def shortened(vectors: Vectors, directions: Floats | None) -> Floats:
    """Return `vectors` along `directions`, and as last number how long the rest of each is."""
    whole = vectors.astype(np.float32)
    if directions is None:
        return whole
    short = np.empty((len(whole), len(directions) + 1), np.float32)
    short[:, :-1] = whole @ directions.T
    rest = np.einsum("ij,ij->i", whole, whole) - np.einsum("ij,ij->i", short[:, :-1], short[:, :-1])
    # Rather too long than too short by what rounding does.
    short[:, -1] = np.sqrt(np.maximum(rest, 0) + SLACK)
    return short


def main_directions(queries: Vectors, targets: Vectors, least: float) -> Floats | None:
    """Return [rank, dimensions], orthonormal; the rank that a sample says is fastest, None: all."""
    dimensions = targets.shape[1]
    if len(queries) * len(targets) < _FEW:
        return None
    left, right = _sample(queries), _sample(targets)
    whole = right.astype(np.float64)
    _, vectors = np.linalg.eigh(whole.T @ whole)
    basis = np.ascontiguousarray(vectors.T[::-1], np.float32)
    costs = {dimensions: dimensions * _PER_DIMENSION}
    for rank in (rank for rank in _RANKS if rank < dimensions):
        bounds = shortened(left, basis[:rank]) @ shortened(right, basis[:rank]).T
        costs[rank] = rank * _PER_DIMENSION + float((bounds >= least).mean()) * _PER_PAIR
    best = min(costs, key=lambda rank: costs[rank])
    return basis[:best] if best < dimensions else None


def _sample(vectors: Vectors) -> Vectors:
    return vectors[:: -(-len(vectors) // _SAMPLED)]


def confirmed(
    queries: Vectors, targets: Vectors, query: Positions, target: Positions, least: float
) -> tuple[Positions, Positions, npt.NDArray[np.float64]]:
    """Return those of the pairs that are similar, and how similar."""
    similarity = similarities(queries, targets, query, target)
    good = similarity >= least
    return query[good], target[good], similarity[good]


def similarities(
    queries: Vectors, targets: Vectors, query: Positions, target: Positions
) -> npt.NDArray[np.float64]:
    """Return the inner product of each pair."""
    similarity = np.empty(len(query), np.float64)
    halves = (queries.view(np.uint16), targets.view(np.uint16))
    _multiply(*halves, query, target, _NUMBERS, similarity)
    return similarity


# Every float16 by its bits: looking them up is faster than what the processor or numpy does.
_NUMBERS: Final = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)


@compiled
def _multiply(left: Any, right: Any, rows: Any, others: Any, numbers: Any, similarity: Any) -> None:
    for i in range(len(rows)):
        a, b = left[rows[i]], right[others[i]]
        even = odd = 0.0
        for j in range(0, len(a) - 1, 2):
            even += numbers[a[j]] * numbers[b[j]]
            odd += numbers[a[j + 1]] * numbers[b[j + 1]]
        if len(a) % 2:
            even += numbers[a[-1]] * numbers[b[-1]]
        similarity[i] = even + odd


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep FAISS to one thread while the block runs: work is spread over processes."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
