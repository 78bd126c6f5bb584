"""One model in training: what a step does, and what is told of it."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from pipeline.errors import ConfigError
from train.batches import Batch
from train.checkpoint import Checkpoint
from train.clip import Clip
from train.config import Plan
from train.loss import contrastive_loss
from train.optimizer import learning_rate, make_optimizer, set_learning_rate

STEP_COLUMNS = ("step", "epoch", "samples", "loss", "logit_scale", "learning_rate")

RATE_EVERY = 10
"""Steps from one line of metrics.jsonl to the next."""


class Training:
    """Weights, optimiser, and the records of the steps so far.

    Attributes:
        records: rows of TRAINING_STEPS by column, the broken samples, and the rates of metrics.jsonl.
    """

    def __init__(self, plan: Plan, *, seed: int, device: torch.device) -> None:
        """Draw the first weights, the same for the same seed on any device."""
        self._plan = plan
        self._device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = Clip(plan.model)
            self.model.initialize()
        self.model.to(device).train()
        self._optimizer = make_optimizer(self.model, plan)
        self.step = 0
        self.stream: dict[str, int] = {"epoch": 0, "position": 0}
        self.records: dict[str, Any] = {
            "steps": {name: [] for name in STEP_COLUMNS},
            "broken": [],
            "broken_reads": 0,
            "rates": [],
        }
        self._rate_since: tuple[float, int] | None = None

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where `checkpoint` was taken."""
        self.model.load_state_dict(checkpoint.model)
        self._optimizer.load_state_dict(dict(checkpoint.optimizer))
        self.step, self.stream = checkpoint.step, dict(checkpoint.stream)
        self.records = dict(checkpoint.records)

    def checkpoint(self) -> Checkpoint:
        """Return all that `resume` needs."""
        return Checkpoint(
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            stream=self.stream,
            records=self.records,
        )

    def take_step(self, batch: Batch) -> Mapping[str, float]:
        """Learn from `batch` and return the step's row of TRAINING_STEPS.

        Raises:
            ConfigError: if the loss is no longer a number.
        """
        self._rate_since = self._rate_since or (time.monotonic(), self.step)
        rate = learning_rate(self.step, self._plan)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.zero_grad()
        loss = contrastive_loss(
            self.model.encode_image(torch.from_numpy(batch.pixels_B3SS).to(self._device)),
            self.model.encode_text(torch.from_numpy(batch.tokens_BL).to(self._device)),
            self.model.logit_scale,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.model.limit_logit_scale()
        if not math.isfinite(loss.item()):
            raise ConfigError(
                f"the loss is {loss.item()} at step {self.step + 1}; "
                f"set train.learning_rate below {self._plan.learning_rate:g}"
            )
        return self._record(batch, loss.item(), rate)

    def _record(self, batch: Batch, loss: float, rate: float) -> Mapping[str, float]:
        self.step += 1
        self.stream = batch.state
        steps = self.records["steps"]
        row = {
            "step": self.step,
            "epoch": batch.samples[-1].epoch,
            "samples": (steps["samples"] or [0])[-1] + len(batch.pixels_B3SS),
            "loss": loss,
            "logit_scale": self.model.logit_scale.exp().item(),
            "learning_rate": rate,
        }
        for name, value in row.items():
            steps[name].append(value)
        self._record_broken(batch)
        if self.step % RATE_EVERY == 0 or self.step == self._plan.steps:
            self._record_rate(row)
        return row

    def _record_broken(self, batch: Batch) -> None:
        self.records["broken_reads"] += len(batch.broken)
        # Every sample is met once in epoch 0, so none is named twice.
        self.records["broken"] += [
            {
                "pair_id": b.sample.pair_id,
                "reason": b.reason,
                "detail": f"{b.sample.shard}: {b.detail}",
            }
            for b in batch.broken
            if b.sample.epoch == 0
        ]

    def _record_rate(self, row: Mapping[str, float]) -> None:
        assert self._rate_since is not None
        since, step = self._rate_since
        self._rate_since = (time.monotonic(), self.step)
        seconds = (self._rate_since[0] - since) / (self.step - step)
        self.records["rates"].append(
            {
                "step": self.step,
                "loss": row["loss"],
                "seconds_per_step": seconds,
                "samples_per_second": self._plan.batch_size / seconds,
            }
        )
