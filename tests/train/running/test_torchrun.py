"""The stage in several processes that torchrun starts, over gloo."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import schemas
from pipeline.runtime.executor import make_executor
from pipeline.runtime.manifest import MAIN, Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import colour_set, coloured_pairs
from train import loop
from train.config import TrainConfig

ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
OPTIONS = {
    "model": "ViT-mini",
    "batch_size": 17,
    "steps": 12,
    "warmup_steps": 2,
    "checkpoint_every": 3,
    "shuffle_window": 20,
    "threads": 1,
    "readers": 1,
    "device": "cpu",
}
PATIENCE_S = 240

# One rank of a training, with a fault: name, rank and step are the arguments.
FAULTY = """
import os, signal, sys
from pipeline import cli
from pipeline.errors import InputError
from train.running import steps
from train.running import training

fault, rank, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
take_step = training.Training.take_step
upload = steps._uploaded

def fail():
    if fault == "error":
        raise InputError("a disk is gone")
    os.kill(os.getpid(), signal.SIGKILL)

def uploaded(batches, device):
    for number, each in enumerate(upload(batches, device)):
        if os.environ["RANK"] == str(rank) and number == step:
            fail()
        yield each

steps._uploaded = uploaded
raise SystemExit(cli.main(sys.argv[4:]))
"""


def arguments(root: Path, **options: Any) -> list[str]:
    given = {**OPTIONS, **options}
    named = [str(x) for key, value in given.items() for x in (f"--{key.replace('_', '-')}", value)]
    return ["train", "--workspace", str(root), *named]


def torchrun(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*TORCHRUN, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_alone(root: Path, **options: Any) -> Manifest:
    config = TrainConfig(**{**OPTIONS, **options})
    return loop.run(config, Workspace(root=str(root)), make_executor("local", workers=0))


def steps_of(root: Path) -> dict[str, list[float]]:
    workspace = Workspace(root=str(root))
    columns: dict[str, list[float]] = workspace.read_table(
        "train", MAIN, schemas.TRAINING_STEPS
    ).to_pydict()
    return columns


def assert_same_run(root: Path, other: Path) -> None:
    expected, found = steps_of(root), steps_of(other)
    for name in ("step", "epoch", "samples", "learning_rate"):
        assert found[name] == expected[name]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-2)
    one, two = (torch.load(path / "train" / "model.pt")["state_dict"] for path in (root, other))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=3e-3, rtol=0)


@pytest.fixture
def shards(workspace: Workspace, finish_shards: Callable[..., Manifest]) -> Path:
    pairs = coloured_pairs(50)
    pairs[5] = (b"no picture", "a caption")
    finish_shards(pairs)
    return Path(workspace.root)


@pytest.mark.slow
def test_two_processes_train_like_one(shards: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    shutil.copytree(shards, two)
    options = {"evalsets": colour_set(tmp_path), "evaluate_every": 6, "micro_batch": 5}
    process = torchrun("-m", "pipeline.cli", *arguments(two, **options))
    manifest = run_alone(shards, **options)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert said.count("train      12/12 steps") == 1
    assert_same_run(shards, two)
    counters = Workspace(root=str(two)).finished("train").counters
    assert counters == manifest.counters
    assert counters["broken_samples"] == 1
    tables = [
        Workspace(root=str(root)).read_table("train", "evaluations", schemas.TRAINING_EVALUATIONS)
        for root in (shards, two)
    ]
    assert tables[0]["images"].to_pylist() == [15, 15]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(shards: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    shutil.copytree(shards, two)
    process = torchrun("-m", "pipeline.cli", *arguments(two, steps=40))
    deadline = time.monotonic() + PATIENCE_S
    while not (two / "train/checkpoints/step-00000003.pt").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert said.count("as SIGTERM asks") == 1
    assert said.count("witmill: stopped; what is finished is kept") == 1
    kept = sorted(path.name for path in (two / "train/checkpoints").iterdir())
    assert f"{kept[-1]} is saved" in said
    run_alone(two, steps=40)
    run_alone(shards, steps=40)
    expected, found = steps_of(shards), steps_of(two)
    assert found["samples"] == expected["samples"]
    assert found["loss"][:12] == pytest.approx(expected["loss"][:12], rel=1e-4)
    assert found["loss"] == pytest.approx(expected["loss"], abs=0.05)


def test_an_error_in_one_process_ends_all_with_one_line(shards: Path, tmp_path: Path) -> None:
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    process = torchrun(str(script), "error", "1", "4", *arguments(shards))
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert [line for line in said.splitlines() if line.startswith("witmill:")] == [
        "witmill: a disk is gone"
    ]


def test_a_process_that_is_killed_ends_all(shards: Path, tmp_path: Path) -> None:
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    process = torchrun(str(script), "kill", "1", "4", *arguments(shards))
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert "witmill: process 0 of 2 waits for one that has ended" in said
    assert (shards / "train/checkpoints/step-00000003.pt").exists()


def test_a_workspace_at_work_is_one_line(shards: Path) -> None:
    with Workspace(root=str(shards)).locked():
        process = torchrun("-m", "pipeline.cli", *arguments(shards))
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert said.count("witmill:") == 1
