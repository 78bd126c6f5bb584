from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup import bands, perceptual
from dedup.bands import Words, meet_itself, plan_bands
from dedup.perceptual import as_words, find_first, find_near, keep_first
from tests.reference import neighbours

# By bands, looking at all 65,536 values takes 50 ms however few the hashes.
FEW = settings(deadline=None, max_examples=15)


def random_words(count: int, seed: int) -> Words:
    return np.random.default_rng(seed).integers(0, 2**64, (count, 4), np.uint64)


def flip(words: Words, bits: npt.NDArray[np.int64]) -> Words:
    """Return one hash with the given bits flipped."""
    flipped = words.copy()
    for bit in bits.tolist():
        flipped[bit // 64] ^= np.uint64(1 << (bit % 64))
    return flipped


def crowd(count: int, centres: int, most: int, seed: int) -> Words:
    """Return hashes that each lie up to `most` bits from one of a few centres."""
    rng = np.random.default_rng(seed)
    middle = random_words(centres, seed)
    rows = [
        flip(middle[rng.integers(centres)], rng.permutation(256)[: rng.integers(most + 1)])
        for _ in range(count)
    ]
    return np.array(rows, np.uint64).reshape(-1, 4)


def as_bytes(words: Words) -> list[bytes]:
    return [row.tobytes() for row in words]


@contextmanager
def always_by_bands() -> Iterator[None]:
    """Sort by bands even where comparing each with each takes less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "UNPLANNED", 0)
        patch.setattr(bands, "COMPARE_NS", 1e9)
        yield


def each_with_each() -> AbstractContextManager[None]:
    return nullcontext()


WAYS = pytest.mark.parametrize("way", [always_by_bands, each_with_each])
Way = Callable[[], AbstractContextManager[None]]


@WAYS
@FEW
@given(radius=st.integers(0, 90), seed=st.integers(0, 2**32), most=st.integers(0, 90))
def test_every_pair_within_the_radius_is_found_and_no_other(
    way: Way, radius: int, seed: int, most: int
) -> None:
    queries, targets = crowd(40, 3, most, seed), crowd(30, 3, most, seed)
    with way():
        near = find_near(queries, targets, radius)
        first = find_first(queries, targets, radius)
    found = list(zip(near.query, near.target, near.distance, strict=True))
    expected = neighbours.find_near(as_bytes(queries), as_bytes(targets), radius)
    assert found == expected
    best = {query: (target, bits) for query, target, bits in reversed(expected)}
    assert list(zip(first.leader, first.distance, strict=True)) == [
        best.get(i, (-1, 0)) for i in range(40)
    ]


@FEW
@given(
    shared=st.integers(0, 200),
    radius=st.integers(0, 63),
    seed=st.integers(0, 2**32),
    room=st.sampled_from([1, 8, 1 << 16]),
)
def test_bits_that_most_hashes_share_and_full_buffers_hide_no_pair(
    shared: int, radius: int, seed: int, room: int
) -> None:
    words = crowd(120, 40, 20, seed)
    # As of flat pictures: the first bits of most are all 0.
    as_bits = np.unpackbits(words.view(np.uint8), axis=1)
    as_bits[20:, :shared] = 0
    words = np.packbits(as_bits, axis=1).view(np.uint64)
    with always_by_bands(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "FOUND", room)
        near = find_near(words[:70], words[70:], radius)
        met = [
            m
            for some in meet_itself(words, radius)
            for m in zip(some.query, some.target, strict=True)
        ]
    former, latter = as_bytes(words[:70]), as_bytes(words[70:])
    assert list(zip(near.query, near.target, near.distance, strict=True)) == neighbours.find_near(
        former, latter, radius
    )
    everything = neighbours.find_near(as_bytes(words), as_bytes(words), radius)
    assert sorted(met) == sorted((i, j) for i, j, _ in everything if j < i)


@WAYS
@pytest.mark.parametrize("radius", [0, 1, 15, 16, 30, 31, 32, 47, 48, 63, 80, 255])
def test_a_hash_exactly_at_the_radius_is_found_wherever_its_bits_differ(
    way: Way, radius: int
) -> None:
    rng = np.random.default_rng(radius)
    centre = random_words(1, radius)[0]
    spread = [np.arange(radius) * 256 // max(radius, 1), *(rng.permutation(256) for _ in range(20))]
    inside = np.array([flip(centre, bits[:radius]) for bits in spread])
    outside = np.array([flip(centre, rng.permutation(256)[: radius + 1]) for _ in range(20)])
    with way():
        near = find_near(np.concatenate([inside, outside]), centre[None], radius)
    assert near.query.tolist() == list(range(len(inside)))
    assert set(near.distance.tolist()) == {radius}


def test_a_band_that_tells_nothing_is_left_alone() -> None:
    words = random_words(1_000_000, 1)
    assert plan_bands(words, words, 31).tolist() == [1] * 16
    words[:, 0] &= np.uint64(0xFFFF_FFFF_FFFF_0000)
    plan = plan_bands(words, words, 31)
    assert plan.tolist().count(-1) == 1
    assert plan[0] == -1
    assert (plan + 1).sum() == 32


def test_where_no_band_tells_anything_each_is_compared_with_each() -> None:
    words = np.zeros((20_000, 4), np.uint64)
    assert plan_bands(words, words, 31).tolist() == [-1] * 16


def test_nothing_is_near_nothing() -> None:
    none = random_words(0, 0)
    assert len(find_near(none, random_words(3, 0), 31).query) == 0
    assert len(find_near(random_words(3, 0), none, 31).query) == 0
    assert len(keep_first(none, 31).leader) == 0


@WAYS
@FEW
@given(
    radius=st.integers(0, 31),
    seed=st.integers(0, 2**32),
    most=st.integers(0, 40),
    small=st.sampled_from([7, 20, 100]),
    many=st.sampled_from([0, 1, 4, 16]),
)
def test_what_stays_does_not_depend_on_how_the_work_is_cut(
    way: Way, radius: int, seed: int, most: int, small: int, many: int
) -> None:
    words = crowd(60, 4, most, seed)
    with way(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptual, "SMALL", small)
        patch.setattr(perceptual, "MANY", many)
        leaders = keep_first(words, radius)
    expected = neighbours.keep_first(as_bytes(words), radius)
    assert leaders.leader.tolist() == expected
    assert leaders.distance.tolist() == [
        0 if j < 0 else neighbours.distance(words[i].tobytes(), words[j].tobytes())
        for i, j in enumerate(expected)
    ]


@pytest.mark.parametrize("small", [1, 100])
def test_a_chain_of_small_steps_breaks_where_the_radius_ends(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Connected components would make one group of all, 240 bits from end to end.
    monkeypatch.setattr(perceptual, "SMALL", small)
    start = random_words(1, 0)[0]
    chain = np.array([flip(start, np.arange(20 * step)) for step in range(13)])
    assert keep_first(chain, 31).leader.tolist() == [-1, 0, -1, 2, -1, 4, -1, 6, -1, 8, -1, 10, -1]


def test_thousands_of_copies_of_one_hash_leave_one() -> None:
    words = np.repeat(random_words(1, 0), 40_000, axis=0)
    leaders = keep_first(words, 31)
    assert leaders.leader.tolist() == [-1] + [0] * 39_999


def test_a_slice_of_a_column_gives_its_own_hashes() -> None:
    hashes = as_bytes(random_words(6, 0))
    column = pa.chunked_array([pa.array(hashes, pa.binary(32)).slice(2, 3)])
    assert as_bytes(as_words(column)) == hashes[2:5]
    assert as_words(pa.chunked_array([], pa.binary(32))).shape == (0, 4)
