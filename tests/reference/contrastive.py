"""The symmetric contrastive loss as the paper's figure 3 writes it, slowly and in double precision."""

import math

import numpy as np
import numpy.typing as npt


def symmetric_loss(
    image: npt.NDArray[np.float64], text: npt.NDArray[np.float64], log_scale: float
) -> float:
    """Return the mean cross-entropy along both axes of the full matrix of logits."""
    logits = [[math.exp(log_scale) * float(np.dot(i, t)) for t in text] for i in image]
    by_text = [list(column) for column in zip(*logits, strict=True)]
    return (_cross_entropy(logits) + _cross_entropy(by_text)) / 2


def _cross_entropy(rows: list[list[float]]) -> float:
    losses = []
    for right, row in enumerate(rows):
        highest = max(row)
        total = math.fsum(math.exp(logit - highest) for logit in row)
        losses.append(math.log(total) - (row[right] - highest))
    return math.fsum(losses) / len(losses)
