import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from queries.bigrams import (
    PairCounts,
    attested_pairs,
    bigram_queries,
    count_title_pairs,
    read_web_counts,
    title_bigrams,
    web_bigrams,
)

WIKIPEDIA = {"golden": 1000, "gate": 1000, "gates": 1000, "login": 1, "house": 1000, "white": 1000}
WEB = PairCounts(
    words={
        "golden": 1000,
        "gate": 1000,
        "gates": 1000,
        "login": 900_000,
        "house": 1000,
        "white": 1000,
    },
    pairs={
        "golden gate": 500,
        "golden gates": 400,
        "login gate": 500,
        "white house": 1,
        "gate gate": 900,
    },
    total=1_000_000,
)


def web_pairs(**changes: object) -> dict[str, float]:
    settings = {
        "words": frozenset(WIKIPEDIA),
        "attested": frozenset(WEB.pairs),
        "minimum_pmi": 2.0,
        "maximum_excess": 4.0,
    }
    found = web_bigrams(WEB, WIKIPEDIA, **(settings | changes))  # type: ignore[arg-type]
    return {pair: pmi for pair, _, pmi in found}


def test_pmi_is_the_log_of_how_much_likelier_than_chance_a_pair_is() -> None:
    counts = PairCounts(words={"x": 10, "y": 20}, pairs={"x y": 8}, total=1000)
    assert counts.pmi("x y") == round(math.log2((8 / 1000) / (10 / 1000 * 20 / 1000)), 3)


def test_a_pair_of_the_web_passes_with_high_pmi_known_words_and_a_title() -> None:
    assert web_pairs() == {"golden gate": 8.966, "golden gates": 8.644}


def test_a_word_typical_of_the_web_bars_its_pairs() -> None:
    assert "login gate" not in web_pairs(minimum_pmi=-99.0)
    assert "login gate" in web_pairs(minimum_pmi=-99.0, maximum_excess=99.0)


def test_a_pair_in_no_title_is_left_out() -> None:
    assert web_pairs(attested=frozenset({"golden gate"})).keys() == {"golden gate"}


def test_a_word_beside_itself_is_no_bigram() -> None:
    assert "gate gate" not in web_pairs()
    assert count_title_pairs(["gate gate"], {"gate"}).pairs == {}


def test_a_word_that_may_not_take_part_bars_its_pairs() -> None:
    assert web_pairs(words=frozenset({"golden", "gates"})).keys() == {"golden gates"}


def test_a_title_attests_its_pairs_in_either_number() -> None:
    words = {"golden", "gate", "gates", "white", "house"}
    known = {"golden gate", "golden gates", "white houses", "gate bridge"}
    assert attested_pairs(["golden gate bridge"], words, known) == {"golden gate", "golden gates"}
    assert attested_pairs(["the white house"], words, known) == {"white houses"}


def test_pairs_in_titles_need_both_floors() -> None:
    titles = ["golden gate bridge", "golden gate park", "golden rule", "house of cards"]
    counts = count_title_pairs(titles, {"golden", "gate", "bridge", "park", "rule"})
    assert counts.pairs["golden gate"] == 2
    assert counts.total == 11
    found = [pair for pair, *_ in title_bigrams(counts, minimum_count=2, minimum_pmi=1.0)]
    assert found == ["golden gate"]
    assert list(title_bigrams(counts, minimum_count=2, minimum_pmi=9.0)) == []


def test_a_pair_of_both_corpora_keeps_the_first_figures() -> None:
    table = bigram_queries([("a b", 500, 3.0)], [("a b", 2, 9.0), ("c d", 2, 9.0)])
    assert table.select(["query", "count", "score"]).to_pylist() == [
        {"query": "c d", "count": 2, "score": 9.0},
        {"query": "a b", "count": 500, "score": 3.0},
    ]


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), max_size=8))
def test_pairs_of_titles_are_counted_as_a_plain_loop_counts_them(titles: list[list[str]]) -> None:
    counts = count_title_pairs([" ".join(title) for title in titles], {"a", "b"})
    for x, y in (("a", "b"), ("b", "a")):
        expected = sum(title[i : i + 2] == [x, y] for title in titles for i in range(len(title)))
        assert counts.pairs.get(f"{x} {y}", 0) == expected
    assert counts.words.get("a", 0) == sum(title.count("a") for title in titles)


def test_counts_are_read_from_tabbed_lines(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("the\t23135851162\ngate\t1000\n")
    (tmp_path / "pairs").write_text("<s> where\t15419048\nthe gate\t7\n")
    counts = read_web_counts(str(tmp_path / "words"), str(tmp_path / "pairs"), total=10)
    assert counts.words["the"] == 23135851162
    assert counts.pairs == {"<s> where": 15419048, "the gate": 7}


@pytest.mark.parametrize(
    "line",
    [
        "golden gate 7",
        "golden gate\t-7",
        "\t7",
        "golden gate\t7\t8",
        "a b\t0",
        "a b\t" + "9" * 5000,
        "",
    ],
)
def test_a_line_that_is_no_count_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "words").write_text("the\t9\n")
    (tmp_path / "pairs").write_text(f"the gate\t7\n{line}\n")
    with pytest.raises(InputError, match="pairs line 2 is"):
        read_web_counts(str(tmp_path / "words"), str(tmp_path / "pairs"))
