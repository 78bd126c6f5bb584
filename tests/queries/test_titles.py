from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schemas
from pipeline.errors import InputError, SchemaError
from queries.titles import TITLES, read_titles, read_views, texts, title_queries, viewed_queries

WORDS = {"eiffel": 400, "tower": 90_000, "boeing": 30_000, "list": 9e5, "of": 9e8, "towers": 9000, "in": 9e8,
         "route": 50_000, "the": 9e8, "kowloon": 99, "history": 9e5, "shirt": 9000, "walled": 800}  # fmt: skip


def judged(*titles: tuple[str, int], minimum_redirects: int = 1) -> dict[str, str | None]:
    rows = [{"title": title, "redirects": redirects} for title, redirects in titles]
    table = title_queries(
        pa.Table.from_pylist(rows, TITLES),
        {word: int(count) for word, count in WORDS.items()},
        minimum_redirects=minimum_redirects,
        minimum_word_count=100,
    )
    return dict(zip(table["query"].to_pylist(), table["missed"].to_pylist(), strict=True))


def ranked(*titles: tuple[str, int], minimum_redirects: int = 1) -> list[str]:
    found = judged(*titles, minimum_redirects=minimum_redirects)
    return [title for title, missed in found.items() if not missed]


def test_a_title_more_sought_under_other_names_comes_first() -> None:
    assert ranked(("eiffel tower", 3), ("boeing tower", 30)) == ["boeing tower", "eiffel tower"]


def test_how_common_the_rarest_word_is_counts_for_little_beside_redirects() -> None:
    common, rare = "the tower", "eiffel tower"
    assert ranked((rare, 3), (common, 1)) == [rare, common]
    assert ranked((rare, 4), (common, 3)) == [common, rare]


@pytest.mark.parametrize(
    "title", ["boeing 747", "t - shirt", "the tower", "route 66", "tower of tower"]
)
def test_numbers_letters_and_marks_may_stand_in_a_title(title: str) -> None:
    assert ranked((title, 1)) == [title]


@pytest.mark.parametrize(
    "title",
    ["tower", "list of towers", "history of the tower", "the of", "747 - 400",
     "tower route 12", "tower / towers", "tower - tower - tower - tower - tower", "boeing discography"],
)  # fmt: skip
def test_single_words_surveys_and_scraps_miss_the_form(title: str) -> None:
    assert judged((title, 9)) == {title: "title_form"}


def test_a_rare_word_bars_a_title() -> None:
    assert judged(("kowloon walled tower", 9)) == {"kowloon walled tower": "title_words"}


def test_a_title_of_nothing_is_no_candidate() -> None:
    assert judged(("", 9)) == {}


def test_an_article_without_enough_redirects_misses_them() -> None:
    assert judged(("eiffel tower", 0)) == {"eiffel tower": "redirects"}
    assert ranked(("eiffel tower", 0), minimum_redirects=0) == ["eiffel tower"]


def test_of_two_titles_that_normalise_alike_the_one_with_more_redirects_stays() -> None:
    rows = [{"title": "eiffel tower", "redirects": n} for n in (1, 7, 3)]
    words = {word: int(count) for word, count in WORDS.items()}
    articles = pa.Table.from_pylist(rows, TITLES)
    table = title_queries(articles, words, minimum_redirects=1, minimum_word_count=100)
    assert table["redirects"].to_pylist() == [7]


def viewed(*rows: tuple[str, int]) -> list[dict[str, object]]:
    views = pa.Table.from_pylist([{"title": t, "views": n} for t, n in rows], schemas.PAGE_VIEWS)
    table = viewed_queries(views, minimum=70)
    found: list[dict[str, object]] = table.select(["query", "views", "missed"]).to_pylist()
    return found


def test_viewed_titles_come_by_their_views_and_need_the_floor() -> None:
    assert viewed(("Dog", 70), ("Hot Dog", 9000), ("Aardvark", 69)) == [
        {"query": "hot dog", "views": 9000, "missed": None},
        {"query": "dog", "views": 70, "missed": None},
        {"query": "aardvark", "views": 69, "missed": "views"},
    ]


def test_views_of_titles_told_apart_in_parentheses_add_up() -> None:
    rows = viewed(("Mercury (planet)", 50), ("Mercury (element)", 30), ("Mercury", 5))
    assert rows == [{"query": "mercury", "views": 85, "missed": None}]


@pytest.mark.parametrize(
    ("title", "query"),
    [("(500) Days of Summer", "( 500 ) days of summer"), ("M(x)", "m ( x )"), ("Smile :) (film)", "smile : )"),
     ("A (b) (c)", "a ( b )"), ("(film)", "( film )")],
)  # fmt: skip
def test_only_what_follows_a_name_at_its_end_tells_it_apart(title: str, query: str) -> None:
    assert [row["query"] for row in viewed((title, 99))] == [query]


def test_a_title_without_letter_or_digit_is_no_candidate() -> None:
    assert viewed(("!!!", 900), ("?", 900), ("猫", 900)) == [{"query": "猫", "views": 900, "missed": None}]  # fmt: skip


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


def test_views_are_read_from_their_own_columns_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": ["Dog"], "count": [7]}), tmp_path / "views.parquet")
    with pytest.raises(SchemaError, match="missing views; unexpected count"):
        read_views(str(tmp_path / "views.parquet"))
