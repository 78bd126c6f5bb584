import pickle
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, InputError
from pipeline.matching import folding, trie
from pipeline.matching.trie import QueryTrie, compile_queries, load_trie, save_trie
from queries.text import Rules, normalize, space_out, tokens
from tests.reference.matching import metaclip_match, words_match

# Shared prefixes, punctuation, tokens of 8, 16 and 17 bytes and more, and other alphabets.
PIECES = (
    "a", "b", "A", "ab", "dog", "DOG", "hot", "'", "-", ",", ".", "`", "#", "é", "e\u0301", "\u0301", "ß", "İ",
    "犬", "東京", "собака", "हिन्दी", "가", "\u1100\u1161", "\u11a8", "❤\ufe0f", "🐕", "™", "½", "\u0345", "\u0316",
    "eightbyt", "eightbyte", "sixteen-bytes", "sixteenbyteslong", "seventeenbyteslon", "seventeenbyteslom",
    "averyveryverylongwordindeed" * 2, "\u00ad", "\u200b", "\x00", "\x7f", "\U0002000b", "\U000e0041",
)  # fmt: skip
GLUE = ("", " ", "  ", "\t", "\n", "\u3000", "\u00a0")
ANY = st.characters(exclude_categories=["Cs"])


def texts_of(*pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    piece = st.one_of(st.sampled_from(PIECES), *pieces)
    return st.lists(st.tuples(piece, st.sampled_from(GLUE)), max_size=12).map(
        lambda pairs: "".join(p + g for p, g in pairs)
    )


CAPTIONS = st.lists(texts_of(ANY), max_size=6)
SHORT_TEXTS = st.lists(texts_of(), min_size=1, max_size=12)


def queries_table(queries: list[str]) -> pa.Table:
    return pa.table(
        {
            "query_id": pa.array(range(len(queries)), pa.int32()),
            "query": pa.array(queries, pa.string()),
        }
    )


def compiled(queries: list[str], rules: str = "words") -> QueryTrie:
    return compile_queries(queries_table(queries), rules)


@settings(max_examples=300, deadline=None)
@given(CAPTIONS, SHORT_TEXTS)
def test_words_are_found_as_the_reference_finds_them(captions: list[str], raw: list[str]) -> None:
    queries = list(dict.fromkeys(filter(None, map(normalize, [*raw, *captions[:1]]))))
    found = compiled(queries).match(pa.array(captions, pa.string())).to_pylist()
    assert found == [words_match(caption, queries) for caption in captions]


@settings(max_examples=300, deadline=None)
@given(CAPTIONS, SHORT_TEXTS)
@example(["a, b", " a", "a  b", ""], ["a ,", ", b", "", " ", "a", "a,", "a b"])
def test_metaclip_entries_are_found_as_the_reference_finds_them(
    captions: list[str], raw: list[str]
) -> None:
    queries = list(dict.fromkeys([*raw, *captions[:1]]))
    found = compiled(queries, "metaclip").match(pa.array(captions, pa.string())).to_pylist()
    assert found == [metaclip_match(caption, queries) for caption in captions]


@given(
    st.lists(st.none() | st.text(ANY, max_size=6), max_size=9), st.integers(0, 9), st.integers(0, 9)
)
def test_slices_nulls_and_both_string_types_give_the_same(
    captions: list[str | None], start: int, length: int
) -> None:
    matcher = compiled(["a", "b"])
    expected = [words_match(c or "", ["a", "b"]) for c in captions[start : start + length]]
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(captions, kind)
        assert matcher.match(array.slice(start, length)).to_pylist() == expected
        chunked = pa.chunked_array([array.slice(0, start), array.slice(start)], kind)
        assert matcher.match(chunked.slice(start, length)).to_pylist() == expected


@pytest.mark.parametrize("rules", ["words", "metaclip"])
def test_a_saved_trie_is_mapped_and_finds_the_same(rules: Rules, tmp_path: Path) -> None:
    queries = ["dog", "hot dog", "averyveryverylongword of words", "été"]
    trie = compiled(queries, rules)
    save_trie(str(tmp_path / "trie"), trie)
    loaded = load_trie(str(tmp_path / "trie"), rules)
    for before, after in zip(trie.tables, loaded.tables, strict=True):
        assert before.dtype == after.dtype
        assert np.array_equal(before, after)
        assert not after.flags.writeable
    captions = pa.array(["Hot-dog été", "an averyveryverylongword of words", "hot dog"])
    assert loaded.match(captions).equals(trie.match(captions))
    mapped = Path("/proc/self/maps").read_text()
    assert str(tmp_path / "trie") in mapped


def test_captions_of_all_lengths_around_the_chunk_are_cut_alike() -> None:
    trie = compiled(["dog", "hot dog", "x" * 30])
    texts = [
        "",
        "dog",
        "hot dog " * 2000,
        "y" * 20_000 + " dog",
        "x" * 30,
        "dog " * 2047,
        " " * 8192,
    ]
    texts += ["hot dog"[: n % 8] for n in range(2000)] + [f"{'z' * n} hot dog" for n in range(40)]
    found = trie.match(pa.array(texts)).to_pylist()
    assert found == [words_match(text, ["dog", "hot dog", "x" * 30]) for text in texts]


def test_an_id_beyond_the_tables_is_refused() -> None:
    table = pa.table({"query_id": pa.array([2**31 - 1], pa.int32()), "query": ["dog"]})
    with pytest.raises(InputError, match="2147483647, expected 0 to 2147483646"):
        compile_queries(table, "words")
    wide = pa.table({"query_id": pa.array([2**32 + 5], pa.int64()), "query": ["dog"]})
    with pytest.raises(InputError, match="4294967301, expected 0 to 2147483646"):
        compile_queries(wide, "words")


def test_the_bytes_under_a_null_are_not_matched() -> None:
    hidden = pa.StringArray.from_buffers(
        2,
        pa.array([0, 3, 6], pa.int32()).buffers()[1],
        pa.py_buffer(b"dogdog"),
        pa.py_buffer(b"\x02"),
        1,
    )
    assert compiled(["dog"]).match(hidden).to_pylist() == [[], [0]]


def test_the_result_is_a_list_of_int32_without_nulls() -> None:
    for captions in (
        pa.array(["a", None, "b"]),
        pa.array([], pa.string()),
        pa.chunked_array([], pa.string()),
    ):
        found = compiled(["a"]).match(captions)
        assert found.type == pa.list_(pa.int32())
        assert found.null_count == 0
        assert len(found) == len(captions)
        found.validate(full=True)


def test_query_ids_are_the_tables_own() -> None:
    table = pa.table({"query_id": pa.array([70, 3], pa.int32()), "query": ["dog", "hot dog"]})
    assert compile_queries(table, "words").match(pa.array(["Hot-dog! hot DOG"])).to_pylist() == [
        [3, 70]
    ]


@pytest.mark.parametrize("rules", ["words", "metaclip"])
def test_many_matches_are_sorted_and_distinct(rules: str) -> None:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    queries = [*reversed(letters), *(f"{a} {b}" for a in letters for b in letters)]
    caption = " ".join(letters + letters[::-1])
    expected = {"words": words_match, "metaclip": metaclip_match}[rules](caption, queries)
    assert len(expected) > 64
    assert compiled(queries, rules).match(pa.array([caption] * 40)).to_pylist() == [expected] * 40


def test_a_query_that_extends_others_is_found_with_all_of_them() -> None:
    queries = [" ".join("x" * n) for n in range(1, 200)]
    found = compiled(queries).match(pa.array(["x" * 3, " ".join("x" * 150)] * 3)).to_pylist()
    assert found == [[], list(range(150))] * 3


def test_captions_over_a_block_long_are_all_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trie, "BLOCK_ROWS", 3)
    captions = ["dog", "", "été", "e\u0301te\u0301", "a dog", "Été dog", "cat", "dog dog"]
    found = compiled(["dog", "été"]).match(pa.array(captions)).to_pylist()
    assert found == [[0], [], [1], [1], [0], [0, 1], [], [0]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5))
@example([b"dog\xff", b"\xc3", b"a\xe2\x82", b"\xed\xa0\x80 dog", b"\xc0\xaf", b"\xf4\x90\x80\x80"])
def test_bytes_that_are_not_utf8_are_replaced(captions: list[bytes]) -> None:
    array = pa.array(captions, pa.binary()).view(pa.string())
    queries = ["dog", "a", "\ufffd"]
    expected = [words_match(c.decode("utf-8", errors="replace"), queries) for c in captions]
    assert compiled(queries).match(array).to_pylist() == expected


@pytest.mark.parametrize(
    "offsets", [(0, 2, 9), (-1, 2, 3), (0, 3, 2), (0, 2**31 - 1, 3), (0, -(2**31), 3)]
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_offsets_outside_the_data_are_refused(offsets: tuple[int, ...], kind: pa.DataType) -> None:
    width = np.int32 if kind == pa.string() else np.int64
    batch = pa.record_batch([pa.array(["do", "g"], kind)], ["text"])
    sound, forged = (np.array(o, width).tobytes() for o in ((0, 2, 3), offsets))
    message = batch.serialize().to_pybytes()
    assert message.count(sound) == 1
    # Arrow does not look at offsets that come in a message.
    texts = pa.ipc.read_record_batch(message.replace(sound, forged), batch.schema).column(0)
    with pytest.raises(InputError, match="offsets"):
        compiled(["dog"]).match(texts)


def test_other_types_are_refused() -> None:
    with pytest.raises(InputError, match="texts are int64, expected string or large_string"):
        compiled(["dog"]).match(pa.array([1]))


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match="'word', expected one of: words, metaclip"):
        compiled(["dog"], "word")


def test_queries_that_are_the_same_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"queries 0 and 2, 'Dog' and 'dog ', are the same under rules 'words'"
    ):
        compiled(["Dog", "cat", "dog "])
    assert compiled(["Dog", "dog"], "metaclip").match(pa.array(["dog"])).to_pylist() == [[1]]


def test_a_query_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match=r"query 1, ' ', has no token"):
        compiled(["dog", " "])


def test_negative_ids_are_refused() -> None:
    table = pa.table({"query_id": pa.array([-1], pa.int32()), "query": ["dog"]})
    with pytest.raises(InputError, match="has the id -1, expected 0 to"):
        compile_queries(table, "words")


def test_an_empty_list_matches_nothing() -> None:
    assert compiled([]).match(pa.array(["dog"])).to_pylist() == [[]]


def test_a_trie_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(compiled(["dog"])))
    assert copy.match(pa.array(["a dog"])).to_pylist() == [[0]]


def test_tokens_of_equal_hash_are_told_apart_by_their_bytes() -> None:
    trie = compiled(["twentybytesofletters"])
    caption = pa.array(["twentybytesofletters"])
    assert trie.match(caption).to_pylist() == [[0]]
    other_bytes = trie.tables.arena.copy()
    other_bytes[-1] ^= 1
    other_bytes.flags.writeable = False
    same_hash = QueryTrie("words", trie.tables._replace(arena=other_bytes))
    assert same_hash.match(caption).to_pylist() == [[]]


def folded_by_table(texts: list[str]) -> list[list[str] | None]:
    """Return the tokens that the compiled folding leads to, None for texts it leaves to Python."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in encoded])
    data = np.frombuffer(b"".join(encoded), np.uint8)
    starts = np.concatenate([[0], ends[:-1]])
    out, starts, ends, states = folding.fold_rows(data, starts, ends, folding.fold_table())
    sources = {folding.AS_IT_IS: data.tobytes(), folding.FOLDED: out.tobytes()}
    # bytes.lower() folds ASCII only, as the kernel that goes on from here does.
    return [
        space_out(sources[state][start:end].lower().decode()).split() if state in sources else None
        for start, end, state in zip(starts, ends, states, strict=True)
    ]


def test_every_character_folds_as_the_normaliser_folds_it() -> None:
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    by_table = folded_by_table(characters)
    assert sum(found is not None for found in by_table) > 0.99 * (folding.TABLE_SIZE - 0x800)
    for character, found in zip(characters, by_table, strict=True):
        assert found is None or found == tokens(character), hex(ord(character))


MARKS = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c))[0] == "M"]


@settings(max_examples=500, deadline=None)
@given(st.text(ANY | st.sampled_from(MARKS) | st.sampled_from("".join(PIECES)), min_size=2))
@example("\u0e01\u0316\u0e48")  # marks out of canonical order, neither of which composes
def test_texts_fold_as_the_normaliser_folds_them(text: str) -> None:
    [found] = folded_by_table([text])
    assert found is None or found == tokens(text)


@pytest.mark.parametrize("rules", ["words", "metaclip"])
def test_real_captions_match_as_the_reference_says(shared_data: Path, rules: str) -> None:
    captions = pq.read_table(shared_data / "captions/test_1000.parquet").column("TEXT")
    words = [word for text in captions.to_pylist()[:300] for word in text.split()]
    runs = [" ".join(words[i : i + n]) for i in range(0, len(words), 3) for n in (1, 2, 3)]
    queries = list(dict.fromkeys(normalize(run) if rules == "words" else run for run in runs))[:400]
    queries = [query for query in queries if query]
    reference = {"words": words_match, "metaclip": metaclip_match}[rules]
    sample = captions.slice(0, 60)
    assert compiled(queries, rules).match(sample).to_pylist() == [
        reference(c, queries) for c in sample.to_pylist()
    ]
