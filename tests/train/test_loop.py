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
import torch
from torch import Tensor

from pipeline import schemas
from pipeline.errors import ConfigError, CorruptWorkspace, InputError, MissingInput, WitmillError
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor, make_executor
from pipeline.runtime.manifest import MAIN, Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import colour_set, coloured_pairs
from train import loop
from train.config import TrainConfig
from train.running.checkpoint import load_checkpoint, load_model
from train.running.training import Training

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


@pytest.mark.parametrize(
    "settings",
    [{}, {"ema_decay": 0.9, "micro_batch": 6, "patch_dropout": 0.3, "max_gradient_norm": 1.0}],
    ids=["plain", "options"],
)
def test_a_run_killed_twice_ends_like_one_left_alone(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    tmp_path: Path,
    settings: dict[str, float],
) -> None:
    finish_shards(coloured_pairs(50))
    config = CONFIG.model_copy(update={"steps": 40, **settings})
    alone, killed = Path(workspace.root), tmp_path / "killed"
    shutil.copytree(alone, killed)
    undisturbed = start(config, alone)
    run_and_kill(config, killed, "step-00000006.pt", 0.03)
    run_and_kill(config, killed, "step-00000018.pt", 0.0)
    assert not (killed / "train" / "manifest.json").exists()
    assert start(config, killed).wait() == 0
    assert undisturbed.wait() == 0
    names = ["00000.parquet", "model.pt", *(["model_ema.pt"] if settings else [])]
    for name in names:
        assert (killed / "train" / name).read_bytes() == (alone / "train" / name).read_bytes()
    kept = sorted(p.name for p in (killed / "train" / "checkpoints").iterdir())
    assert kept == ["step-00000039.pt", "step-00000040.pt"]
    lines = (killed / "train" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30, 40]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_a_checkpoint(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    inline: Executor,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    finish_shards(coloured_pairs(50))
    at_step(monkeypatch, 4, lambda: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt):
        loop.run(CONFIG, workspace, inline)
    monkeypatch.undo()
    # The step in hand, the fifth, is finished; the signal is seen before the next.
    path = workspace.path("train/checkpoints/step-00000005.pt")
    said = f"stops after step 5 of 12, as {number.name} asks; {path} is saved"
    assert said in capfd.readouterr().err
    loop.run(CONFIG, workspace, inline)
    assert "goes on from step 5 of 12" in capfd.readouterr().err


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


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[], object]) -> None:
    """Have `do` called when `step` steps have been taken, before the next."""
    take_step = Training.take_step

    def take(training: Training, *batch: Tensor) -> object:
        if training.step == step:
            do()
        return take_step(training, *batch)

    monkeypatch.setattr(Training, "take_step", take)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def stop() -> None:
        raise InterruptedError

    at_step(monkeypatch, step, stop)


def test_settings_that_do_not_fit_leave_the_earlier_model_alone(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    finish_shards(coloured_pairs(50))
    short = CONFIG.model_copy(update={"steps": 3})
    manifest = loop.run(short, workspace, inline)
    with pytest.raises(ConfigError, match=r"train\.batch_size is 51"):
        loop.run(short.model_copy(update={"batch_size": 51}), workspace, inline)
    assert workspace.finished("train") == manifest


def test_a_loss_that_is_no_number_stops_the_run_and_leads_back_to_the_last_good_checkpoint(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    inline: Executor,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    finish_shards(coloured_pairs(50))
    wild = CONFIG.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    with pytest.raises(ConfigError, match=r"nan at step 2; no checkpoint has been saved yet"):
        loop.run(wild, workspace, inline)

    def spoil_pixels(training: Training, pixels: Tensor, tokens: Tensor) -> object:
        pixels = pixels * float("inf") if training.step == 7 else pixels
        return take_step(training, pixels, tokens)

    take_step = Training.take_step
    monkeypatch.setattr(Training, "take_step", spoil_pixels)
    good = workspace.path("train/checkpoints/step-00000006.pt")
    with pytest.raises(
        ConfigError,
        match=f"the loss is nan at step 8; the last good checkpoint, of step 6, is kept: {good}; go on",
    ):
        loop.run(CONFIG, workspace, inline)
    monkeypatch.undo()
    before = Path(good).read_bytes()
    slower = CONFIG.model_copy(update={"learning_rate": 1e-4, "resume": good})
    stop_at(monkeypatch, 8)
    with pytest.raises(InterruptedError):
        loop.run(slower, workspace, inline)
    monkeypatch.undo()
    assert "goes on from step 6 of 12" in capfd.readouterr().err
    assert Path(good).read_bytes() == before
    # Given again, as in the script of a job, it goes on from the run's own checkpoint.
    loop.run(slower, workspace, inline)
    rates = workspace.read_table("train", MAIN, schemas.TRAINING_STEPS)["learning_rate"].to_pylist()
    assert rates[5] > 1e-4 > rates[6]


def test_latest_goes_on_or_begins_but_never_builds_anew(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    inline: Executor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish_shards(coloured_pairs(50))
    latest = CONFIG.model_copy(update={"resume": "latest"})
    stop_at(monkeypatch, 7)
    with pytest.raises(InterruptedError):
        loop.run(latest, workspace, inline)
    other = latest.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(ConfigError, match=r"made from something else: setting learning_rate"):
        loop.run(other, workspace, inline)
    moved = latest.model_copy(
        update={"threads": 2, "micro_batch": 8, "gradient_checkpointing": True}
    )
    monkeypatch.undo()
    at_step(monkeypatch, 6, lambda: monkeypatch.setattr(Training, "take_step", None))
    with pytest.raises(TypeError):
        loop.run(moved, workspace, inline)
    monkeypatch.undo()
    assert loop.run(latest, workspace, inline).rows_out == 50


def test_never_begins_anew(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    inline: Executor,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    finish_shards(coloured_pairs(50))
    stop_at(monkeypatch, 7)
    with pytest.raises(InterruptedError):
        loop.run(CONFIG, workspace, inline)
    monkeypatch.undo()
    manifest = loop.run(CONFIG.model_copy(update={"resume": "never"}), workspace, inline)
    assert "goes on" not in capfd.readouterr().err
    assert manifest.rows_out == 50


def test_a_checkpoint_that_does_not_fit_leaves_the_earlier_model_alone(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor, tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(50))
    manifest = loop.run(CONFIG, workspace, inline)
    checkpoint = str(tmp_path / "mine.pt")
    shutil.copy(workspace.path("train/checkpoints/step-00000009.pt"), checkpoint)
    for settings, message in (
        ({"steps": 8}, "is of step 9, expected one before the last, 8"),
        ({"steps": 20, "quick_gelu": False}, "is of another model than train.model, quick_gelu"),
        ({"resume": workspace.path("train/model.pt"), "steps": 20}, "is no checkpoint of this"),
        ({"resume": str(tmp_path / "none.pt")}, "cannot read"),
        (
            {"resume": "auto", "initial": workspace.path("train/model.pt")},
            "the stage itself writes",
        ),
        ({"steps": 20, "seed": 1}, r"mine\.pt.* with another seed, window or weights"),
        ({"resume": "auto", "initial": checkpoint, "quick_gelu": False}, "the other activation"),
        ({"resume": "auto", "initial": __file__}, "is no whole file of weights"),
    ):
        config = CONFIG.model_copy(update={"resume": checkpoint, **settings})
        with pytest.raises(WitmillError, match=message):
            loop.run(config, workspace, inline)
        assert workspace.finished("train") == manifest
    more = CONFIG.model_copy(update={"resume": checkpoint, "steps": 14})
    loop.run(more, workspace, inline)
    assert workspace.read_table("train", MAIN, schemas.TRAINING_STEPS).num_rows == 14


def test_a_checkpoint_stays_by_whatever_name_its_folder_is_called(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor, tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(50))
    loop.run(CONFIG.model_copy(update={"steps": 6}), workspace, inline)
    link = tmp_path / "link"
    link.symlink_to(workspace.root)
    inside = CONFIG.model_copy(update={"initial": str(link / "train" / "model.pt")})
    with pytest.raises(ConfigError, match="the stage itself writes"):
        loop.run(inside, workspace, inline)
    given = str(link / "train" / "checkpoints" / "step-00000006.pt")
    loop.run(CONFIG.model_copy(update={"steps": 8, "resume": given}), workspace, inline)
    assert workspace.read_table("train", MAIN, schemas.TRAINING_STEPS).num_rows == 8


def test_checkpoints_come_by_the_minute_too(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    inline: Executor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish_shards(coloured_pairs(50))
    config = CONFIG.model_copy(update={"checkpoint_every": 500, "checkpoint_minutes": 1e-9})
    stop_at(monkeypatch, 5)
    with pytest.raises(InterruptedError):
        loop.run(config, workspace, inline)
    kept = sorted(p.name for p in Path(workspace.path("train/checkpoints")).iterdir())
    assert kept == ["step-00000004.pt", "step-00000005.pt"]


def test_a_checkpoint_is_tuned_further_on_labelled_pictures(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor, tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(50))
    loop.run(CONFIG, workspace, inline)
    evalsets = colour_set(tmp_path)
    tuned = CONFIG.model_copy(
        update={
            "initial": workspace.path("train/checkpoints/step-00000009.pt"),
            "sources": evalsets,
            "cache": str(tmp_path / "cache"),
            "batch_size": 8,
            "learning_rate": 1e-9,
            "warmup_steps": 0,
            "steps": 1,
        }
    )
    other = Workspace(root=str(tmp_path / "tuned"))
    assert loop.run(tuned, other, inline).inputs == {}
    before = load_checkpoint(tuned.initial).model
    model = load_model(other.path("train/model.pt"))
    torch.testing.assert_close(model.state_dict()["visual.proj"], before["visual.proj"])
    assert loop.run(tuned, other, inline).rows_in == 15


def test_zero_shot_accuracy_is_measured_on_the_way(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor, tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(50))
    sets = colour_set(tmp_path, broken=1)
    config = CONFIG.model_copy(
        update={"steps": 30, "ema_decay": 0.5, "evalsets": sets, "evaluate_every": 12}
    )
    loop.run(config, workspace, inline)
    rows = workspace.read_table("train", "evaluations", schemas.TRAINING_EVALUATIONS).to_pylist()
    assert [(row["step"], row["weights"]) for row in rows] == [
        (step, weights) for step in (12, 24, 30) for weights in ("trained", "averaged")
    ]
    assert {(row["evalset"], row["images"], row["broken"]) for row in rows} == {("colours", 15, 1)}
    assert rows[-1]["top1"] > 0.5
    assert rows[-1]["samples"] == 30 * 16
    lines = Path(workspace.path("train/metrics.jsonl")).read_text().splitlines()
    measured = [json.loads(line) for line in lines if "evaluation" in line]
    assert [line["step"] for line in measured] == [12, 24, 30]
    plain = workspace.path("train/00000.parquet")
    before = Path(plain).read_bytes()
    again = config.model_copy(
        update={"evalsets": "", "resume": "never", "seed": 0, "batch_size": 16}
    )
    shutil.rmtree(workspace.path("train"))
    loop.run(again, workspace, inline)
    assert Path(plain).read_bytes() == before


def test_pictures_that_cannot_be_measured_on_cost_no_steps(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor, tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(50))
    evalsets = colour_set(tmp_path)
    for picture in tmp_path.rglob("*.png"):
        picture.write_bytes(b"no picture")
    config = CONFIG.model_copy(
        update={"evalsets": evalsets, "evaluate_every": 4, "checkpoint_every": 500}
    )
    for kept in (["step-00000004.pt"], ["step-00000004.pt", "step-00000008.pt"]):
        with pytest.raises(InputError, match="none of its 15 pictures can be decoded"):
            loop.run(config, workspace, inline)
        found = Path(workspace.path("train/checkpoints")).iterdir()
        assert sorted(path.name for path in found) == kept


def test_a_gpu_that_is_not_there_is_one_line(
    workspace: Workspace, finish_shards: Callable[..., Manifest], inline: Executor
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    finish_shards(coloured_pairs(50))
    with pytest.raises(ConfigError, match="device is cuda, but torch finds none"):
        loop.run(CONFIG.model_copy(update={"device": "cuda"}), workspace, inline)
