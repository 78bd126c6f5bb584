"""One step after the other, on all ranks alike."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.runtime.progress import say
from train.learning.distributed import Distributed
from train.running.stopping import StopSignal
from train.running.telemetry import StepReport, Telemetry
from train.running.training import Step, Training
from train.samples.batches import Batch, BrokenSample


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A step, and what of the global batch it was made of.

    Attributes:
        pairs: whole ones, on all ranks.
        broken: those left out, on all ranks.
        state: where the stream stands after it.
    """

    step: Step
    epoch: int
    pairs: int
    broken: tuple[BrokenSample, ...]
    state: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class _Word:
    """What a rank tells the others before a step."""

    pairs: int
    broken: tuple[BrokenSample, ...]
    wants_stop: bool


def take_steps(
    training: Training,
    batches: Iterable[Batch],
    ranks: Distributed,
    *,
    max_broken: float = 1.0,
    telemetry: Telemetry | None = None,
    stop: StopSignal | None = None,
) -> Iterator[Taken]:
    """Take a step a batch, and yield after each; end with the batches, or once a rank is to stop.

    Args:
        batches: this rank's shares of global batches, as many on every rank.
        max_broken: share of a global batch that may be broken.

    Raises:
        InputError: if more is.
        NotFinite: see `Training.take_step`.
    """
    uploads = _uploaded(batches, ranks.device if training.holds_batch else torch.device("cpu"))
    while True:
        with ranks.together():
            upload = next(uploads, None)
        if upload is None:
            return
        batch, pixels_B3SS, tokens_BL = upload
        wants_stop = stop is not None and stop.name is not None
        words = ranks.collect(
            _Word(pairs=len(tokens_BL), broken=batch.broken, wants_stop=wants_stop)
        )
        if any(word.wants_stop for word in words):
            return
        pairs = sum(word.pairs for word in words)
        broken = tuple(each for word in words for each in word.broken)
        if broken:
            with ranks.together():
                _check_broken(broken, pairs, max_broken, tell=ranks.is_first)
        step = training.take_step(pixels_B3SS, tokens_BL)
        # The last sample's: a stream that stands at the beginning of an epoch has just ended another.
        epoch = batch.state["epoch"] - (batch.state["position"] == 0)
        if telemetry:
            report = StepReport(
                **vars(step),
                epoch=epoch,
                samples=pairs,
                broken=len(broken),
                data_seconds=batch.waited,
            )
            with ranks.together():
                telemetry.step(report)
        yield Taken(step=step, epoch=epoch, pairs=pairs, broken=broken, state=batch.state)


def _uploaded(
    batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Yield batches with their tensors on `device`; on a GPU the next is copied during the step with one."""
    if device.type != "cuda":
        for batch in batches:
            yield batch, batch.pixels_B3SS, batch.tokens_BL
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    computing = torch.cuda.current_stream(device)
    waiting: tuple[Batch, Tensor, Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            pixels_B3SS = batch.pixels_B3SS.to(device, non_blocking=True)
            tokens_BL = batch.tokens_BL.to(device, non_blocking=True)
            copied = copying.record_event()
        # Their memory belongs to one stream and is read in the other.
        pixels_B3SS.record_stream(computing)
        tokens_BL.record_stream(computing)
        if waiting:
            computing.wait_event(waiting[3])
            yield waiting[:3]
        waiting = batch, pixels_B3SS, tokens_BL, copied
    if waiting:
        computing.wait_event(waiting[3])
        yield waiting[:3]


def _check_broken(
    broken: tuple[BrokenSample, ...], pairs: int, limit: float, *, tell: bool
) -> None:
    for each in broken if tell else ():
        say(f"train      skips {each.sample.pair_id} in {each.sample.shard}: {each.detail}")
    count, total = len(broken), len(broken) + pairs
    if count > limit * total or not pairs:
        first = broken[0]
        raise InputError(
            f"{count} of {total} samples of a batch are broken, such as {first.sample.pair_id} in "
            f"{first.sample.shard} ({first.reason}); mend the shards or raise train.max_broken ({limit:g})"
        )
