import gzip
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.build import build, record_path, write_source
from queries.config import BuildConfig, SourceConfig
from queries.presets import Source
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
        size=13,
        numbers=2,
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
        ("0", "number"), ("1", "number"), ("ad", "wordnet"), ("black", "wordnet"), ("dog", "wordnet"),
        ("run", "wordnet"), ("tower", "unigram"), ("gate", "unigram"), ("golden", "unigram"),
        ("bridge", "unigram"), ("eiffel", "unigram"), ("golden gate", "bigram"), ("eiffel tower", "title"),
    ]  # fmt: skip
    assert report.sources == {"number": 2, "wordnet": 4, "unigram": 5, "bigram": 1, "title": 1}
    assert report.given == {"number": 2, "wordnet": 4, "unigram": 6, "bigram": 1, "title": 3}
    assert report.candidates == {"number": 2, "wordnet": 4, "unigram": 7, "bigram": 4, "title": 5}
    assert report.rows == 13
    assert report.bytes == Path(config.output).stat().st_size


def test_all_sources_and_figures_of_a_query_are_kept(config: BuildConfig) -> None:
    build(config)
    rows = {row["query"]: row for row in read_queries(config.output).to_pylist()}
    assert rows["dog"]["sources"] == ["wordnet", "unigram"]
    assert rows["dog"]["count"] == 900
    assert rows["golden gate"]["sources"] == ["bigram", "title"]
    assert (rows["golden gate"]["count"], rows["golden gate"]["redirects"]) == (150, 3)
    assert rows["golden gate"]["pmi"] > 2


def test_a_users_queries_come_first_and_carry_what_others_know(
    config: BuildConfig, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("Red Panda\nDOG\n")
    build(config.model_copy(update={"lists": (str(tmp_path / "mine.txt"),)}))
    panda, dog, *_ = read_queries(config.output).to_pylist()
    assert (panda["query"], panda["sources"]) == ("red panda", ["user"])
    assert (dog["sources"], dog["count"]) == (["user", "wordnet", "unigram"], 900)


def test_page_views_rank_titles_in_place_of_redirects(config: BuildConfig, tmp_path: Path) -> None:
    views = [{"title": "Red Panda", "views": 90}, {"title": "Dog (film)", "views": 800},
             {"title": "Obscure", "views": 69}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(views, schemas.PAGE_VIEWS), tmp_path / "views.parquet")
    build(config.model_copy(update={"pageviews": str(tmp_path / "views.parquet")}))
    rows = {row["query"]: row for row in read_queries(config.output).to_pylist()}
    assert rows["dog"]["views"] == 800
    assert rows["red panda"]["source"] == "title"
    assert "obscure" not in rows


def test_a_priority_orders_and_chooses_the_sources(config: BuildConfig) -> None:
    build(config.model_copy(update={"priority": ("unigram", "wordnet"), "size": 9}))
    rows = read_queries(config.output)
    assert rows["query"].to_pylist()[:2] == ["dog", "tower"]
    assert set(rows["source"].to_pylist()) == {"unigram", "wordnet"}


def test_the_record_says_what_became_of_every_candidate(config: BuildConfig) -> None:
    record = pq.read_table(build(config).record)
    assert build(config).record == record_path(config.output)
    fates = {(r["query"], r["source"]): (r["missed"], r["query_id"]) for r in record.to_pylist()}
    assert fates["park", "unigram"] == ("word_count", None)
    assert fates["golden gate", "title"] == (None, 11)
    assert fates["golden gate bridge", "title"] == (None, None)
    assert fates["golden gate park", "title"] == ("redirects", None)


@pytest.mark.parametrize(
    ("source", "first"),
    [("number", "0"), ("wordnet", "ad"), ("unigram", "dog"), ("bigram", "golden gate"), ("title", "eiffel tower")],
)  # fmt: skip
def test_a_source_can_be_written_alone(
    config: BuildConfig, tmp_path: Path, source: Source, first: str
) -> None:
    settings = SourceConfig(**config.model_dump(exclude={"output", "size", "priority"}))
    path = str(tmp_path / "source.parquet")
    write_source(source, settings, path)
    with storage.open_input(path) as file:
        table = schemas.check(pq.read_table(file), schemas.QUERY_CANDIDATES, source=path)
    assert table["query"][0].as_py() == first
    assert set(table["source"].to_pylist()) == {source}


def test_two_builds_give_the_same_bytes(config: BuildConfig, tmp_path: Path) -> None:
    again = config.model_copy(update={"output": str(tmp_path / "again.parquet")})
    assert build(config).sha256 == build(again).sha256
    assert (
        Path(record_path(config.output)).read_bytes()
        == Path(record_path(again.output)).read_bytes()
    )
    assert Path(config.output).read_bytes() == Path(again.output).read_bytes()


def test_too_few_queries_are_an_error_and_leave_no_file(config: BuildConfig) -> None:
    with pytest.raises(
        InputError, match="the sources give 14 queries, expected 500; set a lower size"
    ):
        build(config.model_copy(update={"size": 500}))
    assert not Path(config.output).exists()


@pytest.mark.skipif(
    "WITMILL_QUERY_SOURCES" not in os.environ,
    reason="WITMILL_QUERY_SOURCES names no folder with the fetched packages (a build of 90 s)",
)
def test_the_packages_rebuild_the_built_in_list_byte_for_byte(tmp_path: Path) -> None:
    rebuilt = tmp_path / "builtin.parquet"
    build(BuildConfig(output=str(rebuilt), packages=os.environ["WITMILL_QUERY_SOURCES"]))
    assert rebuilt.read_bytes() == BUILTIN.read_bytes()
