import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup import perceptual
from dedup.perceptual import Words, as_words, find_near, keep_first
from tests.reference import neighbours

SLOW = settings(deadline=None, max_examples=60)


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


@SLOW
@given(radius=st.integers(0, 31), seed=st.integers(0, 2**32), most=st.integers(0, 40))
def test_every_pair_within_the_radius_is_found_and_no_other(
    radius: int, seed: int, most: int
) -> None:
    queries, targets = crowd(40, 3, most, seed), crowd(30, 3, most, seed)
    near = find_near(queries, targets, radius)
    found = list(zip(near.query, near.target, near.distance, strict=True))
    assert found == neighbours.find_near(as_bytes(queries), as_bytes(targets), radius)


@pytest.mark.parametrize("radius", [0, 1, 15, 16, 30, 31, 32, 47, 48, 63])
def test_a_hash_exactly_at_the_radius_is_found_wherever_its_bits_differ(radius: int) -> None:
    rng = np.random.default_rng(radius)
    centre = random_words(1, radius)[0]
    spread = [np.arange(radius) * 256 // max(radius, 1), *(rng.permutation(256) for _ in range(20))]
    inside = np.array([flip(centre, bits[:radius]) for bits in spread])
    outside = np.array([flip(centre, rng.permutation(256)[: radius + 1]) for _ in range(20)])
    near = find_near(np.concatenate([inside, outside]), centre[None], radius)
    assert near.query.tolist() == list(range(len(inside)))
    assert set(near.distance.tolist()) == {radius}


@pytest.mark.parametrize("radius", [-1, 64])
def test_a_radius_the_bands_do_not_cover_is_refused(radius: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 63"):
        find_near(random_words(2, 0), random_words(2, 1), radius)


def test_nothing_is_near_nothing() -> None:
    none = random_words(0, 0)
    assert len(find_near(none, random_words(3, 0), 31).query) == 0
    assert len(find_near(random_words(3, 0), none, 31).query) == 0
    assert len(keep_first(none, 31).leader) == 0


@SLOW
@given(
    radius=st.integers(0, 31),
    seed=st.integers(0, 2**32),
    most=st.integers(0, 40),
    small=st.sampled_from([1, 2, 7, 100]),
)
def test_what_stays_does_not_depend_on_where_halves_are_cut(
    radius: int, seed: int, most: int, small: int
) -> None:
    words = crowd(60, 4, most, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptual, "SMALL", small)
        leaders = keep_first(words, radius)
    expected = neighbours.keep_first(as_bytes(words), radius)
    assert leaders.leader.tolist() == expected
    assert leaders.distance.tolist() == [
        0 if j < 0 else neighbours.distance(words[i].tobytes(), words[j].tobytes())
        for i, j in enumerate(expected)
    ]


def test_a_chain_of_small_steps_breaks_where_the_radius_ends() -> None:
    start = random_words(1, 0)[0]
    chain = np.array([flip(start, np.arange(20 * step)) for step in range(6)])
    assert keep_first(chain, 31).leader.tolist() == [-1, 0, -1, 2, -1, 4]


def test_a_thousand_copies_of_one_hash_leave_one() -> None:
    words = np.repeat(random_words(1, 0), 5000, axis=0)
    leaders = keep_first(words, 31)
    assert leaders.leader.tolist() == [-1] + [0] * 4999


def test_a_slice_of_a_column_gives_its_own_hashes() -> None:
    hashes = as_bytes(random_words(6, 0))
    column = pa.chunked_array([pa.array(hashes, pa.binary(32)).slice(2, 3)])
    assert as_bytes(as_words(column)) == hashes[2:5]
    assert as_words(pa.chunked_array([], pa.binary(32))).shape == (0, 4)
