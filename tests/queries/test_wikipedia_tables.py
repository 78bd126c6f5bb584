from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.cli import main
from pipeline.errors import ConfigError, CorruptWorkspace, InputError, MissingInput
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from queries.build import build
from queries.config import BuildConfig
from queries.query_list import read_queries
from queries.wikipedia import WikipediaConfig, run
from queries.wikipedia_tables import (
    articles,
    check_floors,
    counted_bigrams,
    counted_words,
    table_files,
)

PAGES = [
    ("Mercury (planet)", None, False), ("Mercury (element)", None, False), ("Mercury", None, True),
    ("Hg", "Quicksilver", False), ("Quicksilver", "Mercury (element)", False), ("Nowhere", "Gone", False),
]  # fmt: skip
WORDS = [("mercury", 900), ("red", 800), ("panda", 700), ("rare", 99), ("of", 9000)]
BIGRAMS = [("red panda", 300, 9.5), ("of mercury", 400, 5.0), ("of red", 500, 1.0), ("rare panda", 200, 9.9)]  # fmt: skip


def table(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)


@pytest.fixture
def dump(workspace: Workspace, finish_stage: Callable[..., Manifest]) -> str:
    finish_stage(
        "wikipedia",
        schemas.WIKIPEDIA_PAGES,
        words=(table(WORDS, schemas.WIKIPEDIA_WORDS), schemas.WIKIPEDIA_WORDS),
        bigrams=(table(BIGRAMS, schemas.WIKIPEDIA_BIGRAMS), schemas.WIKIPEDIA_BIGRAMS),
        pages=(table(PAGES, schemas.WIKIPEDIA_PAGES), schemas.WIKIPEDIA_PAGES),
    )
    return workspace.root


def test_words_and_bigrams_are_read_as_counted(dump: str) -> None:
    assert sorted(zip(*counted_words(dump).to_pydict().values(), strict=True)) == sorted(WORDS)
    assert sorted(zip(*counted_bigrams(dump).to_pydict().values(), strict=True)) == sorted(BIGRAMS)


def test_articles_count_what_leads_to_them_and_leave_out_pages_that_tell_apart(dump: str) -> None:
    assert articles(dump).to_pylist() == [
        {"title": "Mercury (element)", "redirects": 2},
        {"title": "Mercury (planet)", "redirects": 0},
    ]


def build_from(dump: str, tmp_path: Path, **settings: object) -> dict[str, dict[str, object]]:
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text("02086723 05 n 01 mercury 0 000 | x\n")
    given = {"output": str(tmp_path / "list.parquet"), "wikipedia": dump, "wordnet": str(tmp_path)}
    config = BuildConfig.model_validate(given | settings)
    build(config)
    return {row["query"]: row for row in read_queries(config.output).to_pylist()}


def test_a_list_is_built_from_a_dump_without_any_package(dump: str, tmp_path: Path) -> None:
    rows = build_from(dump, tmp_path, preset="metaclip", numbers=1, size=7)
    assert [(query, row["sources"]) for query, row in rows.items()] == [
        ("0", ["number"]), ("mercury", ["wordnet", "unigram"]), ("of", ["unigram"]), ("red", ["unigram"]),
        ("panda", ["unigram"]), ("red panda", ["bigram"]), ("of mercury", ["bigram"]),
    ]  # fmt: skip
    assert rows["red panda"]["pmi"] == 9.5


def test_content_words_alone_make_bigrams_unless_a_preset_says_otherwise(
    dump: str, tmp_path: Path
) -> None:
    rows = build_from(dump, tmp_path, numbers=1, size=6, minimum_bigram_word_count=100)
    assert "red panda" in rows
    assert "of mercury" not in rows


def test_what_has_not_been_counted_says_how_to(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="is no witmill workspace"):
        table_files(workspace.root, "pages")
    workspace.prepare()
    with pytest.raises(MissingInput, match="run `witmill queries wikipedia` there"):
        table_files(workspace.root, "pages")


def test_a_table_that_was_cut_is_named(dump: str) -> None:
    (path,) = table_files(dump, "words")
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    with pytest.raises(CorruptWorkspace, match="has"):
        counted_words(dump)


DUMP = (
    "<mediawiki>\n<page><title>Dog</title><ns>0</ns><id>1</id><revision><id>1</id><model>wikitext</model>"
    "<format>text/x-wiki</format><text>A dog is a dog.</text></revision></page>\n</mediawiki>\n"
)


def test_a_floor_below_what_was_recorded_is_refused(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dump.xml").write_text(DUMP)
    count = [
        "queries",
        "wikipedia",
        str(tmp_path / "dump.xml"),
        "-w",
        workspace.root,
        "--workers",
        "0",
    ]
    assert main([*count, "--minimum-word-count", "2"]) == 0
    assert counted_words(workspace.root).to_pylist() == [
        {"word": "a", "count": 2},
        {"word": "dog", "count": 2},
    ]
    check_floors(workspace.root, {"minimum_word_count": 2})
    with pytest.raises(ConfigError, match=r"minimum_word_count is 1, but .* records from 2 on"):
        check_floors(workspace.root, {"minimum_word_count": 1})
    check_floors(workspace.root, {"minimum_bigram_word_count": 100})
    with pytest.raises(ConfigError, match="minimum_bigram_word_count is 99"):
        check_floors(workspace.root, {"minimum_bigram_word_count": 99})
    assert main([*count, "--minimum-word-count", "500"]) == 0
    with pytest.raises(ConfigError, match=r"minimum_bigram_word_count is 200, .* from 500 on"):
        check_floors(workspace.root, {"minimum_bigram_word_count": 200})
    assert main([*count, "--minimum-word-count", "2"]) == 0
    capsys.readouterr()
    alone = [
        "queries",
        "source",
        "bigram",
        "--output",
        str(tmp_path / "b"),
        "--wikipedia",
        workspace.root,
    ]
    assert main([*alone, "--minimum-bigram-pmi", "2.5"]) == 1
    assert "minimum_bigram_pmi is 2.5, but" in capsys.readouterr().err


def test_bigrams_of_any_words_are_not_looked_for_among_those_of_content_words(
    workspace: Workspace, tmp_path: Path
) -> None:
    dump = tmp_path / "dump.xml"
    dump.write_text(DUMP)
    run(WikipediaConfig(dumps=(str(dump),), content_bigrams=True), workspace, InlineExecutor())
    with pytest.raises(ConfigError, match="records bigrams of content words alone"):
        check_floors(workspace.root, {}, content_only=False)
