"""Made-up features: a cloud of pictures around a centre for each class."""

from collections.abc import Sequence

import numpy as np

from train.evaluation.features import Features


def features_from(vectors: object, labels: Sequence[str | None], prefix: str = "") -> Features:
    count = len(labels)
    return Features(
        evalset="toy",
        items=[f"{prefix}{i}.png" for i in range(count)],
        splits=[""] * count,
        labels=list(labels),
        captions=[()] * count,
        vectors_ND=np.asarray(vectors, np.float32).reshape(count, -1),
    )


def clouds(
    seed: int, counts: Sequence[int], *, width: int = 6, spread: float = 1.0, prefix: str = ""
) -> Features:
    """Return `counts[c]` pictures of each class c; the centres depend on neither seed nor counts."""
    centres = np.random.default_rng(99).normal(size=(len(counts), width))
    rng = np.random.default_rng(seed)
    labels = [f"class {c}" for c, count in enumerate(counts) for _ in range(count)]
    numbers = np.repeat(np.arange(len(counts)), counts)
    vectors = centres[numbers] + spread * rng.normal(size=(len(labels), width))
    return features_from(vectors, labels, prefix)
