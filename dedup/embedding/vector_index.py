"""Search very many vectors by an inverted file: FAISS's lists of vectors around centres.

Each query looks into some lists alone. How many is measured on the vectors themselves: queries drawn
evenly are searched exactly too, and lists are added until so few pairs are missed as is allowed.
"""

import math
from typing import Any, Final

import numpy as np

from dedup.embedding.vectors import (
    QUERY_BLOCK,
    TARGET_BLOCK,
    Candidates,
    Floats,
    Vectors,
    confirmed,
    every_block,
    found_by,
    one_thread,
    shortened,
)

RECALL: Final = 0.99
"""Share of the sampled queries' pairs that has to be found."""

# Queries that are searched exactly as well: on ten million targets a minute's work.
_JUDGES: Final = 1024
_TRAINED_ON: Final = 40
_ROUNDS: Final = 10


def probe(
    queries: Vectors, targets: Vectors, directions: Floats | None, least: float
) -> Candidates:
    """Yield positions of pairs that may be similar: at least RECALL of those that are."""
    index = _filled(targets, directions)
    index.nprobe = _lists_to_probe(index, queries, targets, directions, least)
    yield from _found(index, queries, directions, least)


def _filled(targets: Vectors, directions: Floats | None) -> Any:
    import faiss

    lists = max(1, min(int(4 * math.sqrt(len(targets))), len(targets) // _TRAINED_ON))
    every = max(1, len(targets) // (_TRAINED_ON * lists))
    sample = shortened(targets[::every], directions)
    index = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(sample.shape[1]),
        sample.shape[1],
        lists,
        faiss.METRIC_INNER_PRODUCT,
    )
    index.cp.niter = _ROUNDS
    index.cp.min_points_per_centroid = 1
    with one_thread():
        index.train(sample)
        for first in range(0, len(targets), TARGET_BLOCK):
            index.add(shortened(targets[first : first + TARGET_BLOCK], directions))
    return index


def _found(index: Any, queries: Vectors, directions: Floats | None, least: float) -> Candidates:
    for start in range(0, len(queries), QUERY_BLOCK):
        some = shortened(queries[start : start + QUERY_BLOCK], directions)
        query, target = found_by(index, some, least)
        yield start + query, target


def _lists_to_probe(
    index: Any, queries: Vectors, targets: Vectors, directions: Floats | None, least: float
) -> int:
    every = -(-len(queries) // _JUDGES)
    judges = queries[::every]
    everyone = np.arange(len(judges))
    _, _, own = confirmed(judges, judges, everyone, everyone, -math.inf)

    def count(candidates: Candidates) -> int:
        pairs = 0
        for query, target in candidates:
            # Vectors find themselves, and what equals them, in any case.
            judge, _, similarity = confirmed(judges, targets, query, target, least)
            pairs += int((similarity != own[judge]).sum())
        return pairs

    wanted = RECALL * count(every_block(judges, targets, directions, least))
    probes = 1
    index.nprobe = probes
    while probes < index.nlist and count(_found(index, judges, directions, least)) < wanted:
        probes *= 2
        index.nprobe = probes
    return probes
