import math
import tracemalloc
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.embedding import vector_index, vectors
from dedup.embedding.vectors import Vectors, find_similar
from tests.reference import similarity

SLOW = settings(deadline=None, max_examples=60)


def unit(rows: npt.NDArray[np.float64]) -> Vectors:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(length, 1e-9)).astype(np.float16)


def crowd(count: int, dimensions: int, spread: float, seed: int) -> Vectors:
    """Return vectors around a few centres, so that every similarity occurs."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1 + count // 10, dimensions))
    noise = spread * rng.standard_normal((count, dimensions))
    return unit(centres[rng.integers(len(centres), size=count)] + noise)


def rows(
    queries: npt.NDArray[Any], targets: npt.NDArray[Any], least: float, *, exact: bool | None = None
) -> list[tuple[int, int, float]]:
    """Return what is found, by query, in the order in which its targets came."""
    found: list[tuple[int, int, float]] = []
    for some in find_similar(queries, targets, least, exact=exact):
        columns = (some.query.tolist(), some.target.tolist(), some.similarity.tolist())
        found += zip(*columns, strict=True)
    return sorted(found, key=lambda pair: pair[0])


@pytest.fixture(params=["whole", "shortened"])
def is_shortened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test with whole vectors, and with vectors shortened in small blocks."""
    if request.param == "shortened":
        monkeypatch.setattr(vectors, "_FEW", 0)
        monkeypatch.setattr(vectors, "_RANKS", (1, 2, 4))
        monkeypatch.setattr(vectors, "_PER_PAIR", 0.0)
        monkeypatch.setattr(vectors, "QUERY_BLOCK", 7)
        monkeypatch.setattr(vectors, "TARGET_BLOCK", 11)
    return bool(request.param == "shortened")


def in_plain_words(
    queries: Vectors, targets: Vectors, least: float
) -> list[tuple[int, int, float]]:
    return similarity.find_similar(
        queries.astype(float).tolist(), targets.astype(float).tolist(), least
    )


def test_every_similar_pair_is_found_with_its_exact_similarity(is_shortened: bool) -> None:
    @SLOW
    @given(
        least=st.floats(-0.5, 1),
        dimensions=st.integers(1, 33),
        spread=st.floats(0, 2),
        seed=st.integers(0, 2**32),
    )
    def check(least: float, dimensions: int, spread: float, seed: int) -> None:
        both = crowd(60, dimensions, spread, seed)
        queries, targets = both[:25], both[25:]
        assert rows(queries, targets, least) == in_plain_words(queries, targets, least)

    check()
    short = vectors.main_directions(crowd(9, 33, 1, 0), crowd(9, 33, 1, 1), 0.5)
    assert (short is not None) == is_shortened


def test_a_pair_exactly_at_the_bound_counts_and_one_just_below_does_not(
    is_shortened: bool,
) -> None:
    some = crowd(30, 24, 0.7, seed=9)
    _, _, exact = in_plain_words(some[:1], some[1:2], -2)[0]
    assert rows(some[:1], some[1:2], exact) == [(0, 0, exact)]
    assert rows(some[:1], some[1:2], math.nextafter(exact, 2)) == []


def test_sums_of_1280_products_are_exact() -> None:
    some = crowd(40, 1280, 1, seed=2)
    assert rows(some, some, 0.2) == in_plain_words(some, some, 0.2)


def test_longer_numbers_are_rounded_to_half_floats_first() -> None:
    some = np.random.default_rng(0).standard_normal((20, 16))
    some /= np.linalg.norm(some, axis=1, keepdims=True)
    halves = some.astype(np.float16)
    assert rows(some, some, 0.3) == in_plain_words(halves, halves, 0.3)


@pytest.mark.parametrize(("left", "right"), [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("exact", [True, False])
def test_nothing_is_similar_to_nothing(left: int, right: int, exact: bool) -> None:
    some = crowd(5, 8, 1, seed=1)
    assert rows(some[:left], some[:right], -1, exact=exact) == []
    # How long vectors are that a set has none of is not known.
    assert rows(some, np.empty((0, 1), np.float16), -1, exact=exact) == []


def test_a_picture_without_features_is_like_no_other() -> None:
    some = np.zeros((3, 8), np.float16)
    assert rows(some, some, 0.01) == []


def test_vectors_of_two_models_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"8,.*9,"):
        find_similar(crowd(3, 8, 1, 0), crowd(3, 9, 1, 0), 0.5)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e5])
def test_vectors_that_are_no_numbers_are_refused(
    number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "TARGET_BLOCK", 2)
    fine = crowd(5, 8, 1, seed=1)
    odd = fine.astype(np.float64)
    odd[4, 3] = number
    for queries, targets in ((fine, odd), (odd, fine)):
        with pytest.raises(ValueError, match="none or infinite"):
            find_similar(queries, targets, 0.5)


def test_all_alike_are_all_found() -> None:
    some = np.repeat(crowd(1, 64, 1, 0), 300, axis=0)
    assert len(rows(some, some, 0.99)) == 300 * 300


def test_memory_does_not_grow_with_the_pairs_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "QUERY_BLOCK", 64)
    monkeypatch.setattr(vectors, "TARGET_BLOCK", 64)
    some = np.repeat(crowd(1, 8, 1, 0), 640, axis=0)
    tracemalloc.start()
    try:
        pairs = sum(len(found.query) for found in find_similar(some, some, 0.9))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pairs == 640 * 640
    # All pairs at once would be three numbers of 8 bytes each, 9.8 MB.
    assert peak < 2_000_000


def test_faiss_has_its_own_number_of_threads_between_pieces() -> None:
    before = faiss.omp_get_max_threads()
    some = crowd(10, 8, 1, 0)
    for exact in (True, False):
        for _ in find_similar(some, some, 0.5, exact=exact):
            assert faiss.omp_get_max_threads() == before
    assert faiss.omp_get_max_threads() == before


def test_an_index_finds_nearly_all_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_FEW", 0)
    some = crowd(6000, 128, 0.45, seed=3)
    exact = rows(some, some, 0.7, exact=True)
    by_index = rows(some, some, 0.7, exact=False)
    assert len(exact) > 10_000
    assert set(by_index) <= set(exact)
    assert len(by_index) >= vector_index.RECALL * len(exact)
    assert by_index == rows(some, some, 0.7, exact=False)


def test_an_index_looks_into_more_lists_where_pairs_would_be_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = crowd(3000, 32, 3, seed=5)
    asked: list[int] = []
    original = vector_index._lists_to_probe

    def watched(*arguments: object) -> int:
        asked.append(original(*arguments))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(vector_index, "_lists_to_probe", watched)
    exact = len(rows(some, some, 0.5, exact=True))
    found = len(rows(some, some, 0.5, exact=False))
    assert asked[0] > 1
    assert found >= 0.98 * exact


def test_vectors_that_find_themselves_do_not_hide_pairs_that_an_index_misses() -> None:
    # Shorter than 1, so that what a vector is to itself is no more than others are to one another.
    some = (0.98 * crowd(3000, 32, 3, seed=5)).astype(np.float16)
    least = 0.66
    pairs = {(i, j) for i, j, _ in rows(some, some, least, exact=True) if i != j}
    found = {(i, j) for i, j, _ in rows(some, some, least, exact=False) if i != j}
    assert 10 < len(pairs) < 100
    assert found <= pairs
    assert len(found) >= 0.9 * len(pairs)


def test_many_targets_are_searched_by_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "INDEX_FROM", 100)
    called = []
    original = vector_index.probe
    monkeypatch.setattr(
        vector_index, "probe", lambda *given: called.append(len(given[1])) or original(*given)
    )
    some = crowd(100, 8, 0.1, seed=0)
    rows(some, some[:99], 0.9)
    rows(some, some, 0.9, exact=True)
    assert called == []
    rows(some[:5], some, 0.9)
    assert called == [100]
