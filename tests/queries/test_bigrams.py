import math
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from queries.bigrams import (
    Bigram,
    PairCounts,
    attested_pairs,
    bigram_queries,
    count_title_pairs,
    read_web_counts,
    title_bigrams,
    web_bigrams,
    wikipedia_bigrams,
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


def judged_pairs(**changes: object) -> dict[str, Bigram]:
    settings = {
        "words": frozenset(WIKIPEDIA),
        "attested": frozenset(WEB.pairs),
        "total": sum(WIKIPEDIA.values()),
        "minimum_pmi": 2.0,
        "maximum_excess": 4.0,
    }
    found = web_bigrams(WEB, WIKIPEDIA, **(settings | changes))  # type: ignore[arg-type]
    return {bigram.pair: bigram for bigram in found}


def web_pairs(**changes: object) -> dict[str, float | None]:
    judged = judged_pairs(**changes).values()
    return {bigram.pair: bigram.pmi for bigram in judged if not bigram.missed}


def test_pmi_is_the_log_of_how_much_likelier_than_chance_a_pair_is() -> None:
    counts = PairCounts(words={"x": 10, "y": 20}, pairs={"x y": 8}, total=1000)
    assert counts.pmi("x y") == round(math.log2((8 / 1000) / (10 / 1000 * 20 / 1000)), 3)


def test_a_pair_of_the_web_passes_with_high_pmi_known_words_and_a_title() -> None:
    assert web_pairs() == {"golden gate": 8.966, "golden gates": 8.644}


def test_a_pair_that_does_not_pass_says_which_filter_stopped_it() -> None:
    attested = frozenset(WEB.pairs.keys() - {"golden gates"})
    assert {pair: bigram.missed for pair, bigram in judged_pairs(attested=attested).items()} == {
        "golden gate": None,
        "golden gates": "no_title",
        "login gate": "web_excess",
        "white house": "web_pmi",
        "gate gate": "pair_words",
    }


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
    found = title_bigrams(counts, minimum_count=2, minimum_pmi=1.0)
    assert {b.pair: b.missed for b in found} == {
        "golden gate": None,
        "gate bridge": "title_pairs",
        "gate park": "title_pairs",
        "golden rule": "title_pairs",
    }
    (golden_gate, *_) = title_bigrams(counts, minimum_count=2, minimum_pmi=9.0)
    assert golden_gate.missed == "title_pmi"


def test_a_pair_of_both_corpora_keeps_the_figures_with_which_it_passes_first() -> None:
    web = [Bigram("a b", 500, 3.0, None), Bigram("e f", 9, None, "pair_words")]
    titles = [Bigram("a b", 2, 9.0, None), Bigram("c d", 2, 9.0, None), Bigram("e f", 4, 8.0, None)]
    table = bigram_queries(iter(web), iter(titles))
    assert table.select(["query", "count", "pmi"]).to_pylist() == [
        {"query": "c d", "count": 2, "pmi": 9.0},
        {"query": "e f", "count": 4, "pmi": 8.0},
        {"query": "a b", "count": 500, "pmi": 3.0},
    ]


def test_corpora_without_pairs_give_none() -> None:
    assert bigram_queries(iter([]), iter([])).num_rows == 0


DUMP = pa.table(
    {
        "bigram": ["hot dog", "ice cream", "of the", "red panda", "snow owl", "low tide"],
        "count": pa.array([900, 800, 90_000, 700, 99, 500], pa.int64()),
        "pmi": [8.0, 9.0, 1.0, 10.0, 12.0, 4.0],
    }
)
DUMP_WORDS = frozenset(
    ["hot", "dog", "ice", "cream", "of", "the", "red", "panda", "snow", "owl", "low", "tide"]
)


def dump_pairs(words: frozenset[str], maximum: int | None) -> dict[str, str | None]:
    table = wikipedia_bigrams(DUMP, words, minimum_count=100, minimum_pmi=4.907, maximum=maximum)
    return dict(zip(table["query"].to_pylist(), table["missed"].to_pylist(), strict=True))


def test_pairs_of_the_dump_need_words_count_and_pmi() -> None:
    found = dump_pairs(DUMP_WORDS - {"of"}, None)
    assert [pair for pair, missed in found.items() if not missed] == ["red panda", "ice cream", "hot dog"]  # fmt: skip
    assert found["of the"] == "pair_words"
    assert found["snow owl"] == "bigram_count"
    assert found["low tide"] == "bigram_pmi"


def test_of_too_many_pairs_of_the_dump_the_most_frequent_stay() -> None:
    found = dump_pairs(DUMP_WORDS, 2)
    assert [pair for pair, missed in found.items() if not missed] == ["ice cream", "hot dog"]
    assert found["red panda"] == "bigram_limit"


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
