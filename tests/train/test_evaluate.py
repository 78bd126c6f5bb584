from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import schemas
from pipeline.errors import ConfigError, CorruptWorkspace, InputError, MissingInput
from pipeline.runtime.executor import Executor, make_executor
from pipeline.runtime.manifest import DROPS, MAIN, Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import COLOURS, coloured_pairs, png
from train import evaluate, loop
from train.config import EvaluateConfig, TrainConfig

TRAINING = TrainConfig(
    model="ViT-mini", batch_size=32, steps=40, warmup_steps=4, threads=1, device="cpu"
)


@pytest.fixture
def inline() -> Executor:
    return make_executor("local", workers=0)


@pytest.fixture
def evalsets(tmp_path: Path) -> Path:
    """Make a set of 40 new pictures in four classes, and the file that names it."""
    rng = np.random.default_rng(1)
    for name, colour in COLOURS.items():
        folder = tmp_path / "colours" / f"{name}_thing"
        folder.mkdir(parents=True)
        for i in range(10):
            rgb = np.clip(np.array(colour) + rng.integers(-25, 25, (20, 30, 3)), 0, 255)
            (folder / f"{i}.png").write_bytes(png(rgb.astype(np.uint8)))
    labels = ", ".join(f'{name}_thing = "{name}"' for name in COLOURS)
    file = tmp_path / "evalsets.toml"
    file.write_text(
        f"""
        [colours]
        path = "colours"
        prompts = ["a picture painted {{label}}", "{{label}}"]
        labels = {{ {labels} }}
        """
    )
    return file


@pytest.fixture
def trained(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> Workspace:
    finish_shards(coloured_pairs(120), per_shard=50)
    loop.run(TRAINING, workspace, inline)
    return workspace


def config(evalsets: Path) -> EvaluateConfig:
    return EvaluateConfig(evalsets=str(evalsets), batch_size=16, threads=1, device="cpu")


def test_a_trained_model_tells_new_pictures_apart(
    trained: Workspace, evalsets: Path, inline: Executor
) -> None:
    broken = evalsets.parent / "colours" / "red_thing" / "x.png"
    broken.write_bytes(b"no picture")
    manifest = evaluate.run(config(evalsets), trained, inline)
    assert (manifest.rows_in, manifest.rows_out, manifest.drops) == (41, 40, {"broken_image": 1})
    assert set(manifest.drops) <= set(EvaluateConfig.reasons)
    rows = trained.read_table("evaluate", MAIN, schemas.EVALUATIONS).to_pylist()
    top1 = {row["metric"]: row for row in rows}["top1"]
    assert top1["value"] >= 0.9
    assert top1["low"] < top1["value"]
    assert (top1["chance"], top1["images"], top1["classes"]) == (0.25, 40, 4)
    predictions = trained.read_table("evaluate", "predictions", schemas.PREDICTIONS).to_pylist()
    assert [p["item"] for p in predictions] == sorted(p["item"] for p in predictions)
    right = [p for p in predictions if p["predicted"] == p["label"]]
    assert len(right) == round(top1["value"] * 40) == sum(p["rank"] == 1 for p in predictions)
    (drop,) = trained.read_table("evaluate", DROPS, schemas.DROPS).to_pylist()
    assert drop["detail"].startswith("colours/red_thing/x.png: not_an_image")
    assert evaluate.run(config(evalsets), trained, inline) == manifest


def test_a_set_without_a_whole_picture_is_one_line(
    trained: Workspace, tmp_path: Path, inline: Executor
) -> None:
    folder = tmp_path / "broken" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"no picture")
    file = tmp_path / "broken.toml"
    file.write_text('[broken]\npath = "broken"\n')
    with pytest.raises(InputError, match=r"broken: none of its 1 pictures can be decoded"):
        evaluate.run(config(file), trained, inline)


def test_a_set_that_names_no_classes_is_left_out(
    trained: Workspace, evalsets: Path, inline: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    (evalsets.parent / "list.txt").write_text("1.jpg#0\tA red thing.\n")
    alone = evalsets.parent / "alone.toml"
    alone.write_text('[captions]\npath = "list.txt"\n')
    with pytest.raises(InputError, match="no evaluation set names the classes"):
        evaluate.run(config(alone), trained, inline)
    evalsets.write_text(evalsets.read_text() + '[captions]\npath = "list.txt"\n')
    manifest = evaluate.run(config(evalsets), trained, inline)
    assert manifest.rows_in == 40
    assert "leaves out captions: it names no classes" in capsys.readouterr().err


def test_a_damaged_model_is_one_line(trained: Workspace, evalsets: Path, inline: Executor) -> None:
    path = Path(trained.path("train/model.pt"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        CorruptWorkspace, match=r"model\.pt is truncated or damaged; delete its folder"
    ):
        evaluate.run(config(evalsets), trained, inline)


def test_missing_inputs_are_one_line(
    workspace: Workspace, evalsets: Path, inline: Executor
) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.evalsets is not set"):
        evaluate.run(EvaluateConfig(), workspace, inline)
    with pytest.raises(MissingInput, match="run `witmill train`"):
        evaluate.run(config(evalsets), workspace, inline)
