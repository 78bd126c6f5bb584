"""What a run tells of itself: a line of JSON for every interval of steps, curves, figures to show.

An interval ends at every so many steps of the run and at its last, wherever the run was stopped in
between, so a run that goes on tells of the same intervals as one left alone.
"""

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from pipeline.errors import ConfigError
from pipeline.runtime.progress import say
from train.learning.precision import Resolved
from train.models.costs import flops
from train.models.recipes import ModelSpec
from train.running.json_lines import JsonLines
from train.running.peaks import known_peak

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PASSES = 3
"""Forward passes that a step is worth: the backward pass is two. What is computed anew does not count."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What the loop knows of one step.

    Attributes:
        step: steps made, this one included.
        samples: whole pairs of the global batch; `broken` are those left out.
        gradient_norm: before clipping; None if it was not computed.
        data_seconds: time that this process waited for the batch.
    """

    step: int
    epoch: int
    samples: int
    loss: float
    logit_scale: float
    learning_rate: float
    data_seconds: float
    gradient_norm: float | None = None
    broken: int = 0


@dataclass(kw_only=True)
class _Interval:
    """Sums over the steps of an interval; those named `timed` leave out the first step of a process."""

    steps: int = 0
    broken: int = 0
    loss: float = 0.0
    gradient_norms: int = 0
    gradient_norm: float = 0.0
    timed_samples: int = 0
    timed_seconds: float = 0.0
    timed_data_seconds: float = 0.0
    apart_seconds: float = 0.0


@dataclass
class _Clock:
    """Tells the seconds of each step from those spent apart."""

    begun: float = field(default_factory=time.perf_counter)
    apart: float = 0.0

    def lap(self) -> tuple[float, float]:
        """Return the seconds since the last lap, and of them those apart; start anew."""
        now = time.perf_counter()
        seconds, apart = now - self.begun, self.apart
        self.begun, self.apart = now, 0.0
        return seconds - apart, apart


def require_tensorboard() -> None:
    """Make sure that TensorBoard can be written.

    Raises:
        ConfigError: if the package is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "train.tensorboard names a folder, but tensorboard is not installed; "
            "pip install tensorboard, or leave the setting out"
        ) from error


class Telemetry:
    """Tells of a run's steps; a context manager.

    Args:
        path: file of a JSON object a line, local or a URL; what it holds beyond `state` is cut off.
            None: nothing is written, as on all ranks but the first.
        every: steps of an interval; the last ends at step `last`.
        state: what `state_dict` returned at the checkpoint the run goes on from.
        tensorboard: folder for TensorBoard's files, or "".

    Attributes:
        figures: of the last interval, to be shown, by name.
    """

    def __init__(
        self,
        path: str | None,
        spec: ModelSpec,
        *,
        device: torch.device,
        precision: Resolved,
        every: int,
        last: int,
        world_size: int = 1,
        patch_dropout: float = 0.0,
        state: Mapping[str, Any] | None = None,
        tensorboard: str = "",
    ) -> None:
        self._device, self._every, self._last = device, every, last
        state = state or {"step": 0, "samples": 0, "seconds": 0.0, "interval": {}}
        self._step: int = state["step"]
        self._samples: int = state["samples"]
        self._seconds: float = state["seconds"]
        self._interval = _Interval(**state["interval"])
        self._clock = _Clock()
        self._has_begun = False
        self._step_flops = PASSES * flops(spec, patch_dropout=patch_dropout)
        self._peak = self._find_peak(precision, path is not None) * world_size
        self._lines = JsonLines(path, until=self._step) if path else None
        self._board = _open_board(tensorboard, self._step) if path and tensorboard else None
        self.figures: dict[str, object] = {}

    def __enter__(self) -> "Telemetry":
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines:
            self._lines.close()
        if self._board:
            self._board.close()

    def step(self, report: StepReport) -> None:
        """Count one step; where an interval ends, write its line."""
        if report.step % self._every == 0 or report.step == self._last:
            self._add(report)
            self._tell(report)
            self._interval = _Interval()
        else:
            self._add(report)
            if len(self.figures) < 2:
                self.figures = {"loss": f"{report.loss:.3f}"}

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Count the time of the block apart from that of the steps: checkpoints, evaluation."""
        begun = time.perf_counter()
        yield
        self._clock.apart += time.perf_counter() - begun

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line of what was measured of the model after `step`, such as accuracies by name."""
        self._write({"step": step, "evaluation": dict(values)})
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"evaluation/{name}", value, step)

    def flush(self) -> None:
        """Bring all lines to where they belong; to be called before a checkpoint is saved."""
        if self._lines:
            self._lines.flush()
        if self._board:
            self._board.flush()

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to go on telling after the last step, as plain values."""
        return {
            "step": self._step,
            "samples": self._samples,
            "seconds": self._seconds,
            "interval": asdict(self._interval),
        }

    def _add(self, report: StepReport) -> None:
        interval = self._interval
        self._step = report.step
        self._samples += report.samples
        interval.steps += 1
        interval.broken += report.broken
        interval.loss += report.loss
        if report.gradient_norm is not None and math.isfinite(report.gradient_norm):
            interval.gradient_norms += 1
            interval.gradient_norm += report.gradient_norm
        seconds, apart = self._clock.lap()
        self._seconds += seconds + apart
        interval.apart_seconds += apart
        if self._has_begun:
            interval.timed_seconds += seconds
            interval.timed_samples += report.samples
            interval.timed_data_seconds += report.data_seconds
        else:
            # The first step compiles, prepares kernels and waits for the reader to begin.
            interval.apart_seconds += seconds
            self._has_begun = True

    def _tell(self, report: StepReport) -> None:
        interval = self._interval
        seconds, waited = interval.timed_seconds, interval.timed_data_seconds
        rate = interval.timed_samples / seconds if seconds else None
        norm = interval.gradient_norm / interval.gradient_norms if interval.gradient_norms else None
        record = {
            "step": report.step,
            "epoch": report.epoch,
            "samples": self._samples,
            "broken": interval.broken,
            "loss": interval.loss / interval.steps,
            "logit_scale": report.logit_scale,
            "learning_rate": report.learning_rate,
            "gradient_norm": norm,
            "samples_per_second": rate,
            "data_seconds": waited,
            "compute_seconds": seconds - waited,
            "apart_seconds": interval.apart_seconds,
            "elapsed_seconds": self._seconds,
            "memory_bytes": peak_memory(self._device),
            "mfu": rate * self._step_flops / self._peak if rate and self._peak else None,
        }
        self.figures = _figures(record)
        self._write(record)
        if self._board:
            for name, value in record.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(f"train/{name}", value, report.step)

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._lines:
            self._lines.add(record)

    def _find_peak(self, precision: Resolved, first: bool) -> float:
        peak = known_peak(self._device, precision)
        if peak:
            return peak.flops
        if first and self._device.type == "cuda":
            name = torch.cuda.get_device_name(self._device)
            say(f"train      leaves out MFU: the peak of {name} in {precision} is not known")
        return 0.0


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held on `device`; resident ones for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _figures(record: Mapping[str, Any]) -> dict[str, object]:
    shown = {"loss": f"{record['loss']:.3f}", "scale": f"{record['logit_scale']:.1f}"}
    shown["lr"] = f"{record['learning_rate']:.2g}"
    if record["gradient_norm"] is not None:
        shown["gradient"] = f"{record['gradient_norm']:.2g}"
    if record["samples_per_second"] is not None:
        waited = record["data_seconds"]
        total = waited + record["compute_seconds"]
        shown["samples/s"] = f"{record['samples_per_second']:,.0f}"
        shown["waiting"] = f"{waited:.1f} of {total:.1f} s"
    shown["memory"] = f"{record['memory_bytes'] / 1e9:.1f} GB"
    if record["mfu"] is not None:
        shown["MFU"] = f"{record['mfu']:.0%}"
    return dict(shown)


def _open_board(folder: str, step: int) -> "SummaryWriter":
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    # Curves of steps that a killed run made after its checkpoint are hidden.
    return SummaryWriter(folder, purge_step=step + 1)
