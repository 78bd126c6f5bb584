"""The whole pipeline on the miniature web: counts, reasons, planted cases, catalogue, results."""

import itertools
import json
import re
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from pipeline.catalog import query_table, view_definitions
from pipeline.plan import make_plan, read_tables
from pipeline.stages import STAGES
from tests.end_to_end.conftest import Demo, Example, environment
from tests.test_docs import QUERIES


def rows(demo: Demo, query: str) -> list[tuple[object, ...]]:
    table = query_table(demo.workspace, query)
    return [tuple(row.values()) for row in table.to_pylist()]


def test_every_stage_accounts_for_every_row(demo: Demo) -> None:
    for stage in STAGES:
        manifest = demo.workspace.finished(stage.name)
        assert manifest.rows_in == manifest.rows_out + sum(manifest.drops.values())


def test_each_stage_reads_what_the_one_before_left(demo: Demo) -> None:
    flow = [s.name for s in STAGES[: [s.name for s in STAGES].index("shard") + 1]]
    for before, after in itertools.pairwise(flow):
        left = demo.workspace.finished(before).rows_out
        assert demo.workspace.finished(after).rows_in == left, f"{before} to {after}"


# Reasons of runs that this one is not: over a folder of all sorts or a crawl with files missing, with
# another crawl added, with pictures from archives. The stages' own tests have those.
ELSEWHERE = {
    "ingest": {"unknown_file", "missing_file", "broken_box"},
    "balance": {"known"},
    "download": {
        "blocked",
        "broken_capture",
        "host_busy",
        "not_captured",
        "robots_unreachable",
        "tdm_reservation",
        "too_compressed",
        "too_few_bytes",
        "too_long",
    },
    "dedup": {"evaluation_caption", "same_caption", "similar"},
    "shard": {"removed"},
}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_reason_occurs(demo: Demo, stage) -> None:  # type: ignore[no-untyped-def]
    found = demo.workspace.finished(stage.name).drops
    generic = {re.sub(r"^http_\d+$", "http_NNN", reason) for reason in found}
    assert generic == set(stage.reasons) - ELSEWHERE.get(stage.name, set())


def test_the_funnel_shows_every_reason(example: Example, demo: Demo) -> None:
    shown = demo.printed.replace("\n", " ")
    for stage in STAGES:
        for reason in demo.workspace.finished(stage.name).drops:
            assert reason in shown


def test_no_query_selects_more_than_the_cap(demo: Demo, example: Example) -> None:
    tables = read_tables(str(example.folder / "demo.toml"))
    cap = make_plan(tables, source="demo").stages["balance"].model_dump()["cap"]
    largest = rows(
        demo, "SELECT stage, max(selected) FROM query_counts GROUP BY stage ORDER BY stage"
    )
    assert largest == [("balance", cap * 1.25), ("rebalance", cap)]


def test_pictures_of_evaluation_sets_are_found_by_each_method(demo: Demo) -> None:
    methods = dict(rows(demo, "SELECT method, count(*) FROM eval_overlaps GROUP BY method"))
    assert set(methods) == {"same_bytes", "same_pixels", "near_duplicate"}
    left = rows(demo, "SELECT count(*) FROM corpus JOIN eval_overlaps USING (pair_id)")
    assert left == [(0,)]


def test_planted_copies_of_evaluation_pictures_are_dropped(demo: Demo, example: Example) -> None:
    planted = json.loads((example.folder / "planted.json").read_text())
    copies = {
        p["url"].replace(":8417/", f":{example.port}/")
        for p in planted
        if p["case"].startswith("eval_")
    }
    assert copies
    kept = {url for (url,) in rows(demo, "SELECT url FROM corpus")}
    arrived = {url for (url,) in rows(demo, "SELECT url FROM images")}
    assert copies & arrived
    assert copies & kept == set()


def test_the_page_that_stays_for_a_duplicate_is_in_the_corpus(demo: Demo) -> None:
    lost = rows(
        demo,
        "SELECT count(*) FROM duplicates LEFT JOIN deduplicated ON duplicate_of = deduplicated.pair_id "
        "WHERE deduplicated.pair_id IS NULL",
    )
    assert lost == [(0,)]


def test_every_pair_has_one_end(demo: Demo) -> None:
    ends = rows(
        demo,
        "SELECT count(*) FROM (SELECT pair_id, "
        "count(*) FILTER (outcome = 'dropped') + count(*) FILTER (stage = 'shard') AS ends "
        "FROM history WHERE pair_id IN (SELECT pair_id FROM pairs) "
        "AND NOT (stage = 'ingest' AND outcome = 'dropped') GROUP BY pair_id) WHERE ends <> 1",
    )
    assert ends == [(0,)]


@pytest.mark.parametrize("query", QUERIES)
def test_a_documented_query_returns_rows(demo: Demo, query: str) -> None:
    assert query_table(demo.workspace, query).num_rows > 0


def test_plain_duckdb_opens_the_catalogue(demo: Demo) -> None:
    with duckdb.connect(demo.workspace.path("catalog.duckdb"), read_only=True) as connection:
        for view in view_definitions(demo.workspace):
            assert len(connection.sql(f'SELECT count(*) FROM "{view}"').fetchall()) == 1
        queries = connection.sql("SELECT count(*) FROM queries").fetchall()
    assert queries == [(500_000,)]


def test_plain_tar_readers_read_every_sample(demo: Demo) -> None:
    members: Counter[str] = Counter()
    for path in sorted(Path(demo.workspace.path("shard")).glob("*.tar")):
        with tarfile.open(path) as shard:
            members.update(name.partition(".")[0] for name in shard.getnames())
    assert len(members) == demo.workspace.finished("shard").rows_out
    assert set(members.values()) == {3}


def test_the_evaluation_stands_beside_chance(demo: Demo) -> None:
    assert "chance" in demo.printed
    found = rows(demo, "SELECT evalset, value, chance FROM evaluations WHERE metric = 'top1'")
    assert {evalset for evalset, _, _ in found} == {"fashion", "digits", "clipart"}
    assert all(0 < float(str(chance)) < 1 for _, _, chance in found)


def test_a_second_run_does_nothing(demo: Demo, example: Example) -> None:
    command = example.command(Path(demo.workspace.root), "--workers", "2")
    again = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("nothing has changed since") == len(STAGES)
