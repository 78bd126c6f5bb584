"""What predictions amount to: accuracies with their intervals, by class, and which classes are mixed up.

N: pictures, C: classes.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from pipeline.intervals import clopper_pearson

Scores = npt.NDArray[np.floating[Any]]

TOP = (1, 5)


class Figure(TypedDict):
    """A metric's value with its interval, beside chance."""

    metric: str
    value: float
    low: float | None
    high: float | None
    chance: float
    images: int
    classes: int


class ClassFigure(TypedDict):
    """How one class fared; `taken_for` is what its pictures were most often taken for instead."""

    label: str
    images: int
    value: float
    low: float
    high: float
    taken_for: str | None
    taken_for_images: int


class Confusion(TypedDict):
    """Pictures of one class that were taken for another; `share` is of all pictures of the class."""

    label: str
    predicted: str
    images: int
    share: float


def ranks_of(scores_NC: Scores, truth_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rank, from 1, of each picture's true class; of equal scores the first class comes first."""
    own_N1 = np.take_along_axis(scores_NC, truth_N[:, None], axis=1)
    better_N = (scores_NC > own_N1).sum(axis=1)
    is_earlier_NC = np.arange(scores_NC.shape[1]) < truth_N[:, None]
    equal_N = ((scores_NC == own_N1) & is_earlier_NC).sum(axis=1)
    return np.asarray(better_N + equal_N + 1, np.int64)


def summarize(labels: Sequence[str], ranks: Sequence[int], classes: int) -> list[Figure]:
    """Return the accuracies of one set.

    Args:
        labels: true class of each picture, at least one.
        ranks: rank that each picture's true class got, from 1.
        classes: how many there were to choose from; top5 is left out where it says nothing.
    """
    images = len(ranks)
    figures = []
    for k in TOP:
        if k == 1 or k < classes:
            hits = sum(rank <= k for rank in ranks)
            low, high = clopper_pearson(hits, images)
            figures.append(
                Figure(
                    metric=f"top{k}",
                    value=hits / images,
                    low=low,
                    high=high,
                    chance=k / classes,
                    images=images,
                    classes=classes,
                )
            )
    figures.append(
        Figure(
            metric="mean_per_class",
            value=_mean_per_class(labels, ranks),
            low=None,
            high=None,
            chance=1 / classes,
            images=images,
            classes=classes,
        )
    )
    return figures


def _mean_per_class(labels: Sequence[str], ranks: Sequence[int]) -> float:
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for label, rank in zip(labels, ranks, strict=True):
        hits[label].append(rank == 1)
    return sum(sum(of_class) / len(of_class) for of_class in hits.values()) / len(hits)


def by_class(labels: Sequence[str], predicted: Sequence[str]) -> list[ClassFigure]:
    """Return how each class fared, the worst first."""
    pairs = Counter(zip(labels, predicted, strict=True))
    images = Counter(labels)
    mixed_up = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    # Of equally frequent ones the first in the alphabet.
    most: dict[str, tuple[str, int]] = {}
    for (label, other), count in sorted(mixed_up.items()):
        if count > most.get(label, ("", 0))[1]:
            most[label] = (other, count)
    found = []
    for label, count in images.items():
        right = pairs[label, label]
        low, high = clopper_pearson(right, count)
        other, times = most.get(label, ("", 0))
        found.append(
            ClassFigure(
                label=label,
                images=count,
                value=right / count,
                low=low,
                high=high,
                taken_for=other or None,
                taken_for_images=times,
            )
        )
    return sorted(found, key=lambda figure: (figure["value"], figure["label"]))


def confusions(labels: Sequence[str], predicted: Sequence[str]) -> list[Confusion]:
    """Return which classes were taken for which others, the most frequent first."""
    images = Counter(labels)
    pairs = Counter(zip(labels, predicted, strict=True))
    found = [
        Confusion(label=label, predicted=other, images=count, share=count / images[label])
        for (label, other), count in pairs.items()
        if label != other
    ]
    return sorted(found, key=lambda pair: (-pair["images"], pair["label"], pair["predicted"]))
