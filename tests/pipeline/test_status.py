from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from pipeline.status import print_evaluations, print_status, read_status
from tests.conftest import Literals


def test_stages_that_have_not_run_are_shown_as_such(workspace: Workspace) -> None:
    workspace.prepare()
    assert {status.state for status in read_status(workspace)} == {"not run"}


def test_the_funnel_shows_rows_and_drops(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = begin("ingest", Literals(), workspace)
    drops = pa.table({"pair_id": [None], "reason": ["no_url"], "detail": [None]}, schemas.DROPS)
    outcome = stage.output(0).write(
        rows_in=1, kept=schemas.PAIRS.empty_table(), schema=schemas.PAIRS, drops=drops
    )
    stage.finish([outcome])
    print_status(workspace)
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("ingest"))
    assert lines[place].split()[:4] == ["ingest", "1", "0", "0.0%"]
    assert lines[place + 1].strip() == "no_url 1"


def test_a_stage_that_was_begun_is_unfinished(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    begin("ingest", Literals(), workspace)
    states = {status.name: status.state for status in read_status(workspace)}
    assert (states["ingest"], states["match"]) == ("unfinished", "not run")
    print_status(workspace)
    assert "ingest       unfinished" in capsys.readouterr().out.splitlines()


def test_a_revision_has_no_rate(
    workspace: Workspace,
    finish_stage: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {name: "x" for name in schemas.PAIRS.names} | {"source_offset": 1, "blur_boxes": None}
    pairs = pa.Table.from_pylist([row], schema=schemas.PAIRS)
    done = finish_stage("ingest", schemas.PAIRS, pairs)
    for revision, shows_rate in ((0, True), (1, False)):
        manifest = replace(done, revision=revision, wall_seconds=0.5)
        storage.write_bytes(workspace.path("ingest/manifest.json"), manifest.to_json().encode())
        print_status(workspace)
        [line] = [x for x in capsys.readouterr().out.splitlines() if x.startswith("ingest")]
        assert (line.split()[4] != "-") == shows_rate


def test_a_stage_is_out_of_date_when_an_earlier_one_was_rebuilt(
    workspace: Workspace,
    finish_stage: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {name: "x" for name in schemas.PAIRS.names} | {"source_offset": 1, "blur_boxes": None}
    finish_stage("ingest", schemas.PAIRS, schemas.PAIRS.empty_table())
    begin("match", Literals(), workspace, reads=("ingest",)).finish([])
    pairs = pa.Table.from_pylist([row], schema=schemas.PAIRS)
    finish_stage("ingest", schemas.PAIRS, pairs, made_by="another test")
    states = {status.name: status.state for status in read_status(workspace)}
    assert (states["ingest"], states["match"]) == ("done", "out of date")
    print_status(workspace)
    assert "out of date, run again: match" in capsys.readouterr().out


def test_each_manifest_is_read_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, finish_stage: Callable[..., Manifest]
) -> None:
    finish_stage("ingest", schemas.PAIRS, schemas.PAIRS.empty_table())
    for earlier, stage in pairwise(["ingest", "match", "language", "captions"]):
        begin(stage, Literals(), workspace, reads=(earlier,)).finish([])
    read = []
    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    states = [status.state for status in read_status(workspace)]
    assert states[:5] == ["done", "done", "done", "done", "not run"]
    manifests = [path for path in read if path.endswith("manifest.json")]
    assert len(manifests) == 4 == len(set(manifests))


def test_evaluations_stand_beside_chance(
    workspace: Workspace,
    finish_stage: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {
        "evalset": "digits",
        "head": "zero_shot",
        "variant": "own",
        "metric": "top1",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "chance": 0.1,
        "images": 1000,
        "classes": 10,
    }
    mean = {"metric": "mean_per_class", "low": None, "high": None}
    rows = [row, row | mean, row | {"variant": "plain"}]
    rows += [row | {"head": "robustness", "variant": v} for v in ("fog", "corrupted", "fog/3")]
    table = pa.Table.from_pylist(rows, schema=schemas.EVALUATIONS)
    finish_stage("evaluate", schemas.EVALUATIONS, table)
    print_evaluations(workspace)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2:] == [
        ["digits", "zero_shot", "own", "top1", "50.0%", "40.0-60.0%", "10.0%", "1,000"],
        ["zero_shot", "own", "mean_per_class", "50.0%", "10.0%", "1,000"],
        ["zero_shot", "plain", "top1", "50.0%", "40.0-60.0%", "10.0%", "1,000"],
        ["robustness", "corrupted", "top1", "50.0%", "40.0-60.0%", "10.0%", "1,000"],
    ]


def test_a_folder_that_is_no_workspace_is_named(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="no witmill workspace"):
        read_status(workspace)
