"""From where a run stands to its last step: steps, checkpoints, evaluation, and stops in between."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from typing import Any

from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import WitmillError
from pipeline.runtime import storage
from pipeline.runtime.progress import Progress, say
from train.config import Plan, TrainConfig
from train.learning.device import own_cores
from train.learning.distributed import Distributed
from train.learning.precision import autocast
from train.running.checkpoint import load_checkpoint, save_checkpoint
from train.running.learning_curve import measure
from train.running.records import Records
from train.running.steps import Taken, take_steps
from train.running.stopping import StopSignal
from train.running.telemetry import Telemetry
from train.running.training import NotFinite, Training
from train.samples.augment import crop_of
from train.samples.batches import read_batches, sample_loader
from train.sources import TrainingData

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"


class Trainer:
    """One run at work, on every rank; the first one writes into `folder`, the stage's.

    Attributes:
        records: what there is to tell of the steps so far.
    """

    def __init__(
        self,
        plan: Plan,
        config: TrainConfig,
        data: TrainingData,
        evalsets: Sequence[EvalSet],
        ranks: Distributed,
        folder: str,
    ) -> None:
        self._plan, self._config, self._data, self._evalsets = plan, config, data, evalsets
        self._ranks, self._folder = ranks, folder
        self.training = Training(plan, config, ranks)
        self.records = Records()
        self._stream = data.stream(
            batch_size=plan.batch_size,
            seed=config.seed,
            window=config.shuffle_window,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        self._stream_state = self._stream.state_dict()
        self._telemetry_state: dict[str, object] | None = None
        self._newest: tuple[int, str] | None = None
        self._saved_at = time.monotonic()

    def begin(self, checkpoint: str | None) -> None:
        """Take the weights to begin with: those of a checkpoint, those that the settings name, or random ones.

        Raises:
            CorruptWorkspace: if the checkpoint is damaged.
            ConfigError: if it was taken on other samples.
            InputError: if the weights that the settings name are another model's.
        """
        if checkpoint is None:
            if self._config.initial:
                self.training.start_from(self._config.initial)
            return
        found = load_checkpoint(checkpoint)
        self._stream.load_state_dict(found.stream)
        self.training.resume(found)
        self.records.load_state_dict(found.records)
        self._stream_state, self._telemetry_state = found.stream, dict(found.telemetry)
        self._newest = found.step, checkpoint
        if self._ranks.is_first:
            say(f"train      goes on from step {found.step:,} of {self._plan.steps:,}")

    def train(self) -> None:
        """Take the steps that are left, with a checkpoint every so often and one at the end.

        Raises:
            InputError: if too many samples are broken.
            NotFinite: if the loss is no number any more, with the checkpoint to go back to.
            KeyboardInterrupt: after a checkpoint, if a signal asked for it.
        """
        with self._ranks.together():
            opened = self._open_telemetry()
        with StopSignal() as stop, opened as telemetry, self._progress() as progress:
            try:
                self._take_steps(stop, telemetry, progress)
                if self.training.step < self._plan.steps:
                    self._stop(stop, telemetry)
            except NotFinite as error:
                # The same on all ranks, which have the same loss and gradient.
                if not self._ranks.is_first:
                    raise SystemExit(1) from error
                raise NotFinite(f"{error}; {self._way_back()}") from error

    def _take_steps(
        self, stop: StopSignal, telemetry: Telemetry, progress: Progress | None
    ) -> None:
        config, plan = self._config, self._plan
        batches = read_batches(
            self._stream,
            sample_loader(self._data.read, plan.model, config.seed, crop_of(config)),
            context=plan.model.text.context,
            count=plan.steps - self.training.step,
            readers=config.readers or own_cores(),
            pinned=self._ranks.device.type == "cuda",
        )
        with closing(batches):
            for taken in take_steps(
                self.training,
                batches,
                self._ranks,
                max_broken=config.max_broken,
                telemetry=telemetry,
                stop=stop,
            ):
                self._note(taken)
                if progress:
                    figures: Any = telemetry.figures
                    progress.advance(rows=taken.pairs, drops=len(taken.broken), **figures)
                with telemetry.apart():
                    if self._evalsets and self._is_due(config.evaluate_every):
                        self._evaluate_or_save(telemetry)
                    if self._is_due(config.checkpoint_every) or self._is_long_ago():
                        self._save(telemetry)

    def _note(self, taken: Taken) -> None:
        self._stream_state = taken.state
        self.records.add_step(taken.step, epoch=taken.epoch, pairs=taken.pairs)
        self.records.add_broken(taken.broken, storage.parent(self._folder))

    def _is_due(self, every: int) -> bool:
        return self.training.step % every == 0 or self.training.step == self._plan.steps

    def _is_long_ago(self) -> bool:
        minutes = self._config.checkpoint_minutes
        if minutes is None:
            return False
        # By one clock, or ranks would not agree.
        passed: bool = self._ranks.told(time.monotonic() - self._saved_at >= minutes * 60)
        return passed

    def _evaluate_or_save(self, telemetry: Telemetry) -> None:
        try:
            self._evaluate(telemetry)
        except (WitmillError, SystemExit):
            # Pictures that cannot be read cost no steps; after the last one they are asked for again.
            if self.training.step < self._plan.steps:
                self._save(telemetry)
            raise

    def _evaluate(self, telemetry: Telemetry) -> None:
        models = {"trained": self.training.model}
        if self.training.average:
            models["averaged"] = self.training.average.model
        values = {}
        for evalset in self._evalsets:
            found = measure(
                models,
                evalset,
                self._ranks,
                readers=self._config.readers or own_cores(),
                precise=autocast(self.training.precision, self._ranks.device),
            )
            for weights, accuracy in found.items():
                self.records.add_evaluation(self.training.step, weights, accuracy)
                values[f"{accuracy.evalset}/top1/{weights}"] = accuracy.top1
        if self._ranks.is_first:
            shown = ", ".join(f"{name} {value:.1%}" for name, value in values.items())
            say(f"train      step {self.training.step:,}: {shown}")
        with self._ranks.together():
            telemetry.evaluated(self.training.step, values)

    def _save(self, telemetry: Telemetry) -> None:
        # Others wait, so that all end if the first one cannot write.
        with self._ranks.together():
            if self._ranks.is_first:
                telemetry.flush()
                checkpoint = replace(
                    self.training.checkpoint(),
                    stream=self._stream_state,
                    records=self.records.state_dict(),
                    telemetry=telemetry.state_dict(),
                )
                folder = storage.join(self._folder, CHECKPOINTS)
                path = save_checkpoint(folder, checkpoint, keep=self._config.keep_checkpoints)
                self._newest = checkpoint.step, path
        self._saved_at = time.monotonic()

    def _stop(self, stop: StopSignal, telemetry: Telemetry) -> None:
        step = self.training.step
        if step and not self._ranks.told(self._newest is not None and self._newest[0] == step):
            self._save(telemetry)
        if self._ranks.is_first:
            kept = f"{self._newest[1]} is saved" if self._newest else "nothing is to be saved yet"
            say(
                f"train      stops after step {step:,} of {self._plan.steps:,}, "
                f"as {stop.name or 'a signal'} asks; {kept}"
            )
        raise KeyboardInterrupt

    def _way_back(self) -> str:
        lower = f"a learning rate below {self._plan.learning_rate:g}"
        if self._newest is None:
            return f"no checkpoint has been saved yet; begin with {lower} (train.learning_rate)"
        step, path = self._newest
        return (
            f"the last good checkpoint, of step {step:,}, is kept: {path}; go on from it with "
            f"{lower}: --resume {path} --learning-rate ..."
        )

    def _open_telemetry(self) -> Telemetry:
        first = self._ranks.is_first
        return Telemetry(
            storage.join(self._folder, METRICS) if first else None,
            self._plan.model,
            device=self._ranks.device,
            precision=self.training.precision,
            every=self._config.log_every,
            last=self._plan.steps,
            world_size=self._ranks.world_size,
            patch_dropout=self._config.patch_dropout,
            state=self._telemetry_state,
            tensorboard=self._config.tensorboard,
        )

    def _progress(self) -> AbstractContextManager[Progress | None]:
        if not self._ranks.is_first:
            return nullcontext()
        return Progress("train", self._plan.steps, done=self.training.step, unit="steps")
