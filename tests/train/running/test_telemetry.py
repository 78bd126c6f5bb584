import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import ConfigError
from tests.train.small_models import VIT
from train.models.costs import flops
from train.running import telemetry as module
from train.running.json_lines import read_json_lines
from train.running.peaks import Peak
from train.running.telemetry import StepReport, Telemetry, peak_memory

CPU = torch.device("cpu")
MEASURED = (
    "samples_per_second",
    "data_seconds",
    "compute_seconds",
    "apart_seconds",
    "elapsed_seconds",
    "memory_bytes",
    "mfu",
)


def begin(path: Path | None, **changes: Any) -> Telemetry:
    settings: dict[str, Any] = {"precision": "fp32", "every": 4, "last": 10} | changes
    return Telemetry(str(path) if path else None, VIT, device=CPU, **settings)


def report(step: int, **changes: Any) -> StepReport:
    values: dict[str, Any] = {
        "step": step,
        "epoch": step // 7,
        "samples": 100 - step,
        "broken": step % 2,
        "loss": 3 / step,
        "logit_scale": 14.0 + step,
        "learning_rate": step / 100,
        "gradient_norm": 1.0 + step,
        "data_seconds": 0.001,
    }
    return StepReport(**values | changes)


def repeatable(path: Path) -> list[dict[str, Any]]:
    """Return all lines without what a clock says."""
    lines = read_json_lines(str(path))
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]


def test_an_interval_tells_means_sums_and_the_last_values(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with begin(path) as telemetry:
        for step in range(1, 11):
            telemetry.step(report(step))
    lines = repeatable(path)
    assert [line["step"] for line in lines] == [4, 8, 10]
    assert lines[1] == {
        "step": 8,
        "epoch": 1,
        "samples": sum(100 - step for step in range(1, 9)),
        "broken": 2,
        "loss": pytest.approx(sum(3 / step for step in range(5, 9)) / 4),
        "logit_scale": 22.0,
        "learning_rate": 0.08,
        "gradient_norm": pytest.approx(7.5),
    }
    assert lines[2]["loss"] == pytest.approx((3 / 9 + 3 / 10) / 2)


def test_the_rate_counts_all_steps_but_a_process_s_first(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with begin(path, every=3, last=7) as telemetry:
        telemetry.step(report(1, data_seconds=99.0))
        for step in (2, 3, 4, 5, 6, 7):
            time.sleep(0.02)
            telemetry.step(report(step, samples=10, data_seconds=0.005))
    first, second, last = read_json_lines(str(path))
    assert first["data_seconds"] == pytest.approx(0.01)
    assert first["compute_seconds"] >= 0.03
    assert 0 < first["samples_per_second"] <= 20 / 0.04
    seconds = second["data_seconds"] + second["compute_seconds"]
    assert second["samples_per_second"] == pytest.approx(30 / seconds)
    assert last["elapsed_seconds"] >= 0.12


def test_an_interval_of_the_first_step_alone_has_no_rate(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with begin(path, every=1, last=1) as telemetry:
        telemetry.step(report(1))
    (line,) = read_json_lines(str(path))
    assert line["samples_per_second"] is None
    assert "samples/s" not in telemetry.figures


def test_time_apart_is_in_no_rate(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with begin(path, every=2, last=2) as telemetry:
        telemetry.step(report(1))
        with telemetry.apart():
            time.sleep(0.2)
        telemetry.step(report(2, samples=10))
    (line,) = read_json_lines(str(path))
    assert 0.2 <= line["apart_seconds"] < line["elapsed_seconds"]
    assert line["compute_seconds"] < 0.1
    assert line["samples_per_second"] > 100


@pytest.mark.parametrize("stopped", [3, 4, 6])
def test_a_run_that_goes_on_has_the_lines_of_one_left_alone(tmp_path: Path, stopped: int) -> None:
    alone, killed = tmp_path / "alone.jsonl", tmp_path / "killed.jsonl"
    with begin(alone) as telemetry:
        for step in range(1, 11):
            telemetry.step(report(step))
    first = begin(killed)
    for step in range(1, 10):
        first.step(report(step))
        if step == stopped:
            state = first.state_dict()
    # Steps after the checkpoint, and a line cut short, as SIGKILL leaves them.
    with killed.open("a") as file:
        file.write('{"step": 10, "lo')
    with begin(killed, state=state) as telemetry:
        for step in range(stopped + 1, 11):
            telemetry.step(report(step))
    assert repeatable(killed) == repeatable(alone)


def test_a_gradient_norm_that_is_no_number_is_left_out_of_the_mean(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with begin(path) as telemetry:
        for step, norm in enumerate((1.0, float("inf"), None, 3.0), start=1):
            telemetry.step(report(step, gradient_norm=norm))
        for step in range(5, 9):
            telemetry.step(report(step, gradient_norm=float("nan")))
    lines = repeatable(path)
    assert [line["gradient_norm"] for line in lines] == [2.0, None]


def test_mfu_is_three_passes_by_formula_over_all_devices_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peak = Peak(flops=1e9, source="the test")
    monkeypatch.setattr(module, "known_peak", lambda device, precision: peak)
    path = tmp_path / "metrics.jsonl"
    with begin(path, every=2, last=2, world_size=4, patch_dropout=0.5) as telemetry:
        telemetry.step(report(1))
        telemetry.step(report(2))
    (line,) = read_json_lines(str(path))
    done = line["samples_per_second"] * 3 * flops(VIT, patch_dropout=0.5)
    assert line["mfu"] == pytest.approx(done / (4 * 1e9))
    assert telemetry.figures["MFU"]


def test_on_a_cpu_mfu_is_left_out_and_memory_is_the_resident_peak(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with begin(path, every=1, last=1) as telemetry:
        telemetry.step(report(1))
    (line,) = read_json_lines(str(path))
    assert line["mfu"] is None
    assert 50e6 < line["memory_bytes"] <= peak_memory(CPU)
    assert "MFU" not in telemetry.figures


def test_evaluations_stand_among_the_lines_and_are_cut_with_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with begin(path) as telemetry:
        for step in range(1, 5):
            telemetry.step(report(step))
        telemetry.evaluated(4, {"cifar10/top1": 0.5})
        state = telemetry.state_dict()
        telemetry.evaluated(5, {"cifar10/top1": 0.6})
    assert read_json_lines(str(path))[1] == {"step": 4, "evaluation": {"cifar10/top1": 0.5}}
    begin(path, state=state)
    assert len(read_json_lines(str(path))) == 2


def test_without_a_path_nothing_is_written_and_figures_are_there(tmp_path: Path) -> None:
    with begin(None, tensorboard=str(tmp_path / "board")) as telemetry:
        telemetry.step(report(1))
        telemetry.step(report(2))
        assert telemetry.figures == {"loss": "1.500"}
        for step in range(3, 5):
            telemetry.step(report(step))
        telemetry.flush()
    assert list(telemetry.figures)[:4] == ["loss", "scale", "lr", "gradient"]
    assert telemetry.figures["waiting"].startswith("0.0 of ")  # type: ignore[attr-defined]
    assert not any(tmp_path.iterdir())


def test_without_tensorboard_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="tensorboard is not installed; pip install tensorboard"):
        begin(tmp_path / "metrics.jsonl", tensorboard=str(tmp_path / "board"))


def test_curves_are_written_for_tensorboard_and_steps_of_a_killed_run_hidden(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = tmp_path / "board"
    first = begin(tmp_path / "metrics.jsonl", tensorboard=str(board))
    for step in range(1, 9):
        first.step(report(step))
        if step == 4:
            state = first.state_dict()
    first.flush()
    with begin(tmp_path / "metrics.jsonl", tensorboard=str(board), state=state) as telemetry:
        for step in range(5, 11):
            telemetry.step(report(step))
        telemetry.evaluated(10, {"cifar10/top1": 0.5})
    events = EventAccumulator(str(board))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [4, 8, 10]
    assert events.Scalars("train/learning_rate")[-1].value == pytest.approx(0.1)
    assert [event.value for event in events.Scalars("evaluation/cifar10/top1")] == [0.5]
