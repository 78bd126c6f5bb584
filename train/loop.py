"""Train a contrastive model on the shards (CLIP, section 2.5)."""

import json
from contextlib import closing

import pyarrow as pa

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import MAIN, Manifest, Outcome
from pipeline.runtime.progress import Progress, say
from pipeline.runtime.stage import StageRun, begin
from pipeline.runtime.workspace import Workspace
from train.batches import Batch, read_batches, sample_loader
from train.checkpoint import load_newest, save_checkpoint, save_model
from train.clip import count_parameters
from train.config import Plan, TrainConfig, make_plan
from train.device import computing
from train.initial import load_weights
from train.stream import ShardStream, read_shard_index
from train.training import Training

MODEL = "model.pt"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"


def run(config: TrainConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Train on the samples of the stage "shard", or go on with an interrupted run.

    Writes TRAINING_STEPS, `model.pt`, the newest checkpoints, and rates in `metrics.jsonl`. A run that
    was killed and started again ends with the same table and model as one that was not, on the CPU.

    Raises:
        InputError: if there are no samples, too many of a batch are broken, or the weights to begin
            from are another model's.
        ConfigError: if the settings do not fit the samples.
        CorruptWorkspace: if the newest checkpoint is damaged.
    """
    # Before `begin`, which deletes what an earlier run with other settings made.
    plan = make_plan(config, sum(part.rows for part in workspace.finished("shard").parts))
    files = {"initial": config.initial} if config.initial else {}
    stage = begin("train", config, workspace, reads=["shard"], files=files)
    if stage.done:
        return stage.done
    with computing(config.device, config.threads) as device:
        training = Training(plan, seed=config.seed, device=device)
        folder = storage.join(stage.folder, CHECKPOINTS)
        if checkpoint := load_newest(folder):
            training.resume(checkpoint)
            say(f"train      goes on from step {training.step:,} of {plan.steps:,}")
        elif config.initial:
            load_weights(config.initial, training.model)
        train(training, config, plan, stage)
        return _finish(training, stage)


def train(training: Training, config: TrainConfig, plan: Plan, stage: StageRun) -> None:
    """Take the steps that are left, with a checkpoint every so often and one at the end."""
    parts = stage.parts("shard")
    stream = ShardStream(
        [part.rows for part in parts],
        read_shard_index(stage.workspace, parts),
        batch_size=plan.batch_size,
        seed=config.seed,
        window=config.shuffle_window,
    )
    stream.load_state_dict(training.stream)
    batches = read_batches(
        stream,
        sample_loader(stage.workspace, plan.model, config.seed),
        context=plan.model.text.context,
        count=plan.steps - training.step,
        readers=config.readers,
    )
    progress = Progress("train", plan.steps, done=training.step, unit="steps")
    with progress, closing(batches):
        for batch in batches:
            _check_broken(batch, config.max_broken)
            row = training.take_step(batch)
            progress.advance(
                rows=len(batch.samples), drops=len(batch.broken), loss=f"{row['loss']:.3f}"
            )
            if training.step % config.checkpoint_every == 0 or training.step == plan.steps:
                _save(training, config, stage)


def _check_broken(batch: Batch, limit: float) -> None:
    for broken in batch.broken:
        say(f"train      skips {broken.sample.pair_id} in {broken.sample.shard}: {broken.detail}")
    count, total = len(batch.broken), len(batch.samples)
    if count > limit * total or count == total:
        first = batch.broken[0]
        raise InputError(
            f"{count} of {total} samples of a batch are broken, such as {first.sample.pair_id} in "
            f"{first.sample.shard} ({first.reason}); mend the shards or raise train.max_broken ({limit:g})"
        )


def _save(training: Training, config: TrainConfig, stage: StageRun) -> None:
    save_checkpoint(
        storage.join(stage.folder, CHECKPOINTS),
        training.checkpoint(),
        keep=config.keep_checkpoints,
    )
    lines = "".join(json.dumps(rate) + "\n" for rate in training.records["rates"])
    storage.write_bytes(storage.join(stage.folder, METRICS), lines.encode())


def _finish(training: Training, stage: StageRun) -> Manifest:
    workspace, output = stage.workspace, stage.output(0)
    steps = pa.table(training.records["steps"], schema=schemas.TRAINING_STEPS)
    main = workspace.write(output.name("parquet"), steps, schemas.TRAINING_STEPS)
    broken = training.records["broken"]
    if broken:
        stage.write_table("broken", pa.Table.from_pylist(broken, schemas.DROPS), schemas.DROPS)
    save_model(storage.join(stage.folder, MODEL), training.model)
    stage.add("model", workspace.describe(f"{stage.name}/{MODEL}", rows=0))
    samples = sum(part.rows for part in stage.parts("shard"))
    return stage.finish(
        [
            Outcome(
                rows_in=samples,
                rows_out=samples,
                parts={MAIN: [main]},
                counters={
                    "parameters": count_parameters(training.model),
                    "broken_samples": len(broken),
                    "broken_reads": training.records["broken_reads"],
                },
            )
        ]
    )
