import pytest

from queries.content_words import content_words

COUNTS = {
    "dog": 5000,
    "aardvark": 1000,
    "rare": 999,
    "the": 9000,
    "von": 9000,
    "x": 9000,
    "b12": 9000,
}


def test_frequent_words_of_letters_are_content_words() -> None:
    assert content_words(COUNTS, minimum=1000) == {"dog", "aardvark"}


@pytest.mark.parametrize("word", ["the", "on", "von", "x", "b12"])
def test_function_words_particles_letters_and_codes_are_not(word: str) -> None:
    assert word not in content_words(COUNTS | {"on": 9000}, minimum=1)
