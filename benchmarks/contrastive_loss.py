"""Time the contrastive loss by tiles against the whole matrix of logits, forward and backward.

    python benchmarks/contrastive_loss.py --rows 4096 8192 16384 32768

Each measurement is a process of its own, so that its peak is its own: the highest resident size on a
CPU (of Linux), less that before the step, or torch's peak of allocated memory on a GPU. Seconds are the best of
several steps on a warm process: processor time of one thread on a CPU, time on the clock on a GPU.
All ways must give the same loss and gradients.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from train.learning.loss import TILE, contrastive_loss, sigmoid_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
WARM_ROWS = 512
WHOLE = 0
"""Stands for no tiles, the whole matrix."""


def main() -> None:
    """Measure every way in a process of its own and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--tiles", type=int, nargs="+", default=[WHOLE, 1024, TILE])
    parser.add_argument("--loss", choices=("softmax", "sigmoid"), default="softmax")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        rows, tile = map(int, arguments.one.split(","))
        print(json.dumps(measure(arguments, rows, tile)))
        return
    print(
        "| rows | tile | seconds | peak MB | loss | norms of gradients |\n|---:|---:|---:|---:|---:|---|"
    )
    for rows in arguments.rows:
        compare(rows, arguments.tiles)


def compare(rows: int, tiles: Sequence[int]) -> None:
    """Print a line for each tile; stop if one disagrees with the others."""
    results = {}
    for tile in tiles:
        command = [sys.executable, *sys.argv, "--one", f"{rows},{tile}"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            # A matrix that memory does not hold is a result, too.
            print(f"| {rows:,} | {tile or 'none'} | failed ({run.returncode}) | | | |", flush=True)
            continue
        results[tile] = json.loads(run.stdout)
        result = results[tile]
        norms = ", ".join(f"{norm:.6f}" for norm in result["norms"])
        print(
            f"| {rows:,} | {tile or 'none'} | {result['seconds']:.2f} | {result['megabytes']:,.0f} "
            f"| {result['loss']:.6f} | {norms} |",
            flush=True,
        )
    seen = [torch.tensor([result["loss"], *result["norms"]]) for result in results.values()]
    for other in seen[1:]:
        torch.testing.assert_close(other, seen[0], rtol=1e-4, atol=1e-6)


def measure(arguments: argparse.Namespace, rows: int, tile: int) -> dict[str, object]:
    """Return seconds and peak memory of a step, its loss and the norms of its gradients."""
    torch.set_num_threads(1)
    loss = choose(arguments.loss, tile, arguments.device)
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    step(loss, embeddings(WARM_ROWS, arguments))
    inputs = embeddings(rows, arguments)
    before = forget_peak(arguments.device)
    times = []
    for _ in range(arguments.steps):
        begun = clock()
        value, gradients = step(loss, inputs)
        norms = [gradient.norm().item() for gradient in gradients]
        times.append(clock() - begun)
    return {
        "seconds": min(times),
        "megabytes": peak_megabytes(arguments.device) - before,
        "loss": value,
        "norms": norms,
    }


def choose(name: str, tile: int, device: str) -> Loss:
    """Return a loss of embeddings and log scale; tile 0: over the whole matrix, with torch's gradients."""
    bias = torch.tensor(-10.0, device=device)
    if tile and name == "softmax":
        return lambda image, text, scale: contrastive_loss(image, text, scale, tile=tile)
    if tile:
        return lambda image, text, scale: sigmoid_loss(image, text, scale, bias, tile=tile)
    return whole_softmax if name == "softmax" else lambda *inputs: whole_sigmoid(*inputs, bias)


def whole_softmax(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Return the symmetric loss as the paper's figure 3 has it."""
    logits = log_scale.exp() * image @ text.T
    pairs = torch.arange(len(logits), device=logits.device)
    over_texts = functional.cross_entropy(logits, pairs)
    return (over_texts + functional.cross_entropy(logits.T, pairs)) / 2


def whole_sigmoid(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Return the sigmoid loss as SigLIP's algorithm 1 has it."""
    logits = log_scale.exp() * image @ text.T + bias
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -functional.logsigmoid(signs * logits).sum() / len(logits)


def embeddings(rows: int, arguments: argparse.Namespace) -> list[Tensor]:
    """Return pairs that are as near to each other as those of a model half trained, and a log scale."""
    generator = torch.Generator().manual_seed(rows)
    image, noise = (torch.randn(rows, arguments.width, generator=generator) for _ in range(2))
    text = image + 2 * noise
    inputs = [functional.normalize(image, dim=1), functional.normalize(text, dim=1)]
    return [value.to(arguments.device).requires_grad_() for value in (*inputs, torch.tensor(3.0))]


def step(loss: Loss, inputs: Sequence[Tensor]) -> tuple[float, tuple[Tensor, ...]]:
    """Return the loss and its gradients with respect to all inputs."""
    value = loss(*inputs)
    gradients = torch.autograd.grad(value, inputs)
    return value.item(), gradients


def forget_peak(device: str) -> float:
    """Return the memory held now, and begin anew to look for the most."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    Path("/proc/self/clear_refs").write_text("5")
    return resident_megabytes("VmRSS")


def peak_megabytes(device: str) -> float:
    """Return the most memory held since `forget_peak`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resident_megabytes("VmHWM")


def resident_megabytes(name: str) -> float:
    """Return a line of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    main()
