"""How accuracy falls when pictures are corrupted (Hendrycks and Dietterich, 2019).

A picture is corrupted as the model would see it: its centre square, reduced to the model's resolution
where it is larger, and enlarged to it only afterwards. All conditions see the same pictures.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from dedup.evaluation.evalsets import EvalSet, entries
from pipeline.intervals import clopper_pearson
from pipeline.pictures.contact_sheet import Section, Tile, draw_sheet
from pipeline.pictures.images import Pixels, decode
from pipeline.runtime.progress import Progress
from train.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from train.evaluation.features import Features
from train.evaluation.results import HeadResult, Row
from train.evaluation.subject import Subject
from train.samples.augment import CENTRE, square_crop

CLEAN: Final = "clean"
CORRUPTED: Final = "corrupted"

# Conditions whose pictures are made while the model is at work on others.
_AHEAD: Final = 2


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One corruption at one severity; severity 0 is none."""

    corruption: str
    severity: int

    @property
    def name(self) -> str:
        """Such as "fog/3"."""
        return f"{self.corruption}/{self.severity}" if self.severity else self.corruption

    def apply(self, square: Pixels, item: str) -> Pixels:
        """Return the picture under this condition."""
        return corrupt(self.corruption, self.severity, square, item) if self.severity else square


def robustness(subject: Subject) -> HeadResult:
    """Return the accuracy of the zero-shot classifier under each corruption, and the drop from the clean pictures.

    Variants are "clean", "fog/3", "fog" for the mean of its severities, "corrupted/3" for that of all
    corruptions, and "corrupted" for that of everything.
    """
    config = subject.config
    conditions = [Condition(corruption=CLEAN, severity=0)]
    conditions += [Condition(corruption=c, severity=s) for c in CORRUPTIONS for s in config.severities]  # fmt: skip
    chosen = choose(subject.test.labelled(), config.corruption_pictures)
    hits = count_hits(subject, conditions, chosen)
    accuracy = {name: count / len(chosen) for name, count in hits.items()}
    intervals = {name: clopper_pearson(count, len(chosen)) for name, count in hits.items()}
    means = mean_accuracies(accuracy, config.severities)
    rows = _rows({**accuracy, **means}, intervals, len(chosen), len(subject.classes))
    item = next(iter(chosen))
    ((_, square),) = squares(subject.evalset, {item}, subject.embedder.model.spec.resolution)
    return HeadResult(
        rows=rows,
        files={
            "corruptions.png": draw_corruptions(square, item),
            "robustness.md": markdown({**accuracy, **means}, config.severities).encode(),
        },
    )


def choose(test: Features, most: int) -> dict[str, str]:
    """Return at most so many pictures, chosen by hash of their names, with their classes; 0 for all."""
    labels = {
        item: label
        for item, label in zip(test.items, test.labels, strict=True)
        if label is not None
    }
    # A hash of its own: one of the item alone may have chosen what a corpus or a set is made of.
    ordered = sorted(labels, key=lambda item: xxhash.xxh3_64_intdigest(f"corrupt\0{item}".encode()))
    return {item: labels[item] for item in (ordered[:most] if most else ordered)}


@torch.inference_mode()
def count_hits(
    subject: Subject, conditions: Sequence[Condition], chosen: Mapping[str, str]
) -> dict[str, int]:
    """Return of how many of the chosen pictures the right class was found, by condition."""
    embedder, device = subject.embedder, subject.embedder.device
    weights_CD = torch.from_numpy(subject.classifier(subject.config.templates[0])).to(device)
    number = {label: i for i, label in enumerate(subject.classes)}
    hits = dict.fromkeys((condition.name for condition in conditions), 0)
    resolution = embedder.model.spec.resolution
    reader = squares(subject.evalset, chosen, resolution)
    with (
        ThreadPoolExecutor(embedder.readers, thread_name_prefix="corrupt") as pool,
        Progress(f"  {subject.evalset.name} corrupted", len(chosen), unit="pictures") as progress,
    ):
        while batch := list(islice(reader, embedder.batch_size)):
            truth_B = torch.tensor([number[chosen[item]] for item, _ in batch])
            for condition, pixels_B3SS in _ahead(pool, batch, conditions, resolution):
                pixels = torch.from_numpy(pixels_B3SS).to(device)
                with embedder.computing():
                    images_BD = embedder.model.encode_image(pixels)
                best_B = (images_BD.float() @ weights_CD.T).argmax(dim=1).cpu()
                hits[condition.name] += int((best_B == truth_B).sum())
                progress.advance(0, rows=len(batch))
            progress.advance(len(batch))
    return hits


def squares(
    evalset: EvalSet, wanted: Collection[str], resolution: int
) -> Iterator[tuple[str, Pixels]]:
    """Yield names and centre squares, [S, S, 3], of pictures known to be readable.

    S is `resolution`, or the shorter side of a smaller picture.
    """
    left = len(wanted)
    for entry in entries(evalset):
        if entry.item in wanted and entry.read is not None:
            rgb = decode(entry.read(), short_side=resolution).rgb
            side = min(resolution, *rgb.shape[:2])
            square = square_crop(rgb, side, CENTRE).transpose(1, 2, 0)
            yield entry.item, np.ascontiguousarray(square)
            left -= 1
            if not left:
                return


def mean_accuracies(accuracy: Mapping[str, float], severities: Sequence[int]) -> dict[str, float]:
    """Return the mean of each corruption, of each severity, and of everything, by variant."""
    means = {c: fmean(accuracy[f"{c}/{s}"] for s in severities) for c in CORRUPTIONS}
    by_severity = {
        f"{CORRUPTED}/{s}": fmean(accuracy[f"{c}/{s}"] for c in CORRUPTIONS) for s in severities
    }
    return {**means, **by_severity, CORRUPTED: fmean(means.values())}


def markdown(accuracy: Mapping[str, float], severities: Sequence[int]) -> str:
    """Return a table of accuracies, a row for each corruption and one for all."""
    head = ["corruption", *(f"severity {s}" for s in severities), "mean", "drop"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name in (*CORRUPTIONS, CORRUPTED):
        figures = [accuracy[f"{name}/{s}"] for s in severities] + [accuracy[name]]
        cells = [f"{figure:.1%}" for figure in figures]
        drop = f"{100 * (accuracy[CLEAN] - accuracy[name]):.1f}"
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {drop} |")
    return "\n".join([*lines, "", f"Clean: {accuracy[CLEAN]:.1%}; the drop is in points.", ""])


def draw_corruptions(square: Pixels, item: str) -> bytes:
    """Return a PNG of a picture and what each corruption makes of it, severities from 1 to 5."""
    tiles = [
        Tile(
            pictures=(square, *(corrupt(name, s, square, item) for s in SEVERITIES)),
            lines=(name.replace("_", " "), ""),
        )
        for name in CORRUPTIONS
    ]
    heading = "as it is, then severity 1 to 5"
    return draw_sheet(item, [Section(heading=heading, tiles=tiles)])


def _ahead(
    pool: ThreadPoolExecutor,
    batch: Sequence[tuple[str, Pixels]],
    conditions: Iterable[Condition],
    resolution: int,
) -> Iterator[tuple[Condition, npt.NDArray[np.uint8]]]:
    """Yield the batch under each condition as the model takes it, some conditions ahead."""

    def prepare(condition: Condition, item: str, square: Pixels) -> npt.NDArray[np.uint8]:
        return square_crop(condition.apply(square, item), resolution, CENTRE)

    waiting: deque[tuple[Condition, list[Future[npt.NDArray[np.uint8]]]]] = deque()
    left = iter(conditions)
    while True:
        for condition in islice(left, 1 + _AHEAD - len(waiting)):
            futures = [pool.submit(prepare, condition, item, square) for item, square in batch]
            waiting.append((condition, futures))
        if not waiting:
            return
        condition, futures = waiting.popleft()
        yield condition, np.stack([future.result() for future in futures])


def _rows(
    accuracy: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    images: int,
    classes: int,
) -> list[Row]:
    rows = []
    for variant, value in accuracy.items():
        low, high = intervals.get(variant, (None, None))
        rows.append(
            Row(
                variant=variant,
                metric="top1",
                value=value,
                low=low,
                high=high,
                chance=1 / classes,
                images=images,
                classes=classes,
            )
        )
    drops = [
        Row({**row, "metric": "drop", "value": accuracy[CLEAN] - row["value"], "low": None, "high": None, "chance": 0.0})
        for row in rows
        if row["variant"] != CLEAN
    ]  # fmt: skip
    return rows + drops
