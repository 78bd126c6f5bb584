import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import schemas
from pipeline.errors import ConfigError, CorruptWorkspace, InputError, MissingInput
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor, make_executor
from pipeline.runtime.manifest import MAIN, Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import coloured_pairs
from train import loop
from train.checkpoint import load_model
from train.config import TrainConfig
from train.training import Training

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(
    model="ViT-mini",
    batch_size=16,
    steps=12,
    warmup_steps=2,
    checkpoint_every=3,
    threads=1,
    device="cpu",
    shuffle_window=20,
)
COMMAND = """
import sys
from pipeline.runtime.workspace import Workspace
from train import loop
from train.config import TrainConfig
loop.run(TrainConfig.model_validate_json(sys.argv[2]), Workspace(root=sys.argv[1]), None)
"""


@pytest.fixture
def inline() -> Executor:
    return make_executor("local", workers=0)


def start(config: TrainConfig, root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", COMMAND, str(root), config.model_dump_json()]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True)


def run_and_kill(config: TrainConfig, root: Path, checkpoint: str, delay_s: float) -> None:
    """Start training and kill it `delay_s` after a checkpoint has appeared."""
    process = start(config, root)
    path = root / "train" / "checkpoints" / checkpoint
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert path.exists()


def test_a_run_killed_twice_ends_like_one_left_alone(
    workspace: Workspace, finish_shards: Callable[..., Manifest], tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(50))
    config = CONFIG.model_copy(update={"steps": 40})
    alone, killed = Path(workspace.root), tmp_path / "killed"
    shutil.copytree(alone, killed)
    undisturbed = start(config, alone)
    run_and_kill(config, killed, "step-00000006.pt", 0.03)
    run_and_kill(config, killed, "step-00000018.pt", 0.0)
    assert not (killed / "train" / "manifest.json").exists()
    assert start(config, killed).wait() == 0
    assert undisturbed.wait() == 0
    for name in ("00000.parquet", "model.pt"):
        assert (killed / "train" / name).read_bytes() == (alone / "train" / name).read_bytes()
    kept = sorted(p.name for p in (killed / "train" / "checkpoints").iterdir())
    assert kept == ["step-00000039.pt", "step-00000040.pt"]
    lines = (killed / "train" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30, 40]


def test_training_learns_and_tells_every_step(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    finish_shards(coloured_pairs(50))
    config = CONFIG.model_copy(update={"steps": 30})
    manifest = loop.run(config, workspace, inline)
    steps = workspace.read_table("train", MAIN, schemas.TRAINING_STEPS).to_pydict()
    assert steps["step"] == list(range(1, 31))
    assert steps["samples"] == [16 * (i + 1) for i in range(30)]
    assert steps["epoch"] == [(16 * (i + 1) - 1) // 50 for i in range(30)]
    assert steps["learning_rate"][1] == pytest.approx(2e-3)
    assert steps["loss"][0] == pytest.approx(2.77, abs=0.5)
    assert sum(steps["loss"][-5:]) < 0.8 * sum(steps["loss"][:5])
    assert (manifest.rows_in, manifest.rows_out) == (50, 50)
    assert manifest.counters["parameters"] > 3_000_000
    assert load_model(workspace.path("train/model.pt")).spec.resolution == 28
    assert loop.run(config, workspace, inline) == manifest


def test_broken_samples_are_counted_once_and_listed(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    pairs = coloured_pairs(50)
    pairs[5] = (b"no picture", "a caption")
    finish_shards(pairs)
    manifest = loop.run(CONFIG, workspace, inline)
    assert manifest.counters["broken_samples"] == 1
    assert manifest.counters["broken_reads"] > 1
    (row,) = workspace.read_table("train", "broken", schemas.DROPS).to_pylist()
    assert (row["pair_id"], row["reason"]) == (f"{5:032x}", "not_an_image")
    assert row["detail"].startswith("shard/00000.tar: ")


def test_a_workspace_in_object_storage_trains_and_resumes_alike(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    inline: Executor,
    s3_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish_shards(coloured_pairs(50))
    remote = Workspace(root=f"{s3_bucket}/run")
    for path in storage.list_inside(workspace.root):
        name = path.removeprefix(workspace.root).lstrip("/")
        storage.write_bytes(remote.path(name), storage.read_bytes(path))
    stop_at(monkeypatch, 5)
    with pytest.raises(InterruptedError):
        loop.run(CONFIG, remote, inline)
    monkeypatch.undo()
    assert loop.run(CONFIG, remote, inline).content == loop.run(CONFIG, workspace, inline).content
    assert load_model(remote.path("train/model.pt")).spec.embed == 64


def test_too_many_broken_samples_stop_the_run(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    finish_shards([(b"no picture", "a caption")] * 8 + coloured_pairs(24))
    with pytest.raises(InputError, match=r"of 16 samples of a batch are broken, such as 0+\d in"):
        loop.run(CONFIG, workspace, inline)
    finish_shards([(b"no picture", "a caption")] * 32, made_by="damage")
    with pytest.raises(InputError, match="16 of 16 samples"):
        loop.run(CONFIG.model_copy(update={"max_broken": 1.0}), workspace, inline)


def test_without_shards_the_command_to_run_is_named(workspace: Workspace, inline: Executor) -> None:
    workspace.prepare()
    with pytest.raises(MissingInput, match=r"shard has not finished .* run `witmill shard`"):
        loop.run(CONFIG, workspace, inline)


def test_a_damaged_checkpoint_is_one_line(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    inline: Executor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish_shards(coloured_pairs(50))
    stop_at(monkeypatch, 7)
    with pytest.raises(InterruptedError):
        loop.run(CONFIG, workspace, inline)
    monkeypatch.undo()
    path = Path(workspace.path("train/checkpoints/step-00000006.pt"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CorruptWorkspace, match="damaged; delete it to go on from step 3"):
        loop.run(CONFIG, workspace, inline)
    path.unlink()
    assert loop.run(CONFIG, workspace, inline).rows_out == 50


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    take_step = Training.take_step

    def stop(training: Training, batch: object) -> object:
        if training.step == step:
            raise InterruptedError
        return take_step(training, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "take_step", stop)


def test_settings_that_do_not_fit_leave_the_earlier_model_alone(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    finish_shards(coloured_pairs(50))
    short = CONFIG.model_copy(update={"steps": 3})
    manifest = loop.run(short, workspace, inline)
    with pytest.raises(ConfigError, match=r"train\.batch_size is 51"):
        loop.run(short.model_copy(update={"batch_size": 51}), workspace, inline)
    assert workspace.finished("train") == manifest


def test_a_loss_that_is_no_number_stops_the_run(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    finish_shards(coloured_pairs(50))
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(ConfigError, match=r"the loss is nan at step \d+; set train\.learning_rate"):
        loop.run(config, workspace, inline)


def test_a_gpu_that_is_not_there_is_one_line(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    finish_shards(coloured_pairs(50))
    with pytest.raises(ConfigError, match="device is cuda, but torch finds none"):
        loop.run(CONFIG.model_copy(update={"device": "cuda"}), workspace, inline)
