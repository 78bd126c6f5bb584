"""Evaluation sets of coloured pictures."""

from pathlib import Path

import numpy as np

from dedup.evaluation.evalsets import EvalSet
from tests.train.shards import COLOURS, png


def coloured_set(folder: Path, each: int, seed: int = 0, **settings: object) -> EvalSet:
    """Return a set of `each` pictures of every colour, 20 by 30 pixels."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            rgb = np.clip(np.array(colour) + rng.integers(-25, 25, (20, 30, 3)), 0, 255)
            (folder / name / f"{i}.png").write_bytes(png(rgb.astype(np.uint8)))
    return EvalSet.model_validate({"name": "colours", "path": str(folder), **settings})
