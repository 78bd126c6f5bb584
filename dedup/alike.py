"""When two pictures count as nearly the same, and which of many then stay.

By PDQ alone, or with embeddings, which may confirm what PDQ says and may say so where it does not. A
picture is dropped if one that stays, and is preferred to it, is nearly the same; of several it is
dropped for the most preferred.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.bands import Positions
from dedup.exact import by_preference
from dedup.links import METHODS, link_table
from dedup.perceptual import as_words, find_first, find_near, keep_first
from pipeline.runtime.compiled import compiled

# Pictures whose embeddings are compared each with each at once.
FEW: Final = 1024

_NEAR: Final = METHODS.index("near_duplicate")
_SIMILAR: Final = METHODS.index("similar")


@dataclass(frozen=True, kw_only=True)
class Alike:
    """The thresholds.

    Attributes:
        max_distance: differing PDQ bits up to which two pictures are near.
        min_similarity: cosine of embeddings from which they are the same whatever PDQ says.
        confirm_similarity: cosine below which PDQ does not count.
    """

    max_distance: int
    min_similarity: float | None = None
    confirm_similarity: float | None = None

    @property
    def needs_vectors(self) -> bool:
        """Whether pictures need a column `vector` of half floats beside PICTURES."""
        return self.min_similarity is not None or self.confirm_similarity is not None


@dataclass(frozen=True, kw_only=True)
class Leaders:
    """For each picture the position of the one it is dropped for, or -1; by which method, how far."""

    leader: Positions
    method: npt.NDArray[np.int8]
    distance: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Edges:
    """Pairs of positions that count as the same, by query, then by target."""

    query: Positions
    target: Positions
    method: npt.NDArray[np.int8]
    distance: npt.NDArray[np.float64]


def find_preferred(pictures: pa.Table, kept: pa.Table, alike: Alike) -> pa.Table:
    """Return LINKS from each picture to the most preferred of `kept` that is the same, if any.

    Args:
        kept: pictures that stay, by preference.
    """
    return _links(pictures, kept, _first_of(pictures, kept, alike))


def keep_apart(pictures: pa.Table, alike: Alike) -> tuple[pa.Table, pa.Table]:
    """Return those PICTURES that stay, by preference, and LINKS of the others."""
    pictures = by_preference(pictures)
    leaders = _no_leaders(pictures.num_rows)
    if alike.needs_vectors:
        _keep_among(pictures, np.arange(pictures.num_rows), alike, leaders)
    else:
        leaders = _by_pdq(keep_first(_words(pictures), alike.max_distance))
    return pictures.filter(pa.array(leaders.leader < 0)), _links(pictures, pictures, leaders)


def with_vectors(pictures: pa.Table, vectors: npt.NDArray[np.float16]) -> pa.Table:
    """Return PICTURES with a column `vector` of these rows [pictures, dimensions]."""
    width = 2 * vectors.shape[1]
    data = pa.py_buffer(np.ascontiguousarray(vectors))
    column = pa.Array.from_buffers(pa.binary(width), len(vectors), [None, data])
    return pictures.append_column("vector", column)


def _links(pictures: pa.Table, targets: pa.Table, leaders: Leaders) -> pa.Table:
    dropped = np.flatnonzero(leaders.leader >= 0)
    return link_table(
        pictures,
        dropped,
        targets,
        leaders.leader[dropped],
        method=leaders.method[dropped],
        distance=leaders.distance[dropped],
    )


def _first_of(pictures: pa.Table, kept: pa.Table, alike: Alike) -> Leaders:
    """Return for each picture the first of `kept` that is the same."""
    if not alike.needs_vectors:
        return _by_pdq(find_first(_words(pictures), _words(kept), alike.max_distance))
    edges = _edges(pictures, kept, alike, first_only=True)
    leaders = _no_leaders(pictures.num_rows)
    query, first = np.unique(edges.query, return_index=True)
    leaders.leader[query] = edges.target[first]
    leaders.method[query] = edges.method[first]
    leaders.distance[query] = edges.distance[first]
    return leaders


def _by_pdq(found: Any) -> Leaders:
    return Leaders(
        leader=found.leader,
        method=np.full(len(found.leader), _NEAR, np.int8),
        distance=found.distance.astype(np.float64),
    )


def _keep_among(pictures: pa.Table, rows: Positions, alike: Alike, leaders: Leaders) -> None:
    """Decide for `rows`, ascending, which nothing outside them drops: the first half, then the rest."""
    if len(rows) <= FEW:
        own = pictures.take(pa.array(rows))
        edges = _edges(own, own, alike)
        found = _no_leaders(len(rows))
        _settle(
            edges.query, edges.target, edges.method, edges.distance,
            found.leader, found.method, found.distance,
        )  # fmt: skip
        _take_over(leaders, rows, rows, found)
        return
    former, latter = np.split(rows, [len(rows) // 2])
    _keep_among(pictures, former, alike, leaders)
    kept = former[leaders.leader[former] < 0]
    targets = pictures.take(pa.array(kept))
    _take_over(leaders, latter, kept, _first_of(pictures.take(pa.array(latter)), targets, alike))
    _keep_among(pictures, latter[leaders.leader[latter] < 0], alike, leaders)


def _take_over(leaders: Leaders, rows: Positions, targets: Positions, found: Leaders) -> None:
    """Set what was `found` for `rows`, whose leaders are positions in `targets`."""
    is_dropped = found.leader >= 0
    at = rows[is_dropped]
    leaders.leader[at] = targets[found.leader[is_dropped]]
    leaders.method[at] = found.method[is_dropped]
    leaders.distance[at] = found.distance[is_dropped]


def _edges(
    queries: pa.Table, targets: pa.Table, alike: Alike, *, first_only: bool = False
) -> _Edges:
    """Return the pairs that count as the same, each by PDQ where it says so.

    Args:
        first_only: leave out most pairs but the first of each query.
    """
    # The library of the search is an extra, and only needed here.
    from dedup.embedding.vectors import find_similar, similarities

    near = find_near(_words(queries), _words(targets), alike.max_distance)
    ours, theirs = _vectors(queries), _vectors(targets)
    query, target, distance = near.query, near.target, near.distance.astype(np.float64)
    if alike.confirm_similarity is not None:
        is_sure = similarities(ours, theirs, query, target) >= alike.confirm_similarity
        query, target, distance = query[is_sure], target[is_sure], distance[is_sure]
    method = np.full(len(query), _NEAR, np.int8)
    if alike.min_similarity is not None:
        queried, met, apart = [query], [target], [distance]
        for similar in find_similar(ours, theirs, alike.min_similarity):
            firsts = np.unique(similar.query, return_index=True)[1]
            some = firsts if first_only else slice(None)
            queried.append(similar.query[some])
            met.append(similar.target[some])
            apart.append(np.maximum(1 - similar.similarity[some], 0))
        query, target = np.concatenate(queried), np.concatenate(met)
        distance = np.concatenate(apart)
        method = np.append(method, np.full(len(query) - len(method), _SIMILAR, np.int8))
    order = np.lexsort((method, target, query))
    return _Edges(
        query=query[order], target=target[order], method=method[order], distance=distance[order]
    )


def _words(pictures: pa.Table) -> Any:
    return as_words(pictures.column("pdq"))


def _vectors(pictures: pa.Table) -> npt.NDArray[np.float16]:
    column = pictures.column("vector").combine_chunks()
    width = column.type.byte_width // 2
    values = np.frombuffer(column.buffers()[1] or b"", np.float16)
    return values[width * column.offset :][: width * len(column)].reshape(-1, width)


def _no_leaders(count: int) -> Leaders:
    return Leaders(
        leader=np.full(count, -1, np.int64),
        method=np.zeros(count, np.int8),
        distance=np.zeros(count, np.float64),
    )


@compiled
def _settle(
    query: Any,
    target: Any,
    method: Any,
    distance: Any,
    leader: Any,
    methods: Any,
    distances: Any,
) -> None:
    """Drop each query for the first of its targets that comes before it and stays."""
    for i in range(len(query)):
        a, b = query[i], target[i]
        if b < a and leader[a] < 0 and leader[b] < 0:
            leader[a], methods[a], distances[a] = b, method[i], distance[i]
