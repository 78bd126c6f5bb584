"""What a CPU learns of CIFAR-10 in twenty minutes, from shards that this pipeline made of it.

    python -m benchmarks.learn_cifar10 --data ../shared/data --folder /tmp/cifar10 --precision bf16

(bf16 where the CPU computes with it, else leave it out.)

The 50,000 training pictures are served on this machine with captions, ingested, curated, downloaded,
cleared of what the test set holds, and packed (`cifar10_corpus.py`). A model is trained on them for
--minutes, and classifies the 10,000 test pictures, zero-shot, a number of times in between; that takes
time of its own. How many steps fit into the minutes is measured first.

Prints the accuracies as a table, and draws them into --figure.
"""

import argparse
import io
import os
from contextlib import closing
from pathlib import Path

from benchmarks.cifar10_corpus import EVALSET, PORT, Corpus, build_corpus
from pipeline import schemas
from pipeline.intervals import clopper_pearson
from pipeline.runtime import storage
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.progress import say
from train import loop
from train.config import TrainConfig, make_plan
from train.dry_run import compute_rate, loader_rate
from train.learning.device import computing
from train.running.json_lines import read_json_lines
from train.sources import open_training_data

Line = dict[str, float]
COLOUR, GREY = "#2e6f95", "#5f6368"


def main() -> None:
    """Build the corpus, train, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the workspace; kept")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, help="in place of --minutes")
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--model", default="RN-mini")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--figure", type=Path, help="a PNG; default: curve.png in --folder")
    parser.add_argument("--port", type=int, default=PORT)
    arguments = parser.parse_args()
    corpus = build_corpus(
        arguments.data, arguments.folder, pictures=arguments.pictures, port=arguments.port
    )
    config = settings(arguments, corpus)
    loop.run(config, corpus.workspace, InlineExecutor())
    curve = read_curve(corpus)
    print(report(curve, config))
    figure = arguments.figure or arguments.folder / "curve.png"
    figure.write_bytes(draw(curve, config))
    say(f"drawn      {figure}")


def settings(arguments: argparse.Namespace, corpus: Corpus) -> TrainConfig:
    """Return the settings of the run, as many steps as the minutes hold."""
    config = TrainConfig(
        model=arguments.model,
        precision=arguments.precision,
        crop_scale=(0.5, 1.0),
        evalsets=str(corpus.evalsets),
        device="cpu",
        # How long it takes is measured with these.
        steps=1000,
    )
    steps = arguments.steps or _steps_in(arguments.minutes * 60, config, corpus)
    every = max(1, steps // arguments.evaluations)
    return config.model_copy(update={"steps": steps, "evaluate_every": every})


def _steps_in(seconds: float, config: TrainConfig, corpus: Corpus) -> int:
    with (
        computing(config.device, config.threads) as device,
        closing(open_training_data(config, corpus.workspace)) as data,
    ):
        plan = make_plan(config, data.samples)
        loaded = loader_rate(plan, config, data, seconds=5)
        computed = compute_rate(plan, config, plan.batch_size, device, seconds=20).rate
    # Loading and computing share the cores.
    rate = 1 / (1 / loaded + 1 / computed)
    say(f"measured   {computed:,.0f} pairs/s computed, {loaded:,.0f} loaded, {rate:,.0f} together")
    return round(seconds * rate / plan.batch_size)


def read_curve(corpus: Corpus) -> list[Line]:
    """Return step, pairs seen, minutes of training, loss and accuracy at each evaluation."""
    lines = read_json_lines(storage.join(corpus.workspace.path("train"), "metrics.jsonl"))
    table = corpus.workspace.read_table("train", "evaluations", schemas.TRAINING_EVALUATIONS)
    curve, seconds, at = [], 0.0, dict[int, Line]()
    for line in lines:
        if "evaluation" not in line:
            seconds += line["data_seconds"] + line["compute_seconds"]
            at[line["step"]] = {"minutes": seconds / 60, "loss": line["loss"]}
    for row in table.to_pylist():
        if row["evalset"] == EVALSET and row["weights"] == "trained":
            # Of the interval that ends there, or before.
            known = at[max(step for step in at if step <= row["step"])]
            right, images = round(row["top1"] * row["images"]), row["images"]
            low, high = clopper_pearson(right, images)
            curve.append(
                {
                    "step": row["step"],
                    "samples": row["samples"],
                    "top1": row["top1"],
                    "low": low,
                    "high": high,
                    **known,
                }
            )
    return curve


def report(curve: list[Line], config: TrainConfig) -> str:
    """Return a table of the curve."""
    lines = [
        f"{config.model}, {config.steps:,} steps",
        "",
        "| minutes | step | pairs seen | loss | top-1 of 10,000 test pictures |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {line['minutes']:.1f} | {line['step']:,} | {line['samples']:,} | {line['loss']:.3f} "
        f"| {line['top1']:.1%} ({line['low']:.1%} to {line['high']:.1%}) |"
        for line in curve
    ]
    return "\n".join(lines)


def draw(curve: list[Line], config: TrainConfig) -> bytes:
    """Return a PNG of the accuracies over the minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    minutes = [line["minutes"] for line in curve]
    top1, low, high = ([line[name] for line in curve] for name in ("top1", "low", "high"))
    axes.fill_between(minutes, low, high, color=COLOUR, alpha=0.18, linewidth=0)
    axes.plot(minutes, top1, "o-", color=COLOUR, markersize=3, linewidth=1.6)
    axes.annotate(
        f"{top1[-1]:.1%}",
        (minutes[-1], top1[-1]),
        textcoords="offset points",
        xytext=(0, 8),
        ha="right",
        color=COLOUR,
        weight="bold",
    )
    axes.axhline(0.1, color=GREY, linewidth=0.8, linestyle=(0, (4, 4)))
    axes.annotate("chance", (0, 0.1), textcoords="offset points", xytext=(6, 4), color=GREY)
    axes.set_xlim(0, max(minutes) * 1.02)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"minutes of training on {_cores()} CPU cores", color=GREY)
    axes.set_ylabel("zero-shot accuracy, 10,000 test pictures", color=GREY)
    axes.set_title(
        f"{config.model}, trained from nothing on captioned CIFAR-10: "
        f"{curve[-1]['samples']:,} pairs",
        loc="left",
        fontsize=11,
    )
    axes.grid(visible=True, color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
