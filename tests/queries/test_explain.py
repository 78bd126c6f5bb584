import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from queries.build import build, record_path
from queries.candidates import candidates
from queries.config import BuildConfig
from queries.database import database
from queries.explain import explain_queries
from queries.union import make_list, register_candidates, write_record

FLOORS = {"minimum_word_count": 100, "minimum_bigram_pmi": 4.907, "minimum_bigram_word_count": 1000}


@pytest.fixture
def query_list(tmp_path: Path) -> str:
    unigram = {"query": ["dog", "golden", "aardvark"], "count": [900, 500, 42],
               "missed": [None, None, "word_count"]}  # fmt: skip
    bigram = {"query": ["of the", "hot dog", "lone wolf"], "count": [9, 8, 7], "pmi": [None, 7.25, 3.5],
              "missed": ["pair_words", None, "bigram_pmi"]}  # fmt: skip
    title = {"query": ["golden retriever", "hot dog", "big ben"], "views": [900, 800, 70]}
    path = str(tmp_path / "list.parquet")
    with database() as connection:
        register_candidates(
            connection,
            [
                candidates("unigram", unigram, order=[("count", "descending")]),
                candidates("bigram", bigram, order=[("count", "descending")]),
                candidates("title", title, order=[("views", "descending")]),
            ],
        )
        pq.write_table(make_list(connection, size=4), path)
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        write_record(connection, record_path(path), {"floors": FLOORS, "list": sha256})
    return path


def test_a_query_in_the_list_is_shown_with_sources_figures_and_ranks(query_list: str) -> None:
    assert explain_queries(["Hot  Dog"], query_list).splitlines() == [
        "'Hot  Dog', as a query 'hot dog', is in the list: id 2, from bigram, title",
        "  count 8",
        "  PMI 7.250 bits",
        "  views 800",
        "  bigram: rank 1",
        "  title: rank 2",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("aardvark", "  unigram: occurs too rarely in Wikipedia: count 42, minimum_word_count is 100"),
        ("lone wolf", "  bigram: its words meet little more often than chance: pmi 3.500 bits, minimum_bigram_pmi is 4.907"),
        ("of the", "  bigram: one of its words is rare in Wikipedia, or no content word (minimum_bigram_word_count is 1,000)"),
        ("big ben", "  title: rank 3 reaches all floors, but the list was full after rank 1"),
        ("xylophone", "  no source has it, not even below its floors"),
    ],
)  # fmt: skip
def test_a_query_that_is_not_in_the_list_says_what_it_lacks(
    query_list: str, text: str, reason: str
) -> None:
    first, *rest = explain_queries([text], query_list).splitlines()
    assert first == f"'{text}' is not in the list"
    assert rest[0] == reason


def test_what_is_close_to_a_missing_query_or_within_it_is_named(query_list: str) -> None:
    answer = explain_queries(["dogs", "a golden hot-dog"], query_list)
    assert "  in the list, close to it: 'dog'" in answer
    assert "  in the list, within it: 'golden', 'dog'" in answer


def test_several_texts_have_a_paragraph_each(query_list: str) -> None:
    assert len(explain_queries(["dog", "cat", "of the"], query_list).split("\n\n")) == 3


def test_without_a_record_the_reason_is_not_known_and_where_to_find_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("dog\n")
    answer = explain_queries(["hot dog"], str(tmp_path / "mine.txt"))
    assert "the reason is not known" in answer
    assert "'dog'" in answer
    builtin = explain_queries(["golden retriever", "xylophone dogfish"], "builtin")
    assert "is in the list: id" in builtin
    assert "from wordnet, bigram, title" in builtin
    assert "`witmill queries build --output queries.parquet`" in builtin
    assert "within it: 'xylophone', 'dogfish'" in builtin


@pytest.mark.parametrize("text", ["", "  ", "\u200b\n"])
def test_a_text_without_a_token_is_refused(query_list: str, text: str) -> None:
    with pytest.raises(InputError, match="has no letter, digit or mark"):
        explain_queries([text], query_list)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_a_record_that_is_none_is_named(query_list: str, content: bytes) -> None:
    Path(record_path(query_list)).write_bytes(content)
    with pytest.raises(InputError, match="is no record of candidates"):
        explain_queries(["dog"], query_list)


def test_another_table_in_place_of_the_record_is_named(query_list: str) -> None:
    pq.write_table(pa.table({"query": ["dog"]}), record_path(query_list))
    with pytest.raises(InputError, match="is no record of candidates"):
        explain_queries(["dog"], query_list)


def test_the_record_of_another_list_is_refused(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("dog\ncat\n")
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for output, size in ((first, 1), (second, 2)):
        build(BuildConfig(priority=("user",), lists=(str(words),), size=size, output=str(output)))
    first.write_bytes(second.read_bytes())
    with pytest.raises(InputError, match="is the record of another list"):
        explain_queries(["dog"], str(first))
