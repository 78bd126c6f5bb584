"""What the shipped list promises."""

from collections import Counter
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from queries.content_words import FUNCTION_WORDS, NAME_PARTICLES
from queries.query_list import BUILTIN, read_queries
from queries.text import normalize
from queries.unigrams import MARKUP

ORDER = ["number", "wordnet", "unigram", "bigram", "title"]


@cache
def builtin() -> pa.Table:
    return read_queries("builtin")


@cache
def sources() -> dict[str, str]:
    table = builtin()
    return dict(zip(table["query"].to_pylist(), table["source"].to_pylist(), strict=True))


def rows(source: str) -> pa.Table:
    return builtin().filter(pc.equal(builtin()["source"], source))


def test_it_holds_half_a_million_distinct_queries_with_consecutive_ids() -> None:
    assert builtin().num_rows == len(sources()) == 500_000
    assert builtin()["query_id"].to_pylist() == list(range(500_000))


def test_it_is_small_enough_to_ship() -> None:
    assert BUILTIN.stat().st_size < 8_000_000


def test_every_query_is_normalised_and_not_empty() -> None:
    assert [query for query in sources() if not query or normalize(query) != query] == []


def test_each_source_gives_what_the_documentation_says() -> None:
    assert Counter(sources().values()) == {
        "number": 100,
        "wordnet": 86_648,
        "unigram": 222_855,
        "bigram": 51_989,
        "title": 138_408,
    }


def test_the_sources_stand_in_the_order_of_priority() -> None:
    assert list(dict.fromkeys(sources().values())) == ORDER


def test_words_occur_at_least_a_hundred_times_and_the_most_frequent_come_first() -> None:
    counts = rows("unigram")["count"].to_pylist()
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 100


def test_pmi_falls_and_stays_above_the_floor() -> None:
    pmi = rows("bigram")["pmi"].to_pylist()
    assert pmi == sorted(pmi, reverse=True)
    assert pmi[-1] >= 2.0


def test_every_query_names_all_its_sources_in_order_of_priority() -> None:
    for source, named in zip(
        builtin()["source"].to_pylist(), builtin()["sources"].to_pylist(), strict=True
    ):
        assert named[0] == source
        assert named == [name for name in ORDER if name in named]


@pytest.mark.parametrize(
    ("figure", "givers"),
    [("count", {"unigram", "bigram"}), ("pmi", {"bigram"}), ("redirects", {"title"}), ("views", set())],
)  # fmt: skip
def test_a_figure_is_there_whenever_one_of_its_sources_gave_the_query(
    figure: str, givers: set[str]
) -> None:
    known = pc.is_valid(builtin()[figure]).to_pylist()
    assert known == [bool(givers & set(named)) for named in builtin()["sources"].to_pylist()]


def test_a_lemma_that_is_a_frequent_word_carries_its_count() -> None:
    (dog,) = builtin().filter(pc.equal(builtin()["query"], "dog")).to_pylist()
    assert dog["sources"] == ["wordnet", "unigram"]
    assert dog["count"] == 103_067


@pytest.mark.parametrize(
    ("query", "source"),
    [("7", "number"), ("99", "number"), ("golden retriever", "wordnet"), ("eiffel tower", "wordnet"), ("iphone", "unigram"),
     ("2010", "unigram"), ("josé", "unigram"), ("red dress", "bigram"), ("wedding cakes", "bigram"),
     ("fire truck", "bigram"), ("new york city", "title"), ("t - shirt", "title"), ("boeing 747", "title")],
)  # fmt: skip
def test_known_queries_are_there(query: str, source: str) -> None:
    assert sources()[query] == source


@pytest.mark.parametrize(
    "query",
    ["felicity fey", "ciojury cxoextra", "reverted edits", "repetitive navigational", "awaiting activation",
     "click here", "of the", "told a", "colspan", "passeriformesfamily",
     "new new", "list of birds", "reliance thereon"],
)  # fmt: skip
def test_junk_is_not(query: str) -> None:
    assert query not in sources()


def test_bigrams_are_two_different_content_words() -> None:
    for query in rows("bigram")["query"].to_pylist():
        first, second = query.split(" ")
        assert first != second
        for word in (first, second):
            assert len(word) > 1
            assert word.isalpha()
            assert word not in FUNCTION_WORDS | NAME_PARTICLES


def test_words_are_single_tokens_and_no_markup() -> None:
    words = rows("unigram")["query"].to_pylist()
    assert [word for word in words if " " in word or word in MARKUP] == []


def test_titles_have_two_words_at_least() -> None:
    titles = rows("title")["query"].to_pylist()
    assert [t for t in titles if sum(token.isalnum() for token in t.split(" ")) < 2] == []


def test_the_list_passes_the_check_that_other_files_get() -> None:
    assert read_queries(str(BUILTIN)).equals(builtin())
