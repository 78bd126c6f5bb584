"""What a run has to tell when it ends, kept in its checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.runtime import storage
from train.running.learning_curve import Accuracy
from train.running.training import Step
from train.samples.batches import BrokenSample

STEP_COLUMNS = (
    "step",
    "epoch",
    "samples",
    "loss",
    "logit_scale",
    "learning_rate",
    "gradient_norm",
)


class Records:
    """Rows of TRAINING_STEPS by column, of TRAINING_EVALUATIONS, and of DROPS for broken samples.

    Attributes:
        broken_reads: how often a broken sample was met.
    """

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = {name: [] for name in STEP_COLUMNS}
        self.evaluations: list[dict[str, Any]] = []
        self.broken: list[dict[str, str]] = []
        self.broken_reads = 0

    def add_step(self, step: Step, *, epoch: int, pairs: int) -> None:
        """Add a step over `pairs` whole pairs."""
        before = self.steps["samples"][-1] if self.steps["samples"] else 0
        row = {**vars(step), "epoch": epoch, "samples": before + pairs}
        for name, values in self.steps.items():
            values.append(row[name])

    def add_broken(self, broken: Sequence[BrokenSample], root: str) -> None:
        """Count broken samples, and name those met for the first time, shards relative to `root`."""
        self.broken_reads += len(broken)
        # Every sample is met once in epoch 0, so none is named twice.
        self.broken += [
            {
                "pair_id": each.sample.pair_id,
                "reason": each.reason,
                "detail": f"{each.sample.shard.removeprefix(storage.join(root, ''))}: {each.detail}",
            }
            for each in broken
            if each.sample.epoch == 0
        ]

    def add_evaluation(self, step: int, weights: str, accuracy: Accuracy) -> None:
        """Add what was measured after `step` steps; `weights` says of which model."""
        samples = self.steps["samples"][-1]
        row = {"step": step, "samples": samples, "weights": weights, **vars(accuracy)}
        self.evaluations.append(row)

    def state_dict(self) -> dict[str, Any]:
        """Return them as plain values."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take those of a checkpoint."""
        vars(self).update(state)
