import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.plan import make_plan, read_plan, run_plan, select_stages
from pipeline.runtime.workspace import Workspace
from pipeline.stages import STAGES


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.parquet"
    table = pa.table({"url": ["https://x.org/1.jpg"], "caption": ["a golden retriever in the sun"]})
    pq.write_table(table, path)
    return path


def test_every_stage_has_its_settings_even_if_the_file_names_none(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('workspace = "w"\nworkers = 3\n[balance]\ncap = 7\n')
    plan = read_plan(str(tmp_path / "run.toml"))
    assert plan.general.workers == 3
    assert plan.stages.keys() == {stage.name for stage in STAGES}
    assert plan.stages["balance"].model_dump(exclude_unset=True) == {"cap": 7}


def test_all_mistakes_are_named_at_once() -> None:
    tables = {"workers": -1, "balance": {"cap": 0}, "shrad": {}}
    with pytest.raises(ConfigError) as caught:
        make_plan(tables, source="run.toml")
    for mistake in ("run.toml: ", "workers is -1", "balance.cap is 0", "[shrad] is no stage"):
        assert mistake in str(caught.value)


def test_stages_are_chosen_by_their_ends() -> None:
    assert [s.name for s in select_stages("match", "captions")] == ["match", "language", "captions"]
    assert select_stages(None, None) == STAGES
    with pytest.raises(ConfigError, match="--from dedup comes after --to match"):
        select_stages("dedup", "match")
    with pytest.raises(ConfigError, match="--to is 'end', expected one of: ingest"):
        select_stages(None, "end")


def test_missing_evaluation_sets_are_found_before_the_work(tmp_path: Path) -> None:
    plan = make_plan({"workspace": str(tmp_path / "w")}, source="run.toml")
    with pytest.raises(ConfigError, match=r"evaluate\.evalsets is empty"):
        run_plan(plan)
    assert not (tmp_path / "w").exists()


def test_a_run_without_a_workspace_is_refused() -> None:
    with pytest.raises(ConfigError, match="workspace is missing"):
        run_plan(make_plan({}, source="run.toml"), last="ingest")


def test_the_stages_of_a_plan_run_in_order(tmp_path: Path, captions: Path) -> None:
    tables = {"workspace": str(tmp_path / "w"), "workers": 0, "ingest": {"inputs": [str(captions)]}}
    manifests = run_plan(make_plan(tables, source="run.toml"), last="balance")
    assert [m.stage for m in manifests] == ["ingest", "match", "language", "captions", "balance"]
    assert manifests[-1].rows_out == 1


def test_stages_left_out_that_ran_with_other_settings_are_named(
    tmp_path: Path, captions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {"workspace": str(tmp_path / "w"), "workers": 0, "ingest": {"inputs": [str(captions)]}}
    run_plan(make_plan(tables, source="run.toml"), last="language")
    later = make_plan(tables | {"match": {"rules": "metaclip"}}, source="run.toml")
    run_plan(later, first="language", last="language")
    said = capsys.readouterr().err
    assert "match      is left as it was run, with other settings than the file's: rules" in said
    assert "ingest     is left" not in said


def test_options_win_over_the_file(tmp_path: Path, captions: Path) -> None:
    plan = tmp_path / "run.toml"
    plan.write_text(
        f'drops = "sample"\nworkers = 0\n[ingest]\ninputs = ["{captions}"]\n[balance]\ncap = 5\n'
    )
    workspace = Workspace(root=str(tmp_path / "w"))
    common = ["-w", workspace.root, "--config", str(plan)]
    for command in ("ingest", "match", "language", "captions"):
        assert main([command, *common]) == 0
    assert main(["balance", *common, "--seed", "3"]) == 0
    settings = workspace.finished("balance").settings
    assert (settings["cap"], settings["seed"]) == (5, 3)


def test_a_missing_extra_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # None in sys.modules is how Python itself marks what cannot be imported.
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert main(["download", "-w", str(tmp_path / "w")]) == 1
    line = capsys.readouterr().err
    assert "download needs simplejpeg; install witmill with its extra" in line
    assert not (tmp_path / "w").exists()


def test_a_wrong_table_in_the_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text("ingest = 5\n")
    arguments = [
        "ingest",
        "x.csv",
        "-w",
        str(tmp_path / "w"),
        "--config",
        str(tmp_path / "run.toml"),
    ]
    assert main(arguments) == 1
    assert "ingest is not a setting" in capsys.readouterr().err
