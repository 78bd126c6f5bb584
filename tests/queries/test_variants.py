import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.text import normalize
from queries.variants import parts, variants


@pytest.mark.parametrize(
    ("query", "other"),
    [("dog", "dogs"), ("dogs", "dog"), ("box", "boxes"), ("boxes", "box"), ("berry", "berries"),
     ("berries", "berry"), ("t - shirt", "t shirt"), ("t shirt", "t - shirt"), ("t - shirt", "tshirt"),
     ("café", "cafe"), ("dog ' s", "dogs"), ("u . s .", "us"), ("ice cream", "icecream")],
)  # fmt: skip
def test_other_spellings_are_thought_of(query: str, other: str) -> None:
    assert other in variants(query)


def test_parts_are_the_shorter_runs_longest_first() -> None:
    assert parts("red panda cub") == ["red panda", "panda cub", "red", "panda", "cub"]
    assert parts("dog") == []


@given(st.text())
def test_variants_are_never_empty_nor_the_query_itself(text: str) -> None:
    query = normalize(text)
    if query:
        assert query not in variants(query)
        assert all(variants(query))
