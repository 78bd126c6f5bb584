import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, SchemaError
from queries.titles import TITLES, read_titles, texts, title_queries

WORDS = {"eiffel": 400, "tower": 90_000, "boeing": 30_000, "list": 9e5, "of": 9e8, "towers": 9000, "in": 9e8,
         "route": 50_000, "the": 9e8, "kowloon": 99, "history": 9e5, "shirt": 9000, "walled": 800}  # fmt: skip


def scores(*titles: tuple[str, int], minimum_redirects: int = 1) -> dict[str, float]:
    rows = [{"title": title, "redirects": redirects} for title, redirects in titles]
    table = title_queries(
        pa.Table.from_pylist(rows, TITLES),
        {word: int(count) for word, count in WORDS.items()},
        minimum_redirects=minimum_redirects,
        minimum_word_count=100,
    )
    return dict(zip(table["query"].to_pylist(), table["score"].to_pylist(), strict=True))


def test_the_score_joins_redirects_and_the_rarest_word() -> None:
    assert scores(("eiffel tower", 7)) == {"eiffel tower": round(3 + math.log2(400) / 8, 3)}


def test_a_title_more_sought_under_other_names_comes_first() -> None:
    assert list(scores(("eiffel tower", 3), ("boeing tower", 30))) == [
        "boeing tower",
        "eiffel tower",
    ]


@pytest.mark.parametrize(
    "title", ["boeing 747", "t - shirt", "the tower", "route 66", "tower of tower"]
)
def test_numbers_letters_and_marks_may_stand_in_a_title(title: str) -> None:
    assert title in scores((title, 1))


@pytest.mark.parametrize(
    "title",
    ["tower", "list of towers", "history of the tower", "the of", "747 - 400", "kowloon walled tower",
     "tower route 12", "tower / towers", "tower - tower - tower - tower - tower", "boeing discography", ""],
)  # fmt: skip
def test_single_words_surveys_rare_words_and_scraps_are_left_out(title: str) -> None:
    assert scores((title, 9)) == {}


def test_an_article_without_enough_redirects_is_left_out() -> None:
    assert scores(("eiffel tower", 0)) == {}
    assert "eiffel tower" in scores(("eiffel tower", 0), minimum_redirects=0)


def test_of_two_titles_that_normalise_alike_the_better_score_stays() -> None:
    assert scores(("eiffel tower", 1), ("eiffel tower", 7)) == scores(("eiffel tower", 7))


def test_titles_are_normalised_on_reading(tmp_path: Path) -> None:
    path = str(tmp_path / "titles.parquet")
    rows = [{"title": "T-Shirt", "redirects": 3}, {"title": "Tee  shirt", "redirects": None}]
    pq.write_table(pa.Table.from_pylist(rows, TITLES), path)
    table = read_titles(path)
    assert list(texts(table["title"])) == ["t - shirt", "tee shirt"]
    assert table["redirects"].to_pylist() == [3, None]


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "titles.parquet").write_text("eiffel tower\t3\n")
    with pytest.raises(InputError, match="is not a Parquet file"):
        read_titles(str(tmp_path / "titles.parquet"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": ["eiffel tower"]}), tmp_path / "titles.parquet")
    with pytest.raises(SchemaError, match="missing redirects"):
        read_titles(str(tmp_path / "titles.parquet"))
