import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline import schemas
from pipeline.errors import InputError
from queries.build import BuildConfig, build, union
from queries.candidates import candidates
from queries.query_list import BUILTIN, read_queries
from queries.titles import TITLES

SYNSETS = {"noun": "02086723 05 n 01 dog 0 000 | x\n", "verb": "00445584 30 v 01 run 0 000 | x\n",
           "adj": "00019769 00 s 01 black 0 000 | x\n", "adv": "00001885 02 r 01 AD 0 000 | x\n"}  # fmt: skip
ARTICLES = [("eiffel tower", 7), ("golden gate", 3), ("golden gate bridge", 2), ("golden gate park", 0),
            ("golden gate", None), ("dog", 60)]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    for part, lines in SYNSETS.items():
        (tmp_path / f"data.{part}").write_text(lines)
    words = "dog;900\ntower;300\ngolden;200\ngate;200\nbridge;150\neiffel;120\npark;99\n"
    (tmp_path / "words.gz").write_bytes(gzip.compress(words.encode()))
    (tmp_path / "web_words").write_text("tower\t300\ngolden\t200\ngate\t200\n")
    (tmp_path / "web_bigrams").write_text("golden gate\t150\ngate tower\t9\n")
    rows = [{"title": title, "redirects": redirects} for title, redirects in ARTICLES]
    pq.write_table(pa.Table.from_pylist(rows, TITLES), tmp_path / "titles.parquet")
    return BuildConfig(
        output=str(tmp_path / "list.parquet"),
        size=11,
        wordnet=str(tmp_path),
        words=str(tmp_path / "words.gz"),
        web_words=str(tmp_path / "web_words"),
        web_bigrams=str(tmp_path / "web_bigrams"),
        titles=str(tmp_path / "titles.parquet"),
        minimum_bigram_word_count=100,
    )


def test_the_sources_follow_one_another_and_each_query_stands_once(config: BuildConfig) -> None:
    report = build(config)
    table = read_queries(config.output)
    assert [(row["query"], row["source"]) for row in table.to_pylist()] == [
        ("ad", "wordnet"), ("black", "wordnet"), ("dog", "wordnet"), ("run", "wordnet"),
        ("tower", "unigram"), ("gate", "unigram"), ("golden", "unigram"), ("bridge", "unigram"),
        ("eiffel", "unigram"), ("golden gate", "bigram"), ("eiffel tower", "title"),
    ]  # fmt: skip
    assert table["count"][9].as_py() == 150
    assert report.sources == {"wordnet": 4, "unigram": 5, "bigram": 1, "title": 1}
    assert report.candidates == {"wordnet": 4, "unigram": 6, "bigram": 1, "title": 3}
    assert report.rows == 11
    assert report.bytes == Path(config.output).stat().st_size


def test_two_builds_give_the_same_bytes(config: BuildConfig, tmp_path: Path) -> None:
    again = config.model_copy(update={"output": str(tmp_path / "again.parquet")})
    assert build(config).sha256 == build(again).sha256
    assert Path(config.output).read_bytes() == Path(again.output).read_bytes()


def test_too_few_queries_are_an_error_and_leave_no_file(config: BuildConfig) -> None:
    with pytest.raises(
        InputError, match="the sources give 12 queries, expected 500; set a lower size"
    ):
        build(config.model_copy(update={"size": 500}))
    assert not Path(config.output).exists()


def test_a_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        BuildConfig(size=0)


def test_a_query_belongs_to_the_first_source_that_gives_it() -> None:
    first = candidates("unigram", [("dog", 9, None)])
    second = candidates("title", [("dog", None, 8.0), ("hot dog", None, 7.0)])
    table = union([first, second], size=2)
    assert table.schema.equals(schemas.QUERIES)
    assert table["source"].to_pylist() == ["unigram", "title"]
    assert union([first, second], size=1)["query"].to_pylist() == ["dog"]


@pytest.mark.skipif(
    "WITMILL_QUERY_SOURCES" not in os.environ,
    reason="WITMILL_QUERY_SOURCES names no folder with the fetched packages (a build of 90 s)",
)
def test_the_packages_rebuild_the_built_in_list_byte_for_byte(tmp_path: Path) -> None:
    rebuilt = tmp_path / "builtin.parquet"
    build(BuildConfig(output=str(rebuilt), packages=os.environ["WITMILL_QUERY_SOURCES"]))
    assert rebuilt.read_bytes() == BUILTIN.read_bytes()
