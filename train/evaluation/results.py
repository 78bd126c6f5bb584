"""What a head says of a set: rows of the tables, and what else there is to keep."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from train.evaluation.features import Features
from train.evaluation.metrics import Figure, Scores, ranks_of, summarize


class Row(Figure):
    """A row of EVALUATIONS but for the set and the head."""

    variant: str


class Prediction(TypedDict):
    """A row of PREDICTIONS but for the set and the head."""

    variant: str
    split: str
    item: str
    label: str
    predicted: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """What one head says of one set.

    Attributes:
        notes: small values by name, such as what was chosen on the validation pictures.
        files: contents by name, such as figures.
    """

    rows: list[Row]
    predictions: list[Prediction] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def classified(
    test: Features,
    scores_NC: Scores,
    classes: Sequence[str],
    *,
    variant: str = "",
) -> HeadResult:
    """Return how well the class with the highest score is the right one; N: pictures, C: classes.

    Args:
        test: pictures that have a class, at least one.
        scores_NC: the higher, the likelier, of each of `classes`; -inf for one that cannot be meant.
    """
    number = {label: i for i, label in enumerate(classes)}
    labels = [str(label) for label in test.labels]
    ranks = ranks_of(scores_NC, np.array([number[label] for label in labels])).tolist()
    best = np.argmax(scores_NC, axis=1).tolist()
    predictions = [
        Prediction(
            variant=variant, split=split, item=item, label=label, predicted=classes[i], rank=rank
        )
        for split, item, label, i, rank in zip(
            test.splits, test.items, labels, best, ranks, strict=True
        )
    ]
    rows = [Row(variant=variant, **row) for row in summarize(labels, ranks, len(classes))]
    return HeadResult(rows=rows, predictions=predictions)
