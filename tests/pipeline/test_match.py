import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.cli import main
from pipeline.errors import ConfigError, InputError, MissingInput, StorageError
from pipeline.match import REASONS, MatchConfig, explain, match_table, run
from pipeline.matching.trie import compile_queries
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.settings import read_settings
from pipeline.runtime.workspace import Workspace
from queries.query_list import read_queries
from queries.text import Rules
from tests.reference.matching import words_match

FinishStage = Callable[..., Manifest]

CAPTIONS = ["A black Dog", "dogma", "hot-dog\tstand", "", "Café, été", "CAT & DOG"]
QUERIES = ["dog", "hot - dog", "café", "cat"]
FOUND = [[0], None, [0, 1], None, [2], [0, 3]]


def pairs_table(captions: list[str]) -> pa.Table:
    rows = [
        {
            "pair_id": f"{i:032x}",
            "url": f"https://example.org/{i}.jpg",
            "caption": caption,
            "caption_source": "alt",
            "page_url": None,
            "source": "crawl.warc",
            "source_offset": i,
        }
        for i, caption in enumerate(captions)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.PAIRS)


def queries_table(queries: list[str]) -> pa.Table:
    rows = [
        {"query_id": i, "query": query, "source": "user", "sources": ["user"]}
        for i, query in enumerate(queries)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


@pytest.fixture
def query_file(tmp_path: Path) -> str:
    path = tmp_path / "queries.txt"
    path.write_text("\n".join(QUERIES), encoding="utf-8")
    return str(path)


def read_all(workspace: Workspace, table: str, schema: pa.Schema) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = workspace.read_table("match", table, schema).to_pylist()
    return rows


def test_every_executor_keeps_the_pairs_with_a_query(
    workspace: Workspace, finish_stage: FinishStage, executor: Executor, query_file: str
) -> None:
    pairs = pairs_table(CAPTIONS)
    finish_stage("ingest", schemas.PAIRS, pairs.slice(0, 4), pairs.slice(4))
    manifest = run(MatchConfig(queries=query_file), workspace, executor)
    kept = read_all(workspace, "main", schemas.MATCHES)
    assert [row["query_ids"] for row in kept] == [found for found in FOUND if found]
    assert [row["caption"] for row in kept] == [
        c for c, f in zip(CAPTIONS, FOUND, strict=True) if f
    ]
    assert manifest.drops == {"no_query": 2}
    assert set(manifest.drops) == set(REASONS)
    assert manifest.counters == {"hits": 6}
    dropped = read_all(workspace, "drops", schemas.DROPS)
    assert [row["pair_id"] for row in dropped] == [f"{1:032x}", f"{3:032x}"]


def test_the_list_is_kept_as_a_table(
    workspace: Workspace, finish_stage: FinishStage, query_file: str
) -> None:
    finish_stage("ingest", schemas.PAIRS, pairs_table(CAPTIONS))
    run(MatchConfig(queries=query_file), workspace, InlineExecutor())
    queries = read_all(workspace, "queries", schemas.QUERIES)
    assert [(row["query_id"], row["query"]) for row in queries] == list(enumerate(QUERIES))


def test_another_list_at_the_same_place_is_noticed(
    workspace: Workspace, finish_stage: FinishStage, query_file: str
) -> None:
    finish_stage("ingest", schemas.PAIRS, pairs_table(CAPTIONS))
    config = MatchConfig(queries=query_file)
    first = run(config, workspace, InlineExecutor())
    assert run(config, workspace, InlineExecutor()) == first
    Path(query_file).write_text("stand", encoding="utf-8")
    assert run(config, workspace, InlineExecutor()).rows_out == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no queries"),
        (b"\xff", "is not UTF-8"),
        (b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_list_that_cannot_be_used_deletes_nothing(
    workspace: Workspace,
    finish_stage: FinishStage,
    query_file: str,
    content: bytes,
    problem: str,
) -> None:
    finish_stage("ingest", schemas.PAIRS, pairs_table(CAPTIONS))
    first = run(MatchConfig(queries=query_file), workspace, InlineExecutor())
    Path(query_file).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        run(MatchConfig(queries=query_file), workspace, InlineExecutor())
    assert workspace.finished("match") == first


def test_the_same_list_at_another_place_is_no_other_file(
    workspace: Workspace, finish_stage: FinishStage, query_file: str
) -> None:
    finish_stage("ingest", schemas.PAIRS, pairs_table(CAPTIONS))
    files = run(MatchConfig(queries=query_file), workspace, InlineExecutor()).files
    moved = str(Path(query_file).rename(f"{query_file}.moved"))
    assert run(MatchConfig(queries=moved), workspace, InlineExecutor()).files == files
    assert set(files) == {"queries"}


def test_rules_metaclip_are_case_sensitive(
    workspace: Workspace, finish_stage: FinishStage, query_file: str
) -> None:
    finish_stage("ingest", schemas.PAIRS, pairs_table(["a dog.", "a Dog.", "hot - dog", "dog's"]))
    config = MatchConfig(queries=query_file, rules="metaclip")
    assert run(config, workspace, InlineExecutor()).rows_out == 2


def test_a_crawl_without_pairs_gives_no_matches(
    workspace: Workspace, finish_stage: FinishStage, query_file: str
) -> None:
    finish_stage("ingest", schemas.PAIRS)
    manifest = run(MatchConfig(queries=query_file), workspace, InlineExecutor())
    assert (manifest.rows_in, manifest.rows_out) == (0, 0)


def test_ingest_must_have_finished(workspace: Workspace, query_file: str) -> None:
    with pytest.raises(MissingInput, match="ingest"):
        run(MatchConfig(queries=query_file), workspace, InlineExecutor())


def test_a_list_that_is_not_there_is_named(workspace: Workspace, finish_stage: FinishStage) -> None:
    finish_stage("ingest", schemas.PAIRS, pairs_table(CAPTIONS))
    with pytest.raises(StorageError, match=r"nowhere\.txt"):
        run(MatchConfig(queries="/nowhere.txt"), workspace, InlineExecutor())


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"match\.rules is 'word', expected 'words' or 'metaclip'"
    ):
        read_settings(MatchConfig, {"rules": "word"}, where="match")


@settings(deadline=None)
@given(st.lists(st.text("dogmacté -'", max_size=12), max_size=8))
def test_each_pair_is_kept_or_dropped(captions: list[str]) -> None:
    trie = compile_queries(queries_table(QUERIES), "words")
    kept, drops = match_table(pairs_table(captions), trie)
    found = {f"{i:032x}": words_match(caption, QUERIES) for i, caption in enumerate(captions)}
    assert kept.schema.equals(schemas.MATCHES, check_metadata=True)
    assert drops.schema.equals(schemas.DROPS)
    wanted = {pair_id: ids for pair_id, ids in found.items() if ids}
    assert (
        dict(zip(kept["pair_id"].to_pylist(), kept["query_ids"].to_pylist(), strict=True)) == wanted
    )
    assert drops["pair_id"].to_pylist() == [pair_id for pair_id, ids in found.items() if not ids]


@pytest.mark.parametrize(
    ("rules", "tokens", "found"),
    [
        ("words", "5 tokens: hot | - | dog | , | cat", ["dog", "hot - dog", "cat"]),
        ("metaclip", "4 tokens: HOT-dog | , |  | cat", ["cat"]),
    ],
)
def test_explain_gives_tokens_and_queries(
    rules: Rules, tokens: str, found: list[str], query_file: str
) -> None:
    config = MatchConfig(queries=query_file, rules=rules)
    first, *rows, verdict = explain(config, "HOT-dog, cat").splitlines()
    assert first == tokens
    assert [row.split("  ")[-2] for row in rows] == found
    assert verdict == f"kept: {len(found)} queries"


def test_explain_says_when_a_caption_is_dropped(
    query_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["match", "--queries", query_file, "--explain", "dogma"]) == 0
    assert "dropped, no_query" in capsys.readouterr().out


def test_a_command_without_a_workspace_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["match"]) == 1
    assert "match has no workspace; give --workspace" in capsys.readouterr().err


def test_every_query_of_the_builtin_list_is_found_in_itself() -> None:
    queries = read_queries("builtin")
    found = compile_queries(queries, "words").match(queries["query"])
    counts = pc.list_value_length(found)
    assert pc.min(counts).as_py() >= 1
    for i in range(0, len(queries), 1000):
        assert i in found[i].as_py()


def test_importing_the_stage_does_not_import_numba() -> None:
    code = "import sys, pipeline.match; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
