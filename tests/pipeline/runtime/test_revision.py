from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.errors import ConfigError, MissingInput
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.manifest import Manifest, Outcome
from pipeline.runtime.revision import remainder, revise
from pipeline.runtime.stage import StageRun, TaskOutput, begin, reopen
from pipeline.runtime.workspace import Workspace
from tests.conftest import Literals


def outcome(output: TaskOutput, kept: int, dropped: int, **counters: float) -> Outcome:
    row = {name: "x" for name in schemas.PAIRS.names if name != "blur_boxes"}
    rows = [{**row, "source_offset": i} for i in range(kept)]
    return output.write(
        rows_in=kept + dropped,
        kept=pa.Table.from_pylist(rows, schema=schemas.PAIRS),
        schema=schemas.PAIRS,
        drops=drop_rows(["x"] * dropped, "no_url"),
        counters=counters,
    )


@pytest.fixture
def done(workspace: Workspace) -> Manifest:
    """Return the manifest of a stage of two parts, of which the second has dropped three rows."""
    stage = begin("ingest", Literals(), workspace)
    return stage.finish(
        [outcome(stage.output(0), 2, 0, a=1, b=5), outcome(stage.output(1), 1, 3, a=1)]
    )


def reopened(workspace: Workspace, **given: str) -> StageRun:
    return reopen("ingest", Literals(**given), workspace)


def finish(workspace: Workspace, done: Manifest, change: str = "x") -> Manifest:
    """Recover one of the three dropped rows."""
    stage = revise(reopened(workspace), done, {"change": change})
    rest = remainder(
        done,
        rows_in=3,
        drops={"no_url": 3},
        counters={"b": 7},
        files=done.tables["drops"],
    )
    return stage.finish([rest, outcome(stage.output(1), 1, 2, b=7)])


def files(workspace: Workspace) -> set[str]:
    folder = Path(workspace.path("ingest"))
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_revision_replaces_some_files_and_adds_others(workspace: Workspace, done: Manifest):
    now = finish(workspace, done)
    assert (now.rows_in, now.rows_out, dict(now.drops)) == (6, 4, {"no_url": 2})
    assert now.counters == {"a": 2, "b": 7}
    assert now.revision == 1
    assert now.content != done.content
    assert files(workspace) == {
        "00000.parquet",
        "00001.parquet",
        "00001-1.parquet",
        "drops/00001-1.parquet",
        "manifest.json",
    }
    assert begin("ingest", Literals(), workspace).done == now


def test_what_has_not_finished_cannot_be_revised(workspace: Workspace):
    begin("ingest", Literals(), workspace)
    with pytest.raises(MissingInput, match="ingest has not finished"):
        reopened(workspace)


def test_nor_what_was_made_from_something_else(workspace: Workspace, done: Manifest):
    with pytest.raises(ConfigError, match=r"setting made_by \('test', now 'other'\) changed"):
        reopened(workspace, made_by="other")
    assert workspace.finished("ingest") == done


def test_an_interrupted_revision_is_left_alone_and_goes_on(workspace: Workspace, done: Manifest):
    stage = revise(reopened(workspace), done, {"change": "x"})
    half = outcome(stage.output(1), 1, 2)
    assert begin("ingest", Literals(), workspace).done == done
    assert "00001-1.parquet" in files(workspace)
    again = revise(reopened(workspace), done, {"change": "x"})
    assert again.output(1).name("parquet") == half.parts["main"][0].path
    assert "00001-1.parquet" in files(workspace)


def test_another_revision_clears_what_an_interrupted_one_left(workspace: Workspace, done: Manifest):
    before = files(workspace)
    stage = revise(reopened(workspace), done, {"change": "x"})
    outcome(stage.output(1), 1, 2)
    revise(reopened(workspace), done, {"change": "y"})
    assert files(workspace) == before | {"_run/begun.json"}


def test_a_stage_that_is_built_anew_starts_without_revisions(workspace: Workspace, done: Manifest):
    finish(workspace, done)
    stage = begin("ingest", Literals(made_by="other"), workspace)
    assert stage.finish([outcome(stage.output(0), 1, 0)]).revision == 0
    assert files(workspace) == {"00000.parquet", "manifest.json"}


def test_every_drop_is_kept_where_that_is_asked_for(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pipeline.runtime.stage.SAMPLED_DROPS", 1)
    workspace = Workspace(root=str(tmp_path), drops="sample")
    output = begin("ingest", Literals(), workspace).output(0)
    drops = drop_rows(["a", "b"], "no_url")
    kept = schemas.PAIRS.empty_table()
    for every, rows in ((False, 1), (True, 2)):
        written = output.write(
            rows_in=2, kept=kept, schema=schemas.PAIRS, drops=drops, every_drop=every
        )
        assert written.parts["drops"][0].rows == rows
