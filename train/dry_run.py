"""Say what a run would be and what would hold it up, before it is one: nothing is trained or written.

The loader's speed is measured on the real samples, that of computing on made-up ones, a few seconds each.
"""

import math
import os
import time
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from pipeline.errors import ConfigError
from pipeline.runtime.workspace import Workspace
from train.config import Plan, TrainConfig, make_plan
from train.learning.device import computing
from train.learning.distributed import alone
from train.learning.precision import DTYPES, Resolved, choose_precision
from train.models.clip import Clip, count_parameters
from train.models.costs import estimate_memory, flops
from train.running.peaks import known_peak
from train.running.telemetry import PASSES
from train.running.training import Training
from train.samples.augment import crop_of
from train.samples.batches import read_batches, sample_loader
from train.sources import TrainingData, open_training_data

SECONDS = 3.0
"""How long each speed is measured for, once what is measured has begun."""

LOADER_BATCH = 256
CPU_STEP_FLOPS = 5e10
"""A CPU's step on made-up pairs takes about a second; a large model's more, for it needs two pairs."""


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What steps on made-up pairs showed; `peak_bytes` of a GPU's memory, else 0."""

    rate: float
    pairs: int
    peak_bytes: int


def dry_run(config: TrainConfig, workspace: Workspace, *, seconds: float = SECONDS) -> None:
    """Print what `witmill train` would do with these settings, how fast, and what would hold it up.

    Raises:
        WitmillError: as `witmill train` would, if settings and samples do not go together.
    """
    with (
        computing(config.device, config.threads) as device,
        closing(open_training_data(config, workspace)) as data,
    ):
        plan = make_plan(config, data.samples)
        precision = choose_precision(config.precision, device)
        micro_batch = min(config.micro_batch or plan.batch_size, plan.batch_size)
        _tell("model", *_model(plan, config))
        _tell("run", *_run(plan, data.samples, micro_batch))
        _tell("memory", *_memory(plan, config, micro_batch, precision, device))
        loaded = loader_rate(plan, config, data, seconds)
        _tell("loader", f"{loaded:,.0f} samples/s with {_threads(config.readers)}, measured")
        try:
            computed = compute_rate(plan, config, micro_batch, device, seconds)
        except ConfigError as error:
            _tell("computing", str(error))
            return
        _tell("computing", *_computing(computed, plan, config, precision, device))
        _tell("slow one", *_verdict(loaded, computed.rate, plan, device))


def loader_rate(plan: Plan, config: TrainConfig, data: TrainingData, seconds: float) -> float:
    """Return the samples a second that are read, decoded and tokenised with nothing else going on."""
    batch_size = min(LOADER_BATCH, plan.batch_size)
    stream = data.stream(batch_size=batch_size, seed=config.seed, window=config.shuffle_window)
    load = sample_loader(data.read, plan.model, config.seed, crop_of(config))
    context = plan.model.text.context
    batches = read_batches(stream, load, context=context, count=1_000_000, readers=config.readers)
    with closing(batches):
        next(batches)
        begun, samples = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            samples += len(next(batches).samples)
        return samples / (time.perf_counter() - begun)


def compute_rate(
    plan: Plan, config: TrainConfig, micro_batch: int, device: torch.device, seconds: float
) -> Computed:
    """Return the pairs a second of steps on a micro-batch of made-up pairs that lie on the device.

    Raises:
        ConfigError: if they do not fit into its memory.
    """
    pairs = measured_pairs(plan, micro_batch, device)
    training = Training(replace(plan, batch_size=pairs), config, alone(device))
    side, text = plan.model.resolution, plan.model.text
    pixels_B3SS = torch.zeros(pairs, 3, side, side, dtype=torch.uint8, device=device)
    tokens_BL = torch.ones(pairs, text.context, dtype=torch.int64, device=device)
    training.take_step(pixels_B3SS, tokens_BL)
    begun, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - begun < seconds:
        # It waits for the loss, so the clock is the device's.
        training.take_step(pixels_B3SS, tokens_BL)
        steps += 1
    rate = steps * pairs / (time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Computed(rate=rate, pairs=pairs, peak_bytes=peak)


def measured_pairs(plan: Plan, micro_batch: int, device: torch.device) -> int:
    """Return the pairs of a step that is measured: a micro-batch, or fewer where it would take long."""
    if device.type == "cuda":
        return micro_batch
    return min(micro_batch, max(2, int(CPU_STEP_FLOPS / (PASSES * flops(plan.model)))))


def _model(plan: Plan, config: TrainConfig) -> list[str]:
    with torch.device("meta"):
        model = Clip(plan.model)
    every, image = count_parameters(model), count_parameters(model.visual)
    forward = flops(plan.model, patch_dropout=config.patch_dropout)
    spec = plan.model
    return [
        f"{config.model}, {spec.resolution} pixels, {spec.text.context} tokens, embedding {spec.embed}",
        f"{every:,} parameters, {image:,} of them of the image tower",
        f"{_operations(forward)} a pair forward, {_operations(PASSES * forward)} a pair and step",
    ]


def _run(plan: Plan, samples: int, micro_batch: int) -> list[str]:
    shown = plan.steps * plan.batch_size
    parts = f" in micro-batches of {micro_batch:,}" if micro_batch < plan.batch_size else ""
    return [
        f"{plan.steps:,} steps of {plan.batch_size:,} pairs{parts}, {plan.warmup_steps:,} to warm up, "
        f"learning rate {plan.learning_rate:g}",
        f"{samples:,} samples, {shown:,} shown, {shown / samples:.4g} epochs",
    ]


def _memory(
    plan: Plan, config: TrainConfig, micro_batch: int, precision: Resolved, device: torch.device
) -> list[str]:
    memory = estimate_memory(
        plan.model,
        micro_batch,
        dtype=DTYPES[precision],
        patch_dropout=config.patch_dropout,
        checkpointing=config.gradient_checkpointing,
    )
    together = memory.parameters + memory.activations
    return [
        f"{_giga(memory.parameters)} for weights, gradients and the optimiser's averages",
        f"{_giga(memory.activations)} for activations of {micro_batch:,} pairs in {precision}",
        f"{_giga(together)} together, by estimate, of {_giga(_memory_of(device))} that there are",
    ]


def _computing(
    computed: Computed, plan: Plan, config: TrainConfig, precision: Resolved, device: torch.device
) -> list[str]:
    step_flops = PASSES * flops(plan.model, patch_dropout=config.patch_dropout)
    done = computed.rate * step_flops
    lines = [
        f"{computed.rate:,.0f} pairs/s on {_name(device)} in {precision}, measured on steps of "
        f"{computed.pairs:,} made-up pairs"
    ]
    if peak := known_peak(device, precision):
        share = done / peak.flops
        lines.append(f"{share:.0%} MFU: {done / 1e12:,.1f} of {peak.flops / 1e12:,.0f} TFLOP/s")
    elif device.type == "cuda":
        lines.append(f"{done / 1e12:,.1f} TFLOP/s; the peak of {_name(device)} is not known")
    if computed.peak_bytes:
        lines.append(f"{_giga(computed.peak_bytes)} of memory at most, in these steps")
    return lines


def _verdict(loaded: float, computed: float, plan: Plan, device: torch.device) -> list[str]:
    if device.type == "cpu":
        # Both work on the same cores, one after the other as it were.
        rate = 1 / (1 / loaded + 1 / computed)
        name = "computing" if loaded >= computed else "the loader"
        lines = [f"{name}: of the cores' time {rate / loaded:.0%} goes into loading"]
    elif loaded >= computed:
        rate = computed
        lines = [f"computing: the loader gives {loaded / computed:.1f} times what a GPU takes"]
    else:
        rate, cores = loaded, math.ceil(computed / loaded * _cores())
        lines = [
            f"the loader: a GPU takes {computed:,.0f} samples/s, {loaded / computed:.0%} of which it "
            f"gives; it needs {cores} cores such as these {_cores()} for each GPU"
        ]
    hours = plan.steps * plan.batch_size / rate / 3600
    each = "" if device.type == "cpu" else " on one GPU"
    return [*lines, f"at {rate:,.0f} samples/s the run takes {_duration(hours)}{each}"]


def _tell(name: str, *lines: str) -> None:
    for i, line in enumerate(lines):
        print(f"{'' if i else name:<11}{line}", flush=True)


def _operations(operations: float) -> str:
    return f"{operations / 1e9:,.3g} GFLOP"


def _giga(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"


def _duration(hours: float) -> str:
    if hours < 1:
        minutes = math.ceil(hours * 60)
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"


def _memory_of(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _threads(readers: int) -> str:
    count = readers or _cores()
    return "1 thread" if count == 1 else f"{count} threads"
