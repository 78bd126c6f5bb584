import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import schemas
from pipeline.errors import (
    ConfigError,
    CorruptWorkspace,
    InputError,
    MissingInput,
    StorageError,
    TaskFailed,
)
from pipeline.runtime.executor import Executor, make_executor
from pipeline.runtime.manifest import DROPS, MAIN, Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.evaluation.pictures import coloured_set
from tests.train.shards import COLOURS, coloured_pairs, png
from tests.train.small_models import VIT, build
from train import loop
from train.config import TrainConfig
from train.evaluation import heads, stage
from train.evaluation.config import EvaluateConfig
from train.evaluation.features import Features, write_features
from train.evaluation.heads import Head
from train.evaluation.results import HeadResult
from train.evaluation.subject import Subject
from train.running.checkpoint import save_model

TRAINING = TrainConfig(
    model="ViT-mini", batch_size=32, steps=40, warmup_steps=4, threads=1, device="cpu"
)


@pytest.fixture
def inline() -> Executor:
    return make_executor("local", workers=0)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Save a model of random weights, in open_clip's layout."""
    path = tmp_path / "model.pt"
    save_model(str(path), build(VIT))
    return str(path)


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Make a set of 24 pictures in four classes and two splits, and the file that names it."""
    coloured_set(tmp_path / "colours" / "test", 4)
    coloured_set(tmp_path / "colours" / "train", 2, seed=1)
    file = tmp_path / "sets.toml"
    file.write_text('[colours]\npath = "colours"\nsplit = "test"\ntrain = "train"\n')
    return file


def config(sets: Path, model: str = "", **settings: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate(
        {"evalsets": str(sets), "model": model, "batch_size": 16, "threads": 1, "device": "cpu"}
        | settings
    )


def test_a_trained_model_tells_new_pictures_apart(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    sets: Path,
    inline: Executor,
) -> None:
    finish_shards(coloured_pairs(120), per_shard=50)
    loop.run(TRAINING, workspace, inline)
    sets.write_text(sets.read_text() + 'prompts = ["a picture painted {label}", "{label}"]\n')
    for i in range(4, 10):
        for name, colour in COLOURS.items():
            rgb = np.full((9, 9, 3), colour, np.uint8) + np.uint8(i)
            (sets.parent / "colours" / "test" / name / f"{i}.png").write_bytes(png(rgb))
    broken = sets.parent / "colours" / "test" / "red" / "x.png"
    broken.write_bytes(b"no picture")
    manifest = stage.run(config(sets), workspace, inline)
    assert (manifest.rows_in, manifest.rows_out, manifest.drops) == (41, 40, {"broken_image": 1})
    assert set(manifest.drops) <= set(EvaluateConfig.reasons)
    rows = workspace.read_table("evaluate", MAIN, schemas.EVALUATIONS).to_pylist()
    assert {(row["head"], row["variant"]) for row in rows} == {("zero_shot", "own")}
    top1 = {row["metric"]: row for row in rows}["top1"]
    assert top1["value"] >= 0.9
    assert top1["low"] < top1["value"]
    assert (top1["chance"], top1["images"], top1["classes"]) == (0.25, 40, 4)
    predictions = workspace.read_table("evaluate", "predictions", schemas.PREDICTIONS).to_pylist()
    assert [p["item"] for p in predictions] == sorted(p["item"] for p in predictions)
    assert {p["split"] for p in predictions} == {"test"}
    right = [p for p in predictions if p["predicted"] == p["label"]]
    assert len(right) == round(top1["value"] * 40) == sum(p["rank"] == 1 for p in predictions)
    (drop,) = workspace.read_table("evaluate", DROPS, schemas.DROPS).to_pylist()
    assert drop["detail"].startswith("colours/test/red/x.png: not_an_image")
    assert stage.run(config(sets), workspace, inline) == manifest


def test_a_given_model_needs_no_training(
    workspace: Workspace, model: str, sets: Path, inline: Executor
) -> None:
    chosen = config(sets, model, templates="own,plain", heads="zero_shot")
    manifest = stage.run(chosen, workspace, inline)
    assert manifest.inputs == {}
    assert set(manifest.files) == {"evaluation sets", "colours", "weights of the model"}
    rows = workspace.read_table("evaluate", MAIN, schemas.EVALUATIONS).to_pylist()
    found = {(row["head"], row["variant"]) for row in rows}
    assert found == {("zero_shot", "own"), ("zero_shot", "plain")}
    results = json.loads(Path(workspace.path("evaluate/results.json")).read_text())
    assert results["model"]["embedding"] == 16
    (of_set,) = results["sets"]
    assert [head["head"] for head in of_set["heads"]] == ["zero_shot"]
    assert [row for head in of_set["heads"] for row in head["rows"]] == [
        {key: row[key] for key in row if key not in ("evalset", "head")} for row in rows
    ]
    text = Path(workspace.path("evaluate/results.md")).read_text()
    assert "| colours | zero_shot | plain | top1 |" in text
    assert "files/colours/zero_shot/worst.png" in text
    assert Path(workspace.path("evaluate/files/colours/zero_shot/worst.png")).stat().st_size
    assert "colours" in Path(workspace.path("evaluate/report.html")).read_text()
    classes = workspace.read_table("evaluate", "classes", schemas.CLASS_RESULTS).to_pylist()
    mixed_up = workspace.read_table("evaluate", "confusions", schemas.CONFUSIONS).to_pylist()
    for variant in ("own", "plain"):
        wrong = sum(c["images"] for c in mixed_up if c["variant"] == variant)
        shares = [c["value"] * c["images"] for c in classes if c["variant"] == variant]
        assert round(sum(shares)) + wrong == 16


def test_two_runs_write_the_same(tmp_path: Path, model: str, sets: Path, inline: Executor) -> None:
    tables = []
    for name in ("a", "b"):
        space = Workspace(root=str(tmp_path / name))
        tables.append(stage.run(config(sets, model, readers=1 + len(tables)), space, inline).tables)
    assert tables[0] == tables[1]


class Killed(BaseException):
    """Ends a run on the spot, as a signal does."""


def test_a_killed_run_does_nothing_twice(
    workspace: Workspace,
    model: str,
    sets: Path,
    inline: Executor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coloured_set(sets.parent / "more", 2)
    sets.write_text(sets.read_text() + '[more]\npath = "more"\ntrain = "train"\n')
    done: list[str] = []

    def note(name: str, kill: str) -> None:
        def measure(subject: Subject) -> HeadResult:
            task = f"{name} of {subject.evalset.name}"
            if task == kill:
                raise Killed
            done.append(task)
            return HeadResult(rows=[], notes={"mean": float(subject.test.vectors_ND.mean())})

        monkeypatch.setitem(heads.HEADS, name, Head(needs=("classes",), measure=measure))  # type: ignore[arg-type]

    def write(path: str, features: Features) -> None:
        done.append("pictures")
        write_features(path, features)

    monkeypatch.setattr("train.evaluation.embedder.write_features", write)
    chosen = config(sets, model, heads=["zero_shot", "few_shot"])
    note("zero_shot", kill="")
    note("few_shot", kill="few_shot of more")
    with pytest.raises(Killed):
        stage.run(chosen, workspace, inline)
    first = ["pictures", "zero_shot of colours", "few_shot of colours", "pictures"]
    assert done == [*first, "zero_shot of more"]
    done.clear()
    note("few_shot", kill="")
    manifest = stage.run(chosen, workspace, inline)
    assert done == ["few_shot of more"]
    assert (manifest.rows_in, manifest.resumed_tasks) == (24, 5)


def test_more_heads_and_sets_compute_no_features_twice(
    workspace: Workspace, model: str, sets: Path, inline: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run(config(sets, model), workspace, inline)
    before = {path.name for path in Path(workspace.path("features")).iterdir()}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the image tower is at work")

    monkeypatch.setattr("train.models.image_tower.VisionTransformer.forward", refuse)
    monkeypatch.setattr("train.models.image_tower.VisionTransformer.features", refuse)
    stage.run(config(sets, model, templates=["own", "plain"]), workspace, inline)
    after = {path.name for path in Path(workspace.path("features")).iterdir()}
    assert len(after - before) == 1
    assert before <= after


def test_a_set_that_cannot_be_read_keeps_none_of_the_others_from_being_measured(
    workspace: Workspace, model: str, sets: Path, inline: Executor
) -> None:
    folder = sets.parent / "broken" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"no picture")
    sets.write_text('[broken]\npath = "broken"\n' + sets.read_text())
    message = "2 of 4 tasks failed .*: evaluation set broken: none of its 1 pictures can be decoded"
    with pytest.raises(TaskFailed, match=message):
        stage.run(config(sets, model), workspace, inline)
    assert list(Path(workspace.path("evaluate/predictions")).glob("*.parquet"))


def test_a_set_that_suits_no_head_is_left_out(
    workspace: Workspace,
    model: str,
    sets: Path,
    inline: Executor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (sets.parent / "list.txt").write_text("1.jpg#0\tA red thing.\n")
    alone = sets.parent / "alone.toml"
    alone.write_text('[captions]\npath = "list.txt"\n')
    with pytest.raises(
        InputError,
        match="no evaluation set suits zero_shot, retrieval: expected one with classes, or captions",
    ):
        stage.run(config(alone, model), workspace, inline)
    sets.write_text(sets.read_text() + '[captions]\npath = "list.txt"\n')
    manifest = stage.run(config(sets, model), workspace, inline)
    assert manifest.rows_in == 16
    said = capsys.readouterr().err
    assert "leaves out captions: it names no classes, it has no captions with pictures" in said


def test_a_head_that_cannot_learn_is_not_tried(
    workspace: Workspace, model: str, sets: Path, inline: Executor
) -> None:
    sets.write_text('[colours]\npath = "colours"\n')
    with pytest.raises(
        InputError,
        match="no evaluation set suits linear_probe: expected one with classes and train",
    ):
        stage.run(config(sets, model, heads="linear_probe"), workspace, inline)


def test_what_heads_learn_from_is_needed_where_they_are_asked_for(
    workspace: Workspace, model: str, sets: Path, inline: Executor
) -> None:
    sets.write_text('[colours]\npath = "colours/test"\ntrain = { path = "colours/train" }\n')
    done = stage.run(config(sets, model, heads="zero_shot,few_shot", shots=[1]), workspace, inline)
    assert "colours, train" in done.files
    (sets.parent / "colours" / "train").rename(sets.parent / "elsewhere")
    stage.run(config(sets, model), workspace, inline)
    with pytest.raises(StorageError, match="colours/train"):
        stage.run(config(sets, model, heads="few_shot"), workspace, inline)


def test_a_file_that_is_no_model_is_one_line(
    workspace: Workspace, tmp_path: Path, sets: Path, inline: Executor
) -> None:
    wrong = tmp_path / "wrong.pt"
    torch.save({"fc.weight": torch.zeros(2)}, wrong)
    with pytest.raises(InputError, match="no image tower and text tower of CLIP's"):
        stage.run(config(sets, str(wrong), quick_gelu=True), workspace, inline)
    with pytest.raises(StorageError, match=r"absent\.pt"):
        stage.run(config(sets, str(tmp_path / "absent.pt")), workspace, inline)


def test_a_damaged_model_of_the_workspace_is_one_line(
    workspace: Workspace,
    finish_stage: Callable[..., Manifest],
    sets: Path,
    inline: Executor,
) -> None:
    finish_stage("train", schemas.TRAINING_STEPS, schemas.TRAINING_STEPS.empty_table())
    path = Path(workspace.path("train/model.pt"))
    save_model(str(path), build(VIT))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        CorruptWorkspace, match=r"model\.pt is truncated or damaged; delete its folder"
    ):
        stage.run(config(sets), workspace, inline)


def test_missing_inputs_are_one_line(workspace: Workspace, sets: Path, inline: Executor) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.evalsets is not set"):
        stage.run(EvaluateConfig(), workspace, inline)
    with pytest.raises(MissingInput, match="run `witmill train`"):
        stage.run(config(sets), workspace, inline)


@pytest.mark.parametrize(
    "wrong", [{"heads": "zero_shot,juggling"}, {"templates": ["mine"]}, {"heads": ()}]
)
def test_unknown_heads_and_templates_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"zero_shot|some of: own, paper, plain"):
        EvaluateConfig.model_validate(wrong)
