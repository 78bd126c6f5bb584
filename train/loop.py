"""Train a contrastive model on the shards, on one process or many (CLIP, section 2.5).

All ranks read, compute and evaluate; only the first one writes and speaks.
"""

import os
from contextlib import closing
from dataclasses import asdict

import pyarrow as pa

from pipeline import schemas
from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import MAIN, Manifest, Outcome
from pipeline.runtime.progress import say
from pipeline.runtime.stage import StageRun, begin
from pipeline.runtime.workspace import Workspace
from train.config import RESUME, Plan, TrainConfig, make_plan
from train.learning.device import computing
from train.learning.distributed import Distributed, start
from train.models.clip import Clip, count_parameters
from train.models.initial import load_weights
from train.running.checkpoint import checkpoints, load_checkpoint, prune, save_model
from train.running.learning_curve import labelled_sets
from train.running.telemetry import require_tensorboard
from train.running.trainer import CHECKPOINTS, Trainer
from train.sources import TrainingData, open_training_data

MODEL = "model.pt"
AVERAGED_MODEL = "model_ema.pt"


def run(config: TrainConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Train on the samples of the stage "shard" or of other sources, or go on with an interrupted run.

    Writes TRAINING_STEPS, TRAINING_EVALUATIONS, `model.pt`, the newest checkpoints, and `metrics.jsonl`.
    A run that was killed and started again ends with the same tables and model as one that was not, on
    the CPU. Processes that torchrun started share every batch.

    Raises:
        InputError: if there are no samples, too many of a batch are broken, or the weights to begin
            from are another model's.
        ConfigError: if the settings do not fit the samples, or the loss is no number any more.
        CorruptWorkspace: if the newest checkpoint is damaged.
        KeyboardInterrupt: after a checkpoint, if a signal asked the run to stop.
        SystemExit: in all processes but the one that tells of an error.
    """
    with computing(config.device, config.threads) as device, start(device) as ranks:
        with ranks.together():
            data = open_training_data(config, workspace)
        with closing(data):
            return _run(config, workspace, data, ranks)


def _run(
    config: TrainConfig, workspace: Workspace, data: TrainingData, ranks: Distributed
) -> Manifest:
    stage, done, checkpoint = None, None, None
    with ranks.together():
        # Before `begin`, which deletes what an earlier run with other settings made.
        plan = make_plan(config, data.samples)
        evalsets = labelled_sets(config.evalsets) if config.evalsets else []
        if config.tensorboard:
            require_tensorboard()
        if ranks.is_first:
            stage = _begin(config, plan, workspace, data)
            done, checkpoint = stage.done, _checkpoint_of(stage, config)
    done, checkpoint = ranks.told((done, checkpoint))
    if done is None:
        for line in data.describe() if stage else ():
            say(f"train      {line}")
        trainer = Trainer(plan, config, data, evalsets, ranks, workspace.path("train"))
        with ranks.together():
            trainer.begin(checkpoint)
        trainer.train()
        with ranks.together():
            done = _finish(trainer, stage, data.samples) if stage else None
        done = ranks.told(done)
    manifest: Manifest = done
    return manifest


def _begin(config: TrainConfig, plan: Plan, workspace: Workspace, data: TrainingData) -> StageRun:
    folder = workspace.path("train")
    for name, path in (("initial", config.initial), ("tensorboard", config.tensorboard)):
        if path and _is_inside(path, folder):
            raise ConfigError(
                f"train.{name} is {path}, in the folder that the stage itself writes and clears; "
                "expected another place"
            )
    if config.initial:
        load_weights(config.initial, Clip(plan.model))
    given = _given_checkpoint(config, folder)
    if given:
        _check_checkpoint(given, plan, config, data)
    stage = begin(
        "train",
        config,
        workspace,
        reads=data.reads,
        files={**data.files, **({"initial": config.initial} if config.initial else {})},
        keep=[given] if given else [],
        anew=config.resume != "latest",
    )
    if config.resume == "never" and not stage.done:
        prune(storage.join(stage.folder, CHECKPOINTS), keep=0)
    return stage


def _is_inside(path: str, folder: str) -> bool:
    if not (storage.is_url(path) or storage.is_url(folder)):
        path, folder = (os.path.realpath(storage.local_path(name)) for name in (path, folder))
    return path.startswith(storage.join(folder, ""))


def _given_checkpoint(config: TrainConfig, folder: str) -> str | None:
    """Return the path given, as `folder` lists it if it lies in there, whatever links lead to it."""
    if config.resume in RESUME:
        return None
    if storage.is_url(config.resume):
        return config.resume
    given = storage.local_path(config.resume)
    listed = [] if storage.is_url(folder) else storage.list_inside(folder)
    return next((own for own in listed if os.path.realpath(own) == os.path.realpath(given)), given)


def _check_checkpoint(path: str, plan: Plan, config: TrainConfig, data: TrainingData) -> None:
    checkpoint = load_checkpoint(path)
    if checkpoint.spec != asdict(plan.model):
        raise InputError(
            f"{path} is of another model than train.model, quick_gelu and loss say; "
            "give those it was trained with"
        )
    if checkpoint.step >= plan.steps:
        raise ConfigError(
            f"{path} is of step {checkpoint.step:,}, expected one before the last, {plan.steps:,}; "
            "raise train.steps or train.epochs"
        )
    stream = data.stream(batch_size=plan.batch_size, seed=config.seed, window=config.shuffle_window)
    try:
        stream.load_state_dict(checkpoint.stream)
    except ConfigError as error:
        raise ConfigError(f"{path} does not fit: {error}") from error
    finally:
        stream.close()


def _checkpoint_of(stage: StageRun, config: TrainConfig) -> str | None:
    """Return where to go on: this run's own newest checkpoint, else the one given."""
    own = checkpoints(storage.join(stage.folder, CHECKPOINTS))
    return own[-1] if own else _given_checkpoint(config, stage.folder)


def _finish(trainer: Trainer, stage: StageRun, samples: int) -> Manifest:
    training, records = trainer.training, trainer.records
    steps = pa.table(records.steps, schema=schemas.TRAINING_STEPS)
    path = stage.output(0).name("parquet")
    main = stage.workspace.write(path, steps, schemas.TRAINING_STEPS)
    for name, rows, schema in (
        ("broken", records.broken, schemas.DROPS),
        ("evaluations", records.evaluations, schemas.TRAINING_EVALUATIONS),
    ):
        if rows:
            stage.write_table(name, pa.Table.from_pylist(rows, schema), schema)
    _write_model(stage, "model", MODEL, training.model)
    if training.average:
        _write_model(stage, "model_ema", AVERAGED_MODEL, training.average.model)
    counters = {
        "parameters": count_parameters(training.model),
        "broken_samples": len(records.broken),
        "broken_reads": records.broken_reads,
    }
    return stage.finish(
        [Outcome(rows_in=samples, rows_out=samples, parts={MAIN: [main]}, counters=counters)]
    )


def _write_model(stage: StageRun, table: str, name: str, model: Clip) -> None:
    save_model(storage.join(stage.folder, name), model)
    stage.add(table, stage.workspace.describe(f"{stage.name}/{name}", rows=0))
