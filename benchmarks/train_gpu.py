"""How fast a model trains on this machine, what it waits for, and how open_clip's own loop compares.

    python -m benchmarks.train_gpu --data ../shared/data
    python -m benchmarks.train_gpu --shards 'cc3m/*.tar' --batch-size 2048
    python -m benchmarks.train_gpu --data ../shared/data --device cpu --model ViT-mini --steps 4

ViT-B/32 at 224 pixels in bf16, compiled, on real shards; the same loop on one made-up batch, which
waits for nothing; the loader alone; a batch of 32,768 by gradient caching; and open_clip's training
script on the same shards and first weights, where --open-clip-python has what it needs (open_clip_torch,
torchvision, webdataset 0.2.86). Each is a process of its own, so that its peak of memory is its own.
The last line above is a check on a CPU that all of it works, and says nothing of a GPU.

Shards are the photographs of --data with a shorter side of 256 pixels and real captions, over and over, or
those of --shards. Steps begin to count after --warm-up; a rate is pairs by seconds, waiting included.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from benchmarks.shards import photographs
from pipeline.pictures.tar import TarWriter
from pipeline.runtime import storage
from pipeline.runtime.progress import say
from pipeline.runtime.workspace import Workspace
from train.config import Plan, TrainConfig, make_plan
from train.dry_run import loader_rate
from train.learning.device import computing
from train.learning.distributed import alone
from train.learning.precision import choose_precision
from train.models.costs import flops
from train.models.export import save_as
from train.running.json_lines import read_json_lines
from train.running.peaks import known_peak
from train.running.steps import take_steps
from train.running.telemetry import PASSES, Telemetry, peak_memory
from train.running.training import Training
from train.samples.augment import crop_of
from train.samples.batches import Batch, read_batches, sample_loader
from train.sources import TrainingData, open_training_data

PER_SHARD = 2_000
TITLES = {
    "real": "real shards",
    "synthetic": "made-up pictures",
    "loader": "loader alone",
    "large": "real shards, gradient caching",
    "open_clip": "open_clip's script",
}
WAYS = tuple(TITLES)
COLUMNS = {
    "rate": ",.0f",
    "tera": ".3g",
    "mfu": ".1%",
    "waiting": ".1%",
    "memory": ".2f",
    "loss": ".3f",
}
LINE = re.compile(r"Train Epoch: .*? Data \(t\): (?P<data>[\d.]+) Batch \(t\): (?P<batch>[\d.]+),")


def main() -> None:
    """Measure every way in a process of its own and print the table."""
    arguments = parse()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.folder = arguments.folder or folder
        Path(arguments.folder).mkdir(parents=True, exist_ok=True)
        if not arguments.shards:
            arguments.shards = build_shards(arguments)
        results = {way: run(arguments, way) for way in WAYS}
    print(report(arguments, results))


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with images/ and captions/")
    parser.add_argument("--shards", help="pattern of WebDataset tars, in place of --data")
    parser.add_argument("--samples", type=int, default=40_000, help="of the shards made of --data")
    parser.add_argument("--model", default="ViT-B/32")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp16", "fp32"), default="auto")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--readers", type=int, default=0)
    parser.add_argument("--large-batch", type=int)
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--large-steps", type=int, default=3)
    parser.add_argument("--open-clip-python", default=sys.executable)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", help="where to keep shards and logs; default: nowhere")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    small = arguments.device == "cpu"
    arguments.batch_size = arguments.batch_size or (16 if small else 1024)
    arguments.large_batch = arguments.large_batch or (64 if small else 32_768)
    arguments.micro_batch = arguments.micro_batch or (16 if small else 1024)
    arguments.warm_up = min(arguments.warm_up, arguments.steps // 2)
    if small:
        arguments.samples = min(arguments.samples, 600)
    if not (arguments.data or arguments.shards):
        parser.error("give --data or --shards")
    return arguments


def build_shards(arguments: argparse.Namespace) -> str:
    """Write the photographs of --data as plain WebDataset tars; return a pattern that names them."""
    pictures = photographs(str(arguments.data / "images/imagenet_sample_600.tar"))
    with gzip.open(arguments.data / "captions/cc3m_validation.tsv.gz", "rt") as lines:
        captions = [line.split("\t")[0] for line in lines]
    folder = Path(arguments.folder, "shards")
    for number, first in enumerate(range(0, arguments.samples, PER_SHARD)):
        path = str(folder / f"{number:05d}.tar")
        with storage.atomic_output(path) as file, TarWriter(file) as tar:
            for i in range(first, min(first + PER_SHARD, arguments.samples)):
                tar.add(f"{i:09d}.jpg", pictures[i % len(pictures)])
                tar.add(f"{i:09d}.txt", captions[i % len(captions)].encode())
    return f"{folder}/*.tar"


def run(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """Return what a process of its own measured of one way, or why it did not."""
    if way not in arguments.ways:
        return {"failed": "not asked for"}
    if way == "open_clip" and (missing := missing_packages(arguments.open_clip_python)):
        return {"failed": f"not measured: {arguments.open_clip_python} has no {missing}"}
    say(f"measures   {TITLES[way]}")
    places = ["--shards", arguments.shards, "--folder", arguments.folder]
    command = [sys.executable, "-m", "benchmarks.train_gpu", *sys.argv[1:], *places, "--one", way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"failed": f"not measured: {why}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def missing_packages(python: str) -> str:
    """Return what open_clip's script needs and this Python does not import, or nothing."""
    for name in ("open_clip_train.main", "torchvision", "webdataset"):
        command = [python, "-c", f"import {name}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return name
    return ""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one way in this process."""
    sources = Path(arguments.folder, f"{arguments.one}.toml")
    sources.write_text(f"[shards]\npath = {json.dumps(arguments.shards)}\n", encoding="utf-8")
    large = arguments.one == "large"
    steps = arguments.large_steps + 1 if large else arguments.steps + arguments.warm_up
    config = TrainConfig(
        model=arguments.model,
        batch_size=arguments.large_batch if large else arguments.batch_size,
        micro_batch=arguments.micro_batch if large else None,
        steps=steps,
        warmup_steps=min(10, steps - 1),
        precision=arguments.precision,
        compile=arguments.device == "cuda" and not arguments.no_compile,
        device=arguments.device,
        readers=arguments.readers,
        sources=str(sources),
        cache=str(Path(arguments.folder, "cache")),
    )
    workspace = Workspace(root=arguments.folder)
    with (
        computing(config.device, config.threads) as device,
        closing(open_training_data(config, workspace)) as data,
    ):
        plan = make_plan(config, data.samples)
        if arguments.one == "loader":
            return {"rate": loader_rate(plan, config, data, seconds=10)}
        if arguments.one == "open_clip":
            return measure_open_clip(arguments, plan, config, device)
        skipped = 1 if large else arguments.warm_up
        return measure_loop(arguments, plan, config, data, device, skipped)


def measure_loop(
    arguments: argparse.Namespace,
    plan: Plan,
    config: TrainConfig,
    data: TrainingData,
    device: torch.device,
    skipped: int,
) -> dict[str, Any]:
    """Take the steps of the trainer's own loop and return what its telemetry says of all but the first."""
    ranks = alone(device)
    training = Training(plan, config, ranks)
    path = Path(arguments.folder, f"{arguments.one}.jsonl")
    telemetry = Telemetry(
        str(path),
        plan.model,
        device=device,
        precision=training.precision,
        every=1,
        last=plan.steps,
    )
    batches = read(plan, config, data, device)
    if arguments.one == "synthetic":
        batches = made_up(next(batches), plan.steps, batches)
    with telemetry, closing(batches):
        for _ in take_steps(training, batches, ranks, telemetry=telemetry):
            pass
    counted = read_json_lines(str(path))[skipped:]
    waited = sum(line["data_seconds"] for line in counted)
    seconds = waited + sum(line["compute_seconds"] for line in counted)
    rate = len(counted) * plan.batch_size / seconds
    result = {
        "rate": rate,
        "waiting": waited / seconds,
        "tera": rate * PASSES * flops(plan.model) / 1e12,
        "memory": peak_memory(device) / 1e9,
        "loss": counted[-1]["loss"],
    }
    if peak := known_peak(device, training.precision):
        tera = peak.flops / 1e12
        share = f"MFU is of {tera:,.3g} TFLOP/s in {training.precision} ({peak.source})."
        return {**result, "mfu": result["tera"] / tera, "peak": share}
    return result


def read(
    plan: Plan, config: TrainConfig, data: TrainingData, device: torch.device
) -> Generator[Batch, None, None]:
    """Yield the batches of a run, as the stage "train" reads them."""
    return read_batches(
        data.stream(batch_size=plan.batch_size, seed=config.seed, window=config.shuffle_window),
        sample_loader(data.read, plan.model, config.seed, crop_of(config)),
        context=plan.model.text.context,
        count=plan.steps,
        readers=config.readers,
        pinned=device.type == "cuda",
    )


def made_up(
    batch: Batch, count: int, batches: Generator[Batch, None, None]
) -> Generator[Batch, None, None]:
    """Yield one batch of noise in the place of `batch`, over and over, once reading has stopped."""
    batches.close()
    torch.manual_seed(0)
    noise = replace(batch, pixels_B3SS=batch.pixels_B3SS.random_(0, 256), waited=0.0)
    yield from repeat(noise, count)


def measure_open_clip(
    arguments: argparse.Namespace,
    plan: Plan,
    config: TrainConfig,
    device: torch.device,
) -> dict[str, Any]:
    """Run open_clip's training script on the same shards, from the same weights, and read its log."""
    hub = Path(arguments.folder, "hub")
    first = Training(plan, config, alone(torch.device("cpu"))).model
    save_as(first, str(hub / "open_clip_model.safetensors"), "open_clip", half=False)
    # A line tells of the steps since the one before.
    every = max(1, min(10, arguments.warm_up))
    precision = {"bf16": "amp_bf16", "fp16": "amp", "fp32": "fp32"}
    command = [
        *(arguments.open_clip_python, "-m", "open_clip_train.main"),
        *("--train-data", braces(arguments.shards), "--dataset-type", "webdataset"),
        # Shards drawn anew each time: otherwise it wants as many as it has workers.
        *("--dataset-resampled", "--train-num-samples", str(plan.steps * plan.batch_size)),
        *("--batch-size", str(plan.batch_size), "--epochs", "1", "--model", f"local-dir:{hub}"),
        *("--precision", precision[choose_precision(config.precision, device)]),
        *("--workers", str(arguments.readers or len(os.sched_getaffinity(0)))),
        *("--lr", str(plan.learning_rate), "--beta1", str(plan.beta1), "--beta2", str(plan.beta2)),
        *("--eps", str(plan.epsilon), "--wd", str(plan.weight_decay), "--warmup", "10"),
        *("--logs", str(Path(arguments.folder, "open_clip")), "--name", "run"),
        *("--log-every-n-steps", str(every), "--save-frequency", "0"),
        *("--device", arguments.device),
    ]
    if config.compile:
        command.append("--torchcompile")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit((done.stderr.strip().splitlines() or ["no word"])[-1])
    skipped = 1 + arguments.warm_up // every
    lines = list(LINE.finditer(done.stderr + done.stdout))[skipped:]
    seconds = sum(float(line["batch"]) for line in lines)
    rate = len(lines) * plan.batch_size / seconds
    return {"rate": rate, "waiting": sum(float(line["data"]) for line in lines) / seconds}


def braces(pattern: str) -> str:
    """Return the shards of a pattern as open_clip's option names them."""
    return "::".join(storage.list_files(pattern))


def report(arguments: argparse.Namespace, results: dict[str, dict[str, Any]]) -> str:
    """Return one table, and what stands behind its numbers."""
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    compiled = "" if arguments.device == "cpu" or arguments.no_compile else ", compiled"
    lines = [
        f"{arguments.model} on {name}{compiled}, torch {torch.__version__}",
        "",
        "| way | batch | samples/s | of made-up | TFLOP/s | MFU | waiting for data | memory, GB | loss |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    batches = dict.fromkeys(WAYS, f"{arguments.batch_size:,}")
    batches["large"] = f"{arguments.large_batch:,} by {arguments.micro_batch:,}"
    reference = results["synthetic"].get("rate")
    for way, title in TITLES.items():
        found = results[way]
        if "failed" in found:
            lines.append(f"| {title} | {batches[way]} | {found['failed']} | | | | | | |")
            continue
        share = f"{found['rate'] / reference:.3f}" if reference else ""
        cells = [f"{found[key]:{form}}" if key in found else "" for key, form in COLUMNS.items()]
        row = [title, batches[way], cells[0], share, *cells[1:]]
        lines.append(f"| {' | '.join(row)} |")
    peaks = {found["peak"] for found in results.values() if "peak" in found}
    return "\n".join([*lines, "", *peaks])


if __name__ == "__main__":
    main()
