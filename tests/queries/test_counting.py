from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries import counting
from queries.counting import (
    BREAK,
    KeyCounts,
    Numbered,
    Numberer,
    add_up,
    best_first,
    count_pairs,
    number_lines,
    pmi,
)
from queries.text import tokens
from tests.reference import wikipedia_counts as reference

TEXTS = st.lists(
    st.text(
        st.sampled_from("aAbB ß\n.'-é\u0301犬1²\u200b\u00ad\r\t İﬁ\U00020000\u2028"), max_size=60
    ),
    max_size=6,
)


def number(texts: list[str]) -> Numbered:
    numberer = Numberer()
    for text in texts:
        numberer.add(text)
    return numberer.finish()


def spelled(numbered: Numbered) -> list[list[str]]:
    """Return the tokens of each line."""
    words: list[str] = numbered.tokens.to_pylist()
    lines: list[list[str]] = [[]]
    for number in np.concatenate(numbered.pieces):
        if number == BREAK:
            lines.append([])
        else:
            lines[-1].append(words[number])
    return [line for line in lines if line]


@pytest.mark.parametrize("batch", [1, 20, 2_000_000])
@given(texts=TEXTS)
def test_the_numbers_spell_the_text(batch: int, texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "BATCH_CHARACTERS", batch)
        found = number(texts)
    assert spelled(found) == [line for line in reference.lines_of(texts) if line]
    expected = Counter(token for text in texts for token in tokens(text))
    assert dict(zip(found.tokens.to_pylist(), found.counts.tolist(), strict=True)) == expected
    assert found.counts.tolist() == sorted(expected.values(), reverse=True)


def test_a_line_end_separates_and_nothing_else_does_the_same() -> None:
    distinct, numbers = number_lines("golden gate\nbridge golden")
    assert distinct.to_pylist() == ["golden", "gate", "bridge"]
    assert numbers.tolist() == [0, 1, BREAK, 2, 0, BREAK]
    assert number_lines("")[1].tolist() == [BREAK]


@given(TEXTS, st.integers(1, 7))
def test_pairs_are_those_that_a_loop_finds(texts: list[str], piece: int) -> None:
    numbered = number(texts)
    words = numbered.tokens.to_pylist()
    is_word = np.array([token.isalnum() for token in words] + [False])
    numbers = np.concatenate(numbered.pieces)
    text = np.where(is_word[numbers], numbers, BREAK).astype(np.int32)
    found = count_pairs(text[at : at + piece] for at in range(0, len(text), piece))
    first, second = found.words()
    named = {
        f"{words[x]} {words[y]}": n
        for x, y, n in zip(first, second, found.counts.tolist(), strict=True)
    }
    assert named == reference.count_pairs(texts, [w for w in words if w.isalnum()])
    assert (np.diff(found.keys) > 0).all()


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(1, 9)), max_size=30))
def test_sums_are_those_of_a_counter(rows: list[tuple[int, int]]) -> None:
    keys = np.array([key for key, _ in rows], np.int64)
    found = add_up(KeyCounts(keys, np.array([count for _, count in rows], np.int64)))
    expected: Counter[int] = Counter()
    for key, count in rows:
        expected[key] += count
    assert list(zip(found.keys.tolist(), found.counts.tolist(), strict=True)) == (
        sorted(expected.items())
    )


def test_pmi_is_the_log_of_how_much_likelier_than_chance_a_pair_is() -> None:
    pairs = KeyCounts(np.array([0 << 32 | 1, 1 << 32 | 1]), np.array([8, 1]))
    assert pmi(pairs, np.array([10, 20]), 1000).tolist() == [5.322, 1.322]


def test_counts_of_all_of_wikipedia_do_not_overflow() -> None:
    pairs = KeyCounts(np.array([1]), np.array([3_000_000_000]))
    counts = np.array([4_000_000_000, 3_000_000_000])
    assert pmi(pairs, counts, 12_000_000_000).tolist() == [1.585]


def test_the_highest_pmi_comes_first_then_the_count_then_the_text() -> None:
    words = pa.array(["b", "a", "ab"])
    rows = [(0, 1, 5), (1, 0, 5), (1, 2, 5), (2, 0, 7), (0, 0, 1)]
    pairs = KeyCounts(
        np.array([x << 32 | y for x, y, _ in rows]), np.array([n for _, _, n in rows])
    )
    order = best_first(pairs, np.array([1.0, 1.0, 1.0, 1.0, 2.0]), words)
    texts = [
        f"{words[int(x)]} {words[int(y)]}" for x, y in zip(*pairs.take(order).words(), strict=True)
    ]
    assert texts == ["b b", "ab b", "a ab", "a b", "b a"]
