"""What a set's predictions amount to: rows of EVALUATIONS."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pipeline.intervals import clopper_pearson

TOP = (1, 5)


def summarize(evalset: str, labels: Sequence[str], ranks: Sequence[int], classes: int) -> list[Any]:
    """Return the rows of EVALUATIONS of one set.

    Args:
        labels: true class of each picture, at least one.
        ranks: rank that each picture's true class got, from 1.
        classes: how many there were to choose from; top5 is left out where it says nothing.
    """
    images = len(ranks)
    common = {"evalset": evalset, "images": images, "classes": classes}
    rows: list[Any] = []
    for k in TOP:
        if k == 1 or k < classes:
            hits = sum(rank <= k for rank in ranks)
            low, high = clopper_pearson(hits, images)
            rows.append(
                {"metric": f"top{k}", "value": hits / images, "low": low, "high": high}
                | {"chance": k / classes, **common}
            )
    rows.append(
        {"metric": "mean_per_class", "value": _mean_per_class(labels, ranks), "low": None}
        | {"high": None, "chance": 1 / classes, **common}
    )
    return rows


def _mean_per_class(labels: Sequence[str], ranks: Sequence[int]) -> float:
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for label, rank in zip(labels, ranks, strict=True):
        hits[label].append(rank == 1)
    return sum(sum(of_class) / len(of_class) for of_class in hits.values()) / len(hits)
