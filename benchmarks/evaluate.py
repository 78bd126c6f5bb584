"""Where the time of a zero-shot evaluation goes, on CIFAR-10's test pictures with random weights.

    python -m benchmarks.evaluate --data DATA [--model ViT-B/32] [--pictures 10000] [--device cpu]

DATA is a folder with images/cifar10_jpg.tar.gz. Times are of the whole stage, in a new workspace: loading
the weights, reading, decoding, both towers, ranking, a contact sheet of the worst classes, tables and report.
"""

import argparse
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.workspace import Workspace
from train.evaluation import stage, subject
from train.evaluation.config import EvaluateConfig
from train.evaluation.embedder import Clock
from train.models.clip import Clip
from train.models.recipes import find_recipe
from train.running.checkpoint import save_model

CLOCKS: list[Clock] = []
TEXTS: list[float] = []


class KeptClock(Clock):
    """A clock that can be looked at when the stage is through."""

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        CLOCKS.append(self)


def timed(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return `work`, noting what it takes; its result is on the CPU when it ends."""

    def run(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        result = work(*arguments, **named).cpu()
        TEXTS.append(time.perf_counter() - begun)
        return result

    return run


def choose(archive: Path, target: Path, most: int) -> int:
    """Copy the archive's first test pictures; return how many."""
    count = 0
    with tarfile.open(archive) as source, tarfile.open(target, "w") as chosen:
        for member in source:
            if member.isfile() and "/test/" in f"/{member.name}" and count < most:
                chosen.addfile(member, source.extractfile(member))
                count += 1
    return count


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="ViT-mini")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--templates", default="own")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    subject.Clock = KeptClock  # type: ignore[misc]
    subject.class_embeddings = timed(subject.class_embeddings)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        pictures = choose(given.data / "images/cifar10_jpg.tar.gz", root / "cifar10.tar", given.pictures)  # fmt: skip
        (root / "sets.toml").write_text('[cifar10]\npath = "cifar10.tar"\nprompts = "cifar10"\n')
        torch.manual_seed(0)
        model = Clip(find_recipe(given.model).model)
        model.initialize()
        save_model(str(root / "model.pt"), model)
        config = EvaluateConfig.model_validate(
            {
                "model": str(root / "model.pt"),
                "evalsets": str(root / "sets.toml"),
                "heads": "zero_shot",
                "templates": given.templates,
                "precision": given.precision,
                "batch_size": given.batch_size,
                "threads": given.threads,
                "readers": given.readers,
                "device": given.device,
            }
        )
        begun, begun_cpu = time.perf_counter(), time.process_time()
        stage.run(config, Workspace(root=str(root / "results")), InlineExecutor())
        total, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    of_pictures = sum(clock.model_s for clock in CLOCKS)
    waiting = sum(clock.waiting_s for clock in CLOCKS)
    texts = sum(TEXTS)
    print(
        f"{given.model}, {pictures:,} pictures, {given.precision}, {given.threads or 'all'} threads"
    )
    for name, seconds in (
        ("image tower", of_pictures),
        ("text tower", texts),
        ("waiting for pictures", waiting),
        ("all else", total - of_pictures - texts - waiting),
        ("whole stage", total),
    ):
        print(f"{name:<22}{seconds:8.1f} s  {seconds / total:6.1%}")
    print(f"{'in the model':<22}{of_pictures + texts:8.1f} s  {(of_pictures + texts) / total:6.1%}")
    print(f"{pictures / total:,.0f} pictures a second, {1000 * cpu / pictures:.2f} ms of processor time each")  # fmt: skip


if __name__ == "__main__":
    main()
