import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.pairs import Reference, Skipped, hash_pair, make_reference, pair_ids, readable
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
