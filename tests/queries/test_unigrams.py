import gzip
from pathlib import Path

import pytest

from pipeline.errors import InputError
from queries.unigrams import unigram_queries, word_counts, word_table


def write(path: Path, text: str) -> str:
    path.write_bytes(gzip.compress(text.encode()))
    return str(path)


def test_spellings_that_normalise_alike_are_added_up(tmp_path: Path) -> None:
    path = write(tmp_path / "words.gz", "straße;90\nstrasse;20\nkm²;7\n2010;5\nबिल्ली;3\n")
    assert word_counts(path) == {"strasse": 110, "km2": 7, "2010": 5, "बिल्ली": 3}


@pytest.mark.parametrize(
    "entry",
    ["covid-19;108750", "r&amp;b;56393", 'style="background;12999', "...;455155", ";74465562",
     "colspan;114", "passeriformesfamily;10446", "aaaaa;342"],
)  # fmt: skip
def test_an_entry_that_is_not_one_word_does_not_count(tmp_path: Path, entry: str) -> None:
    assert word_counts(write(tmp_path / "words.gz", f"the;9\n{entry}\n")) == {"the": 9}


def test_the_most_frequent_words_come_first_and_those_below_the_minimum_miss_it() -> None:
    table = unigram_queries(word_table({"rare": 99, "cat": 100, "the": 5000}), minimum=100)
    assert table.select(["query", "count", "rank", "missed"]).to_pylist() == [
        {"query": "the", "count": 5000, "rank": 1, "missed": None},
        {"query": "cat", "count": 100, "rank": 2, "missed": None},
        {"query": "rare", "count": 99, "rank": None, "missed": "word_count"},
    ]


def test_a_line_without_a_count_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 2 is 'cat', expected"):
        word_counts(write(tmp_path / "words.gz", "the;9\ncat\n"))


@pytest.mark.parametrize(
    "content",
    [b"the;9\n", gzip.compress(b"the;9\n", mtime=0)[:-9], gzip.compress(b"\xff;9\n", mtime=0)],
)
def test_a_file_that_is_not_gzipped_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.gz").write_bytes(content)
    with pytest.raises(InputError, match="is not gzipped UTF-8 text"):
        word_counts(str(tmp_path / "words.gz"))
