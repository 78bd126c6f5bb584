import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.text import (
    caption_tokens,
    fold,
    metaclip_text,
    metaclip_tokens,
    normalize,
    query_tokens,
    tokens,
)

ANY_TEXT = st.text(st.characters())
# Few characters, each known to interact with its neighbours, meet far more often than in ANY_TEXT.
AWKWARD_TEXT = st.text(
    "aAſKÅåΑαςΣ\u0345\u0301\u0316\u0307\u0338\u0327İıßẞᾳᾼᾈﬃ½™"
    "\u00ad\u200b\u200c\u200d\ufe0f\ufeff\u034f\u115f\u1160\uffa0\u3164 ̈´¨\u1100\u1161\u11a8가\uff76\uff9e"
    "\u0915\u093c\u0958\u0e01\u0e48\u0e33❤👨🏽#=_-'. \t\n\x00\x1f\x85\u2028\ud800\udfff"
)


@given(ANY_TEXT | AWKWARD_TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert tokens(once) == tokens(text)


def test_every_single_character_is_normalised_for_good() -> None:
    for code in range(sys.maxunicode + 1):
        once = normalize(chr(code))
        assert normalize(once) == once, hex(code)


@given(ANY_TEXT | AWKWARD_TEXT)
def test_tokens_are_folded_and_hold_no_space(text: str) -> None:
    for token in tokens(text):
        assert token
        assert fold(token) == token
        assert unicodedata.is_normalized("NFKC", token)
        assert not any(character.isspace() for character in token)


@given(ANY_TEXT | AWKWARD_TEXT)
def test_a_token_is_a_run_of_word_characters_or_one_other_character(text: str) -> None:
    for token in tokens(text):
        in_word = [unicodedata.category(character)[0] in "LMN" for character in token]
        assert all(in_word) or len(token) == 1


@given(AWKWARD_TEXT, AWKWARD_TEXT)
def test_a_space_keeps_two_texts_apart(left: str, right: str) -> None:
    assert tokens(f"{left} {right}") == tokens(left) + tokens(right)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\r\n\x00\x7f\u00a0\u3000", []),
        ("Dog's bowl", ["dog", "'", "s", "bowl"]),
        ('"hot-dog"', ['"', "hot", "-", "dog", '"']),
        ("snake_case", ["snake", "_", "case"]),
        ("wait...", ["wait", ".", ".", "."]),
        ("route 66b", ["route", "66b"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("ＦＵＬＬ　width", ["full", "width"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("ΟΔΟΣ οδος", ["οδοσ", "οδοσ"]),
        ("co\u00adoperate", ["cooperate"]),
        ("zero\u200bwidth", ["zero", "width"]),
        ("❤\ufe0f❤", ["❤", "❤"]),
        ("👨\u200d👩", ["👨", "👩"]),
        ("m² ½ Ⅳ x™", ["m2", "1", "⁄", "2", "iv", "xtm"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("东京 tower", ["东京", "tower"]),
        ("\ud800lone", ["lone"]),
    ],
)
def test_tokens_by_rules_words(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "  "),
        ("Dog, cat", " Dog ,  cat "),
        ("a;b:c?d!e.f`g", " a ; b : c ? d ! e . f ` g "),
        ("tab\tcr\rlf\n", " tab cr lf  "),
        ("Dog's \u00a0(x)", " Dog's \u00a0(x) "),
    ],
)
def test_metaclip_text_sets_off_seven_characters(text: str, expected: str) -> None:
    assert metaclip_text(text) == expected


@given(st.text("ab,. \t\u00e9"), st.text("ab,. \té", max_size=4))
def test_metaclip_pieces_decide_as_the_published_rule_does(caption: str, entry: str) -> None:
    pieces, wanted = metaclip_tokens(caption), query_tokens(entry, "metaclip")
    runs = [pieces[i : i + len(wanted)] for i in range(len(pieces))]
    assert (wanted in runs) == (f" {entry} " in metaclip_text(caption))


def test_rules_choose_the_tokens() -> None:
    assert caption_tokens("A dog.", "words") == ["a", "dog", "."]
    assert caption_tokens("A dog.", "metaclip") == ["A", "dog", ".", ""]
    assert query_tokens("A  dog.", "words") == ["a", "dog", "."]
    assert query_tokens("A  dog.", "metaclip") == ["A", "", "dog."]
