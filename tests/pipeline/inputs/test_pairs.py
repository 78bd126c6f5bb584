import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.pairs import (
    Reference,
    Skipped,
    hash_pair,
    make_reference,
    pair_id_halves,
    pair_ids,
    readable,
)
from pipeline.pages.urls import Address


def make(caption: str | None) -> Reference | Skipped:
    return make_reference(
        Address("http://x/a"),
        caption,
        seen="a",
        caption_source="alt",
        page_url=None,
        offset=7,
    )


def test_the_pair_id_is_the_hash_that_the_design_names() -> None:
    expected = xxhash.xxh3_128("http://x/ä\0Käse".encode()).hexdigest()
    assert pair_ids(["http://x/ä"], ["Käse"]).to_pylist() == [expected]
    assert len(expected) == 32


def test_url_and_caption_do_not_run_into_each_other() -> None:
    assert hash_pair("ab", "c") != hash_pair("a", "bc")


def test_pair_ids_are_read_from_a_slice() -> None:
    ids = pa.chunked_array([pa.array([f"{n:032x}" for n in (1, 2**64 + 5, 3)])[1:]])
    high, low = pair_id_halves(ids)
    assert (high.tolist(), low.tolist()) == ([1, 0], [5, 3])


@given(st.lists(st.lists(st.integers(0, 2**128 - 1), max_size=3), max_size=3))
def test_the_halves_of_ids_are_their_upper_and_lower_bits(chunks: list[list[int]]) -> None:
    numbers = [number for chunk in chunks for number in chunk]
    ids = pa.chunked_array([[f"{n:032x}" for n in chunk] for chunk in chunks], pa.string())
    high, low = pair_id_halves(ids)
    assert (high.tolist(), low.tolist()) == (
        [n >> 64 for n in numbers],
        [n % 2**64 for n in numbers],
    )


@pytest.mark.parametrize("caption", [None, "", " \n\t\u00a0"])
def test_an_image_without_text_is_dropped(caption: str | None) -> None:
    assert make(caption) == Skipped("no_caption", 7, "http://x/a")


def test_a_caption_is_kept_but_for_outer_white_space() -> None:
    found = make(" A\n  dog&amp;\tcat \u3000")
    assert isinstance(found, Reference)
    assert found.caption == "A\n  dog&amp;\tcat"


def test_a_caption_above_the_limit_is_dropped_with_its_id() -> None:
    assert isinstance(make("é" * 4096), Reference)
    found = make("é" * 4097)
    assert isinstance(found, Skipped)
    assert found.reason == "caption_too_large"
    assert found.pair_id == hash_pair("http://x/a", "é" * 4097)


def test_zero_bytes_and_lone_surrogates_are_replaced() -> None:
    assert readable("a\0b\ud800c\U0001f600\udc00") == "a\ufffdb\ufffdc\U0001f600\ufffd"


@given(st.text(st.characters()))
def test_readable_text_can_be_stored_and_stays_as_it_is(text: str) -> None:
    once = readable(text)
    assert once.encode().decode() == once
    assert readable(once) == once
    assert len(once) <= len(text)
