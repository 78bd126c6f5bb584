"""How far pictures are apart by each method, in whole numbers; and how many unrelated ones are near.

PDQ counts bits, 0 to 256. Of embeddings it is thousandths of 1 - cosine, rounded up, so that a pair is
within `t` if and only if its cosine is at least 1 - t/1000.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

PDQ: Final = "pdq"
"""Both pictures as they are: what tells duplicates within the corpus."""
MIRRORED: Final = "pdq_mirrored"
"""The picture of the evaluation set as it is or mirrored: what tells overlaps with it."""
EMBEDDING: Final = "embedding"

THOUSAND: Final = 1000
# Distances there are: counts of bits; thousandths up to a cosine of 0.
LEVELS: Final[Mapping[str, int]] = {PDQ: 257, MIRRORED: 257, EMBEDDING: THOUSAND + 1}
FARTHEST: Final = 256
# Pictures of either side compared at once.
OURS, THEIRS = 1024, 4096
# Of a cosine that was computed in single precision.
ROUNDING: Final = 1e-6

Distances = npt.NDArray[np.int16]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What pictures look like to each method.

    Attributes:
        upright, mirrored: PDQ hashes, [pictures, 4].
        is_clear: whether PDQ's quality suffices; else a picture is far from all others by PDQ.
        vectors: embeddings, [pictures, dimensions]; no dimension where there is no model.
    """

    upright: npt.NDArray[np.uint64]
    mirrored: npt.NDArray[np.uint64]
    is_clear: npt.NDArray[np.bool_]
    vectors: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.upright)

    def __getitem__(self, part: slice) -> "Looks":
        return Looks(
            upright=self.upright[part],
            mirrored=self.mirrored[part],
            is_clear=self.is_clear[part],
            vectors=self.vectors[part],
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """By which methods these pictures can be compared."""
        return tuple(LEVELS) if self.vectors.shape[1] else (PDQ, MIRRORED)


@dataclass(frozen=True, kw_only=True)
class Closest:
    """The closest pairs by a method, closest first: positions and distance."""

    ours: Counts
    theirs: Counts
    distance: Counts


@dataclass(frozen=True, kw_only=True)
class Unrelated:
    """What was seen of pairs of unrelated pictures.

    Attributes:
        pairs: how many were compared.
        same: further pairs, of equal pixels or said to be the same, that were not counted.
        counts: by method, how many pairs are at each distance.
        closest: by method.
    """

    pairs: int
    same: int
    counts: Mapping[str, Counts]
    closest: Mapping[str, Closest]


def compare(ours: Looks, theirs: Looks) -> dict[str, Distances]:
    """Return the distances of each of `ours`, pictures of a set, to each of `theirs`, by method."""
    hidden = ~(ours.is_clear[:, None] & theirs.is_clear[None])
    upright = _bits(ours.upright, theirs.upright)
    upright[hidden] = FARTHEST
    mirrored = _bits(ours.mirrored, theirs.upright)
    mirrored[hidden] = FARTHEST
    found = {PDQ: upright, MIRRORED: np.minimum(upright, mirrored)}
    if EMBEDDING in ours.methods:
        cosine = ours.vectors.astype(np.float32) @ theirs.vectors.astype(np.float32).T
        steps = np.ceil((1 - ROUNDING - cosine) * THOUSAND)
        found[EMBEDDING] = steps.clip(0, THOUSAND).astype(np.int16)
    return found


def count_unrelated(
    ours: Looks,
    theirs: Looks | None,
    same: npt.NDArray[np.int64],
    alike: tuple[Counts, Counts],
    *,
    keep: int,
) -> Iterator[Unrelated]:
    """Compare each of `ours` with each of `theirs`, or of one another if None; yield what is known so far.

    Args:
        same: positions [pairs, 2] of pictures that are not unrelated.
        alike: numbers of both sides' pictures; pictures of equal numbers are not unrelated.
        keep: closest pairs to keep by each method.
    """
    others = ours if theirs is None else theirs
    counts = {method: np.zeros(LEVELS[method], np.int64) for method in ours.methods}
    none = np.empty(0, np.int64)
    closest = {m: Closest(ours=none, theirs=none, distance=none) for m in ours.methods}
    pairs = left_out = 0
    for row in range(0, len(ours), OURS):
        for column in range(row if theirs is None else 0, len(others), THEIRS):
            own, other = slice(row, row + OURS), slice(column, column + THEIRS)
            is_pair = np.ones((len(ours[own]), len(others[other])), np.bool_)
            if theirs is None:
                is_pair = np.triu(is_pair, 1 + row - column)
            wanted = int(is_pair.sum())
            is_pair &= alike[0][own, None] != alike[1][None, other]
            here = same - (row, column)
            here = here[(here >= 0).all(1) & (here < is_pair.shape).all(1)]
            is_pair[here[:, 0], here[:, 1]] = False
            left_out += wanted - int(is_pair.sum())
            pairs += int(is_pair.sum())
            for method, distance in compare(ours[own], others[other]).items():
                counts[method] += np.bincount(distance[is_pair], minlength=LEVELS[method])
                distance[~is_pair] = LEVELS[method]
                closest[method] = _closer(closest[method], distance, (row, column), method, keep)
        yield Unrelated(pairs=pairs, same=left_out, counts=counts, closest=closest)


def _closer(
    known: Closest, distance: Distances, corner: tuple[int, int], method: str, keep: int
) -> Closest:
    """Return the closest of those known and those of one block."""
    limit = int(known.distance[-1]) if len(known.distance) == keep else LEVELS[method] - 1
    below = np.searchsorted(np.cumsum(np.bincount(distance.ravel())), keep)
    own, other = np.nonzero(distance <= min(limit, int(below)))
    own, other, far = own + corner[0], other + corner[1], distance[own, other].astype(np.int64)
    own, other = np.append(known.ours, own), np.append(known.theirs, other)
    far = np.append(known.distance, far)
    order = np.lexsort((other, own, far))[:keep]
    order = order[far[order] < LEVELS[method]]
    return Closest(ours=own[order], theirs=other[order], distance=far[order])


def _bits(ours: npt.NDArray[np.uint64], theirs: npt.NDArray[np.uint64]) -> Distances:
    bits = np.zeros((len(ours), len(theirs)), np.int16)
    for word in range(ours.shape[1]):
        bits += np.bitwise_count(ours[:, word, None] ^ theirs[None, :, word])
    return bits
