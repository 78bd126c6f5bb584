import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import download, schemas
from pipeline.catalog import query_table
from pipeline.download import DownloadConfig
from pipeline.downloading.retry import FindTask, find_drops, select_reasons
from pipeline.errors import ConfigError, MissingInput
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.settings import read_settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace
from tests.conftest import Literals
from tests.pipeline.download_runs import (
    Killed,
    Web,
    balanced,
    downloaded,
    files_of,
    killed_when,
    pairs,
    png,
    read_table,
    serve,
    settings,
    stored_bytes,
)


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as server:
        yield server


@pytest.fixture
def half(web: Web, tmp_path: Path) -> Workspace:
    """Return a finished download of two parts: of six files, two come, two are missing, two are late."""
    web.files.update({f"/{i}": png(i) for i in range(2)})
    web.files.update({"/4": 500, "/5": 500})
    tables = [pairs([f"{web.url}/{i}" for i in range(start, 6, 2)]) for start in (0, 1)]
    workspace = balanced(tmp_path / "w", *tables)
    kept, drops = downloaded(workspace, settings())
    assert len(kept) == 2
    assert sorted(drop["reason"] for drop in drops) == ["http_404"] * 2 + ["http_500"] * 2
    web.asked.clear()
    return workspace


def retry(workspace: Workspace, *reasons: str, **given: Any) -> Manifest:
    config = settings(**given).model_copy(update={"retry": reasons})
    return download.run(config, workspace, InlineExecutor())


def check_whole(workspace: Workspace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make sure that every pair is there once and every stored image readable; return rows and drops."""
    manifest = workspace.finished("download")
    kept = read_table(workspace, "main", schemas.DOWNLOADED)
    drops = read_table(workspace, "drops", schemas.DROPS)
    asked = workspace.read_table("balance", "main", schemas.BALANCED).column("pair_id").to_pylist()
    assert sorted(row["pair_id"] for row in [*kept, *drops]) == sorted(asked)
    assert (manifest.rows_in, manifest.rows_out) == (len(asked), len(kept))
    assert sum(manifest.drops.values()) == len(drops)
    for row in kept:
        assert stored_bytes(workspace, row) == png(int(row["url"].rpartition("/")[2]))
    named = {p.path for parts in manifest.tables.values() for p in parts}
    folder = Path(workspace.path("download"))
    present = {f"download/{path}" for path in files_of(workspace)}
    assert present == named
    assert not (folder / "_run").exists()
    return kept, drops


def test_what_was_dropped_for_a_reason_is_asked_again_and_nothing_else(web: Web, half: Workspace):
    before = files_of(half)
    web.files.update({f"/{i}": png(i) for i in range(6)})
    retry(half, "http_500")
    assert sorted(web.asked) == ["/4", "/5"]
    kept, drops = check_whole(half)
    assert len(kept) == 4
    assert {drop["reason"] for drop in drops} == {"http_404"}
    after = files_of(half)
    unchanged = ("00000.parquet", "00001.parquet", "images/00000.tar", "images/00001.tar")
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert "images/00001-1.tar" in after


def test_finding_what_to_ask_again_drops_nothing(half: Workspace):
    [drops, *_] = half.finished("download").tables["drops"]
    output = TaskOutput(workspace=half, stage="download", index=0)
    task = FindTask(drops=drops, reasons=("http_404", "http_500"), output=output)
    found = find_drops(task)
    assert (found.rows_in, found.drops) == (0, {})
    assert sum(found.counters.values()) == drops.rows
    assert find_drops(replace(task, reasons=("dns",))).counters == {}


def test_other_reasons_may_follow(web: Web, half: Workspace):
    web.files.update({f"/{i}": png(i) for i in range(6)})
    retry(half, "http_500")
    web.asked.clear()
    manifest = retry(half, "http_4")
    assert sorted(web.asked) == ["/2", "/3"]
    kept, drops = check_whole(half)
    assert (len(kept), drops) == (6, [])
    assert manifest.revision == 2


def test_what_fails_again_keeps_the_newest_reason(web: Web, half: Workspace):
    web.files.update({"/4": 410, "/5": png(5)})
    retry(half, "http_500")
    _, drops = check_whole(half)
    assert sorted(drop["reason"] for drop in drops) == ["http_404", "http_404", "http_410"]


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["all"], ["/2", "/3", "/4", "/5"]),
        (["http_"], ["/2", "/3", "/4", "/5"]),
        (["http_5"], ["/4", "/5"]),
        (["dns", "http_404"], ["/2", "/3"]),
    ],
)
def test_reasons_may_be_named_together(web: Web, half: Workspace, names, asked):
    retry(half, *names)
    assert sorted(web.asked) == asked
    check_whole(half)


def test_later_stages_are_out_of_date_only_if_something_came(web: Web, half: Workspace):
    begin("dedup", Literals(), half, reads=["download"]).finish([])
    retry(half, "all")
    assert half.finished("dedup")
    web.files["/4"] = png(4)
    retry(half, "all")
    with pytest.raises(MissingInput, match=r"dedup .* is out of date, because download"):
        half.finished("dedup")


def test_a_reason_nothing_was_dropped_for_changes_nothing(web: Web, half: Workspace, capsys):
    before = Path(half.path("download/manifest.json")).read_bytes(), files_of(half)
    retry(half, "timeout", "dns")
    assert "has dropped nothing for timeout, dns; nothing is asked again" in capsys.readouterr().err
    assert (Path(half.path("download/manifest.json")).read_bytes(), files_of(half)) == before
    assert web.asked == []


@pytest.mark.parametrize("name", ["time_out", "http_x", "dn", "http_5033", "ALL", "http"])
def test_a_name_of_no_reason_is_an_error_that_lists_what_there_is(half: Workspace, name):
    line = f"download.retry names {name}, which is no reason.* http_404 2, http_500 2"
    with pytest.raises(ConfigError, match=line):
        retry(half, name)


def test_only_a_finished_download_can_be_asked_again(web: Web, tmp_path):
    workspace = balanced(tmp_path, pairs([f"{web.url}/1"]))
    with pytest.raises(MissingInput, match="download has not finished"):
        retry(workspace, "all")


def test_other_settings_do_not_clear_what_is_there(half: Workspace):
    before = files_of(half)
    with pytest.raises(ConfigError, match=r"setting image_size \(256, now 64\) changed; expected"):
        retry(half, "all", image_size=64)
    assert files_of(half) == before


def test_pace_and_patience_may_differ(web: Web, half: Workspace):
    web.files["/4"] = png(4)
    retry(half, "all", threads=2, timeout_s=3)
    assert len(check_whole(half)[0]) == 3


def test_a_run_without_a_retry_finds_nothing_to_do_afterwards(web: Web, half: Workspace):
    web.files["/4"] = png(4)
    retry(half, "all")
    before = files_of(half)
    web.asked.clear()
    downloaded(half, settings())
    assert (web.asked, files_of(half)) == ([], before)


def test_hosts_are_counted_as_if_nothing_had_failed(web: Web, half: Workspace, tmp_path):
    web.files.update({"/4": png(4), "/5": png(5)})
    retry(half, "http_500")
    again = balanced(tmp_path / "again", half.read_table("balance", "main", schemas.BALANCED))
    downloaded(again, settings())
    query = "SELECT * FROM download_hosts ORDER BY ALL"
    assert query_table(half, query).to_pylist() == query_table(again, query).to_pylist()
    assert half.finished("download").counters["hosts"] == 1


def test_a_sample_of_the_drops_is_no_hindrance(web: Web, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.runtime.stage.SAMPLED_DROPS", 1)
    balanced(tmp_path, pairs([f"{web.url}/{i}" for i in range(5)]))
    workspace = Workspace(root=str(tmp_path), drops="sample")
    _, drops = downloaded(workspace, settings())
    assert len(drops) == 5
    web.files.update({f"/{i}": png(i) for i in range(5)})
    retry(workspace, "all")
    assert len(check_whole(workspace)[0]) == 5


def test_killed_anywhere_it_leaves_the_old_state_or_the_new(web: Web, half: Workspace, tmp_path):
    web.files.update({"/4": png(4), "/5": png(5)})
    saved = tmp_path / "saved"
    shutil.copytree(half.root, saved)
    with killed_when(lambda *_: False) as changes:
        retry(half, "http_500")
    expected, new = files_of(half), half.manifest("download").content
    states = []
    for number in range(len(changes)):
        shutil.rmtree(half.root)
        shutil.copytree(saved, half.root)
        count = iter(range(number))
        with killed_when(lambda *_, count=count: next(count, None) is None), pytest.raises(Killed):
            retry(half, "http_500")
        manifest = half.finished("download")
        for parts in manifest.tables.values():
            for part in parts:
                half.verify(part)
        states.append(manifest.content == new)
        retry(half, "http_500")
        assert files_of(half) == expected
    assert states == sorted(states)
    assert set(states) == {False, True}
    assert len(states) > 15


def test_a_retry_that_was_killed_asks_only_for_the_rest(web: Web, half: Workspace):
    web.files.update({"/4": png(4), "/5": png(5)})
    with killed_when(lambda _, path: path.endswith("-1.tar")), pytest.raises(Killed):
        retry(half, "http_500")
    assert web.asked == ["/4"]
    downloaded(half, settings())
    retry(half, "http_500")
    assert web.asked == ["/4", "/5"]
    assert len(check_whole(half)[0]) == 4


def test_another_retry_clears_what_a_killed_one_left(web: Web, half: Workspace):
    with killed_when(lambda _, path: path.endswith("manifest.json")), pytest.raises(Killed):
        retry(half, "http_500")
    web.files["/2"] = png(2)
    web.asked.clear()
    retry(half, "http_404")
    assert sorted(web.asked) == ["/2", "/3"]
    assert len(check_whole(half)[0]) == 3


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (["all"], ("dns", "http_404", "http_500")),
        (["http_4"], ("http_404",)),
        (["http_500", "dns"], ("dns", "http_500")),
        (["timeout"], ()),
        ([], ()),
    ],
)
def test_names_mean_reasons(named, expected):
    assert select_reasons(named, {"http_500": 1, "dns": 2, "http_404": 3}) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["timeout,http_503,dns"], ("timeout", "http_503", "dns")),
        (["timeout", "dns, timeout,"], ("timeout", "dns")),
        ([], ()),
    ],
)
def test_reasons_may_be_given_in_one_word(given, expected):
    assert read_settings(DownloadConfig, {"retry": given}, where="download").retry == expected
