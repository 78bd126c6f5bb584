from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError, MissingInput
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import coloured_pairs
from train import dry_run as module
from train.config import TrainConfig, make_plan
from train.dry_run import compute_rate, dry_run

CONFIG = TrainConfig(
    model="ViT-mini", batch_size=16, steps=40, warmup_steps=2, threads=1, readers=1, device="cpu"
)
CPU = torch.device("cpu")


def files(workspace: Workspace) -> dict[str, bytes]:
    root = Path(workspace.root)
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def told(config: TrainConfig, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> str:
    dry_run(config, workspace, seconds=0.05)
    return capsys.readouterr().out


def test_it_says_what_a_run_would_be_and_leaves_the_workspace_alone(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish_shards(coloured_pairs(50))
    before = files(workspace)
    text = told(CONFIG, workspace, capsys)
    assert "ViT-mini, 28 pixels, 24 tokens, embedding 64" in text
    assert "3,737,569 parameters, 469,728 of them of the image tower" in text
    assert "0.021 GFLOP a pair forward, 0.0629 GFLOP a pair and step" in text
    assert "40 steps of 16 pairs, 2 to warm up, learning rate 0.002" in text
    assert "50 samples, 640 shown, 12.8 epochs" in text
    assert "0.06 GB for weights, gradients and the optimiser's averages" in text
    assert "samples/s with 1 thread, measured" in text
    assert "pairs/s on this CPU in fp32, measured on steps of 16 made-up pairs" in text
    assert "of the cores' time" in text
    assert "the run takes 1 minute" in text
    assert files(workspace) == before


def test_micro_batches_and_precision_show_in_the_memory(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish_shards(coloured_pairs(50))
    text = told(
        CONFIG.model_copy(update={"micro_batch": 4, "precision": "bf16"}), workspace, capsys
    )
    assert "40 steps of 16 pairs in micro-batches of 4" in text
    assert "for activations of 4 pairs in bf16" in text
    assert "measured on steps of 4 made-up pairs" in text


def test_a_model_too_large_for_a_cpu_is_timed_on_two_pairs() -> None:
    config = CONFIG.model_copy(update={"model": "RN50"})
    plan = make_plan(config, 50)
    assert module.measured_pairs(plan, 16, CPU) == 2
    assert module.measured_pairs(plan, 16, torch.device("cuda")) == 16


def test_what_does_not_fit_is_said_where_the_speed_would_stand(
    workspace: Workspace,
    finish_shards: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_large(*_: object) -> float:
        raise ConfigError("a step over 16 pairs does not fit")

    monkeypatch.setattr(module, "compute_rate", too_large)
    finish_shards(coloured_pairs(50))
    text = told(CONFIG, workspace, capsys)
    assert "computing  a step over 16 pairs does not fit" in text
    assert "slow one" not in text


def test_steps_are_timed_without_what_prepares_them() -> None:
    plan = make_plan(CONFIG, 50)
    computed = compute_rate(plan, CONFIG, 16, CPU, 0.05)
    assert computed.pairs == 16
    assert computed.rate > 16
    assert computed.peak_bytes == 0


@pytest.mark.parametrize(
    ("device", "loaded", "computed", "expected"),
    [
        ("cuda", 900.0, 450.0, "computing: the loader gives 2.0 times what a GPU takes"),
        (
            "cuda",
            100.0,
            250.0,
            "a GPU takes 250 samples/s, 40% of which it gives; it needs 5 cores",
        ),
        ("cpu", 900.0, 100.0, "computing: of the cores' time 10% goes into loading"),
        ("cpu", 100.0, 900.0, "the loader: of the cores' time 90% goes into loading"),
    ],
)
def test_the_slower_of_the_two_is_named(
    device: str, loaded: float, computed: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_cores", lambda: 2)
    plan = make_plan(CONFIG, 50)
    first, last = module._verdict(loaded, computed, plan, torch.device(device))
    assert expected in first
    assert "the run takes 1 minute" in last


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0.001, "1 minute"), (0.5, "30 minutes"), (7.25, "7.2 hours"), (96, "4.0 days")],
)
def test_durations_are_told_in_units_of_their_size(hours: float, expected: str) -> None:
    assert module._duration(hours) == expected


def test_without_shards_the_command_to_run_is_named(workspace: Workspace) -> None:
    workspace.prepare()
    with pytest.raises(MissingInput, match="run `witmill shard`"):
        dry_run(CONFIG, workspace)


def test_settings_that_do_not_fit_are_said_as_by_a_run(
    workspace: Workspace, finish_shards: Callable[..., Manifest]
) -> None:
    finish_shards(coloured_pairs(50))
    with pytest.raises(ConfigError, match=r"train\.batch_size is 51"):
        dry_run(CONFIG.model_copy(update={"batch_size": 51}), workspace)
