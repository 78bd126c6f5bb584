import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.errors import (
    AccountingError,
    ConfigError,
    CorruptWorkspace,
    InputError,
    MissingInput,
    TaskFailed,
)
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest, Outcome
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

NUMBERS = pa.schema([pa.field("pair_id", pa.string(), nullable=False)])


class KeepConfig(Settings):
    """Keep numbers below a limit."""

    below: int = 6


@dataclass(frozen=True, kw_only=True)
class KeepTask:
    first: int
    below: int
    output: TaskOutput
    fail_at: str = ""


def keep(task: KeepTask) -> Outcome:
    if task.fail_at and not Path(task.fail_at).exists() and task.first == 4:
        raise InputError("not yet")
    numbers = range(task.first, task.first + 4)
    kept = pa.table({"pair_id": [str(n) for n in numbers if n < task.below]}, schema=NUMBERS)
    gone = [str(n) for n in numbers if n >= task.below]
    drops = pa.table(
        {"pair_id": gone, "reason": ["large"] * len(gone), "detail": [None] * len(gone)},
        schema=schemas.DROPS,
    )
    return task.output.write(rows_in=4, kept=kept, schema=NUMBERS, drops=drops)


def run_keep(
    workspace: Workspace, executor: Executor, below: int = 6, fail_at: str = ""
) -> tuple[Manifest, bool]:
    stage = begin("keep", KeepConfig(below=below), workspace)
    if stage.done:
        return stage.done, True
    tasks = [
        KeepTask(first=4 * i, below=below, output=stage.output(i), fail_at=fail_at)
        for i in range(3)
    ]
    return stage.finish(stage.map(executor, "keep", keep, tasks)), False


def test_every_executor_writes_the_same_stage(workspace: Workspace, executor: Executor) -> None:
    manifest, _ = run_keep(workspace, executor)
    assert (manifest.rows_in, manifest.rows_out, manifest.drops) == (12, 6, {"large": 6})
    assert [part.rows for part in manifest.parts] == [4, 2, 0]
    kept = [workspace.read(part, NUMBERS)["pair_id"].to_pylist() for part in manifest.parts]
    assert kept == [["0", "1", "2", "3"], ["4", "5"], []]


def test_a_finished_stage_is_not_run_again(workspace: Workspace) -> None:
    run_keep(workspace, InlineExecutor())
    assert run_keep(workspace, InlineExecutor())[1]


def test_another_setting_rebuilds_and_is_named(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run_keep(workspace, InlineExecutor())
    manifest, was_done = run_keep(workspace, InlineExecutor(), below=2)
    assert not was_done
    assert manifest.rows_out == 2
    assert "built anew, because setting below (6, now 2) changed" in capsys.readouterr().err


def test_what_may_not_be_built_anew_is_refused_and_what_is_to_be_kept_stays(
    workspace: Workspace,
) -> None:
    before, _ = run_keep(workspace, InlineExecutor())
    with pytest.raises(ConfigError, match=r"keep in .* made from something else: setting below"):
        begin("keep", KeepConfig(below=2), workspace, anew=False)
    assert workspace.finished("keep") == before
    begin("keep", KeepConfig(below=2), workspace, keep=[workspace.path("keep/00001.parquet")])
    left = [Path(path).name for path in storage.list_inside(workspace.path("keep"))]
    assert left == ["00001.parquet", "begun.json"]
    begin("keep", KeepConfig(below=2), workspace, anew=False)


def test_an_interrupted_run_goes_on_from_the_tasks_that_ended(
    workspace: Workspace, tmp_path: Path
) -> None:
    marker = tmp_path / "now"
    with pytest.raises(TaskFailed, match=r"1 of 3 tasks failed \(keep 1\): not yet"):
        run_keep(workspace, InlineExecutor(), fail_at=str(marker))
    first = Path(workspace.path("keep/00000.parquet"))
    before = first.stat().st_mtime_ns
    marker.touch()
    manifest, _ = run_keep(workspace, InlineExecutor(), fail_at=str(marker))
    assert manifest.rows_in == 12
    assert first.stat().st_mtime_ns == before
    assert not Path(workspace.path("keep/_run")).exists()


def test_rows_that_vanish_without_a_reason_are_an_error(workspace: Workspace) -> None:
    stage = begin("keep", KeepConfig(), workspace)
    lost = Outcome(rows_in=10, rows_out=7, drops={"large": 2})
    with pytest.raises(AccountingError, match="1 are unaccounted for"):
        stage.finish([lost])


def test_an_unfinished_stage_names_the_command_to_run(workspace: Workspace) -> None:
    with pytest.raises(MissingInput, match=r"ingest has not finished in .*; run `witmill ingest`"):
        begin("match", KeepConfig(), workspace, reads=("ingest",))


def test_a_stage_whose_input_was_rebuilt_is_out_of_date(workspace: Workspace) -> None:
    run_keep(workspace, InlineExecutor())
    following = begin("follow", KeepConfig(), workspace, reads=("keep",))
    following.finish([])
    assert workspace.out_of_date(workspace.manifests(["follow"])) == {}
    run_keep(workspace, InlineExecutor(), below=3)
    assert workspace.out_of_date(workspace.manifests(["follow"])) == {"follow": "keep"}
    with pytest.raises(
        MissingInput, match=r"follow .* is out of date, because keep is not what it was"
    ):
        workspace.finished("follow")


def test_a_part_with_flipped_bytes_is_named(workspace: Workspace) -> None:
    manifest, _ = run_keep(workspace, InlineExecutor())
    path = Path(workspace.path(manifest.parts[0].path))
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(
        CorruptWorkspace,
        match=r"00000.parquet is corrupted.*delete .*keep and run `witmill keep` again",
    ):
        workspace.read(manifest.parts[0], NUMBERS)


def test_a_part_that_is_cut_short_is_named(workspace: Workspace) -> None:
    manifest, _ = run_keep(workspace, InlineExecutor())
    path = Path(workspace.path(manifest.parts[1].path))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptWorkspace, match=r"00001.parquet has .* bytes, expected"):
        workspace.finished("keep")


def test_a_workspace_of_a_newer_format_is_refused(workspace: Workspace) -> None:
    workspace.prepare()
    Path(workspace.path("witmill.json")).write_text(json.dumps({"format": 99}))
    with pytest.raises(
        InputError, match="written in format 99, this witmill knows format 1; upgrade"
    ):
        begin("keep", KeepConfig(), workspace)


def test_two_processes_do_not_share_a_workspace(workspace: Workspace) -> None:
    at_work = pytest.raises(InputError, match="another witmill is at work")
    with workspace.locked(), at_work, workspace.locked():
        pass


def test_sampled_drops_keep_all_counts(workspace: Workspace) -> None:
    sampled = Workspace(root=workspace.root, drops="sample")
    stage = begin("keep", KeepConfig(), sampled)
    drops = pa.table(
        {
            "pair_id": [str(i) for i in range(500)],
            "reason": ["large"] * 500,
            "detail": [None] * 500,
        },
        schema=schemas.DROPS,
    )
    outcome = stage.output(0).write(
        rows_in=500, kept=NUMBERS.empty_table(), schema=NUMBERS, drops=drops
    )
    manifest = stage.finish([outcome])
    assert manifest.drops == {"large": 500}
    assert sum(part.rows for part in manifest.tables["drops"]) == 100


def test_files_of_somebody_else_are_never_deleted(workspace: Workspace) -> None:
    thesis = Path(workspace.path("keep/thesis.txt"))
    thesis.parent.mkdir(parents=True)
    thesis.write_text("precious")
    with pytest.raises(
        InputError, match=r"holds files that no witmill run wrote, such as .*thesis"
    ):
        run_keep(workspace, InlineExecutor())
    assert thesis.read_text() == "precious"


def test_a_clearing_that_was_cut_off_leaves_nothing_that_counts(
    workspace: Workspace, tmp_path: Path
) -> None:
    marker = tmp_path / "now"
    with pytest.raises(TaskFailed):
        run_keep(workspace, InlineExecutor(), fail_at=str(marker))
    removed: list[str] = []

    def interrupted_remove(path: str) -> None:
        if path.endswith("00000.parquet") and not removed:
            Path(path).unlink()
            removed.append(path)
            raise KeyboardInterrupt
        original(path)

    original = storage.remove
    stopped = pytest.raises(KeyboardInterrupt)
    with pytest.MonkeyPatch.context() as patch, stopped:
        patch.setattr(storage, "remove", interrupted_remove)
        run_keep(workspace, InlineExecutor(), below=3)
    assert removed
    marker.touch()
    manifest, _ = run_keep(workspace, InlineExecutor(), fail_at=str(marker))
    for part in manifest.parts:
        workspace.read(part, NUMBERS)


def test_a_receipt_cut_off_by_a_kill_is_no_receipt(workspace: Workspace, tmp_path: Path) -> None:
    marker = tmp_path / "now"
    with pytest.raises(TaskFailed):
        run_keep(workspace, InlineExecutor(), fail_at=str(marker))
    Path(workspace.path("keep/_run/receipts/keep-00001.json.4242.part")).write_text("")
    marker.touch()
    manifest, _ = run_keep(workspace, InlineExecutor(), fail_at=str(marker))
    assert manifest.rows_in == 12
    assert manifest.resumed_tasks == 2


def test_another_way_of_keeping_drops_does_not_resume(workspace: Workspace, tmp_path: Path) -> None:
    sampled = Workspace(root=workspace.root, drops="sample")
    marker = tmp_path / "now"
    with pytest.raises(TaskFailed):
        run_keep(sampled, InlineExecutor(), fail_at=str(marker))
    marker.touch()
    manifest, _ = run_keep(workspace, InlineExecutor(), fail_at=str(marker))
    assert manifest.resumed_tasks == 0
    assert sum(part.rows for part in manifest.tables["drops"]) == manifest.drops["large"]


def test_what_a_kill_left_after_the_manifest_is_tidied(workspace: Workspace) -> None:
    run_keep(workspace, InlineExecutor())
    left = Path(workspace.path("keep/_run/receipts/keep-00000.json"))
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    assert run_keep(workspace, InlineExecutor())[1]
    assert not left.exists()


def test_an_error_inside_the_lock_stays_what_it_is(workspace: Workspace) -> None:
    with pytest.raises(TimeoutError, match="no answer"), workspace.locked():
        raise TimeoutError("no answer")


def test_a_relative_workspace_means_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Workspace(root="runs/a").path("x") == str(tmp_path / "runs/a/x")
    assert Workspace(root="~/runs").path("x") == str(tmp_path / "home/runs/x")
    with pytest.raises(ConfigError, match="workspace is empty"):
        Workspace(root="")
