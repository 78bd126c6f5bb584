import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.calibration import distances
from dedup.calibration.distances import (
    EMBEDDING,
    FARTHEST,
    LEVELS,
    MIRRORED,
    PDQ,
    Looks,
    Unrelated,
    compare,
)
from tests.reference import calibration as slow

NONE = np.empty((0, 2), np.int64)


def looks(count: int, seed: int, *, dimensions: int = 5) -> Looks:
    """Return pictures some of which are alike, upright, mirrored or both, and some too blank."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**63, (3, 4), np.uint64)
    upright = base[rng.integers(0, 3, count)] ^ rng.integers(0, 256, (count, 4), np.uint64)
    mirrored = base[rng.integers(0, 3, count)] ^ rng.integers(0, 256, (count, 4), np.uint64)
    # Eighths, whose products single precision has exactly.
    vectors = rng.integers(-3, 5, (count, dimensions)) / 8
    return Looks(
        upright=upright,
        mirrored=mirrored,
        is_clear=rng.random(count) < 0.8,
        vectors=vectors.astype(np.float16),
    )


def slow_distances(ours: Looks, i: int, theirs: Looks, j: int) -> dict[str, int]:
    upright = slow.bits(ours.upright[i].tobytes(), theirs.upright[j].tobytes())
    mirrored = slow.bits(ours.mirrored[i].tobytes(), theirs.upright[j].tobytes())
    clear = ours.is_clear[i] and theirs.is_clear[j]
    vectors = ours.vectors[i].tolist(), theirs.vectors[j].tolist()
    return {
        PDQ: upright if clear else FARTHEST,
        MIRRORED: min(upright, mirrored) if clear else FARTHEST,
        EMBEDDING: slow.thousandths(*vectors),
    }


def last(ours: Looks, theirs: Looks | None, keep: int, same: np.ndarray = NONE) -> Unrelated:
    alike = np.arange(len(ours)), np.arange(len(theirs or ours)) + (1000 if theirs else 0)
    *_, seen = distances.count_unrelated(ours, theirs, same, alike, keep=keep)
    return seen


@given(seed=st.integers(0, 10**6))
def test_distances_are_those_of_each_pair(seed: int) -> None:
    ours, theirs = looks(4, seed), looks(5, seed + 1)
    found = compare(ours, theirs)
    for i in range(4):
        for j in range(5):
            expected = slow_distances(ours, i, theirs, j)
            assert {method: int(d[i, j]) for method, d in found.items()} == expected


@pytest.mark.parametrize("itself", [True, False])
@given(seed=st.integers(0, 10**6), block=st.integers(1, 9), keep=st.integers(1, 30))
def test_every_pair_is_counted_once_whatever_the_blocks(
    itself: bool, seed: int, block: int, keep: int
) -> None:
    ours, theirs = looks(9, seed), looks(7, seed + 1)
    same = np.array([[0, 3], [2, 5]])
    pairs = [
        (i, j)
        for i in range(9)
        for j in (range(i + 1, 9) if itself else range(7))
        if (i, j) not in {(0, 3), (2, 5)}
    ]
    others = ours if itself else theirs
    far = {pair: slow_distances(ours, pair[0], others, pair[1]) for pair in pairs}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "OURS", block)
        patch.setattr(distances, "THEIRS", block + 1)
        seen = last(ours, None if itself else theirs, keep, same)
    assert (seen.pairs, seen.same) == (len(pairs), 2)
    for method in LEVELS:
        counts = np.bincount([d[method] for d in far.values()], minlength=LEVELS[method])
        assert seen.counts[method].tolist() == counts.tolist()
        closest = seen.closest[method]
        ranked = sorted((d[method], *pair) for pair, d in far.items())[:keep]
        found = zip(closest.distance, closest.ours, closest.theirs, strict=True)
        assert [tuple(map(int, row)) for row in found] == ranked


def test_pictures_of_equal_pixels_are_not_unrelated() -> None:
    ours = looks(4, 0)
    numbers = np.array([7, 8, 7, 9])
    *_, seen = distances.count_unrelated(ours, None, NONE, (numbers, numbers), keep=10)
    assert (seen.pairs, seen.same) == (5, 1)
    assert (0, 2) not in set(
        zip(seen.closest[PDQ].ours.tolist(), seen.closest[PDQ].theirs.tolist(), strict=True)
    )


def test_without_a_model_embeddings_are_not_compared() -> None:
    assert set(compare(looks(2, 0, dimensions=0), looks(2, 1, dimensions=0))) == {PDQ, MIRRORED}
