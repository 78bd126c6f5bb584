"""Measure a model on evaluation sets: every head on every set that it suits, each computed once.

The task of a set's features comes before those of its heads, and all leave receipts, so a run that was
killed does nothing twice.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch

from dedup.evaluation.evalsets import EvalSet, files_of, places_of, read_evalsets
from pipeline import schemas
from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import DROPS, MAIN, Manifest, Outcome, Part
from pipeline.runtime.stage import StageRun, begin
from pipeline.runtime.workspace import Workspace
from train.evaluation.config import EvaluateConfig, HeadName
from train.evaluation.embedder import Embedder, make_embedder
from train.evaluation.features import BROKEN
from train.evaluation.heads import HEADS, choose
from train.evaluation.metrics import by_class, confusions
from train.evaluation.result_files import HEAD_RESULTS, RESULTS, describe, write_results
from train.evaluation.results import HeadResult
from train.evaluation.subject import Subject
from train.learning.device import computing
from train.loop import MODEL
from train.models.initial import load_any
from train.running.checkpoint import load_model

PREDICTIONS, CLASSES, CONFUSIONS = "predictions", "classes", "confusions"
FILES = "files"
FEATURES = "features"
"""Folder of a workspace that keeps what models make of pictures, whatever is measured with it."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A head on a set, or, without a head, the features that all of the set's heads begin with."""

    evalset: EvalSet
    head: HeadName | None
    index: int


def run(config: EvaluateConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Measure the model that `config` names, or that of the stage "train", on the evaluation sets.

    Writes EVALUATIONS, one row per set, head, variant and metric; PREDICTIONS, CLASS_RESULTS and
    CONFUSIONS of heads that classify; results.json and results.md.

    Raises:
        ConfigError: if no evaluation sets are named.
        InputError: if a set cannot be read, or none suits a head; or `config.model` is no model.
        TaskFailed: if a set's pictures cannot be read, or a head fails; the others are finished first.
    """
    if not config.evalsets:
        raise ConfigError(
            "evaluate.evalsets is not set, expected a TOML file that names the sets (--sets)"
        )
    evalsets = read_evalsets(config.evalsets)
    files = files_of(config.evalsets, evalsets)
    if any("train" in HEADS[head].needs for head in config.heads):
        files |= _learnt_from(evalsets)
    if config.model:
        files["weights of the model"] = config.model
    reads = () if config.model else ("train",)
    stage = begin("evaluate", config, workspace, reads=reads, files=files)
    if stage.done:
        return stage.done
    chosen = choose(evalsets, config.heads)
    parts = [(evalset, head) for evalset, heads in chosen for head in (None, *heads)]
    tasks = [Measurement(evalset=e, head=head, index=i) for i, (e, head) in enumerate(parts)]
    with computing(config.device, config.threads) as device:
        evaluation = Evaluation(config=config, stage=stage, device=device)
        model = evaluation.embedder.model
        outcomes = stage.map(InlineExecutor(), "evaluate", evaluation.measure, tasks)
        for part in write_results(stage, outcomes, evaluation.model_path, model):
            stage.add(RESULTS, part)
    return stage.finish(outcomes)


def _learnt_from(evalsets: Sequence[EvalSet]) -> dict[str, str]:
    """Return the files and folders that heads learn from, under names that are their own."""
    return {
        f"{name}, {part}": path
        for evalset in evalsets
        for part in ("train", "validation")
        if (learnt := evalset.learns_from(part)) is not None
        for name, path in places_of(learnt).items()
    }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One run: the model, and the set at hand."""

    config: EvaluateConfig
    stage: StageRun
    device: torch.device

    @property
    def model_path(self) -> str:
        """The file of the model's weights."""
        return self.config.model or self.stage.workspace.path("train", MODEL)

    @cached_property
    def embedder(self) -> Embedder:
        """The model at work."""
        config = self.config
        model = (
            load_any(self.model_path, resolution=config.resolution, quick_gelu=config.quick_gelu)
            if config.model
            else load_model(self.model_path)
        )
        return make_embedder(
            model,
            device=self.device,
            folder=config.features or self.stage.workspace.path(FEATURES),
            precision=config.precision,
            batch_size=config.batch_size,
            readers=config.readers,
        )

    @cached_property
    def _subjects(self) -> dict[str, Subject]:
        return {}

    def subject(self, evalset: EvalSet) -> Subject:
        """Return the set with this model; only the latest is kept in memory."""
        if evalset.name not in self._subjects:
            self._subjects.clear()
            self._subjects[evalset.name] = Subject(
                embedder=self.embedder, evalset=evalset, config=self.config
            )
        return self._subjects[evalset.name]

    def measure(self, task: Measurement) -> Outcome:
        """Do one task and write what comes of it."""
        subject = self.subject(task.evalset)
        if task.head is None:
            return self._look(subject, task.index)
        return self._write(task, task.head, HEADS[task.head].measure(subject))

    def _look(self, subject: Subject, index: int) -> Outcome:
        test = subject.test
        parts = {}
        if test.drops:
            rows = pa.Table.from_pylist(test.drops, schemas.DROPS)
            name = self.stage.output(index).name("parquet", DROPS)
            parts[DROPS] = [self.stage.workspace.write(name, rows, schemas.DROPS)]
        return Outcome(
            rows_in=len(test.items) + len(test.drops),
            rows_out=len(test.items),
            drops={BROKEN: len(test.drops)} if test.drops else {},
            parts=parts,
        )

    def _write(self, task: Measurement, head: HeadName, result: HeadResult) -> Outcome:
        output, workspace = self.stage.output(task.index), self.stage.workspace
        common = {"evalset": task.evalset.name, "head": head}
        parts: dict[str, list[Part]] = {}
        for table, rows, schema in _tables(result):
            if rows:
                full = pa.Table.from_pylist([common | row for row in rows], schema)
                parts[table] = [workspace.write(output.name("parquet", table), full, schema)]
        names = [f"{FILES}/{task.evalset.name}/{head}/{name}" for name in result.files]
        for name, content in zip(names, result.files.values(), strict=True):
            path = f"{self.stage.name}/{name}"
            storage.write_bytes(workspace.path(path), content)
            parts.setdefault(FILES, []).append(workspace.describe(path, rows=0))
        path = output.name("json", HEAD_RESULTS)
        described = json.dumps(describe(result, common, names), indent=1)
        storage.write_bytes(workspace.path(path), described.encode())
        parts[HEAD_RESULTS] = [workspace.describe(path, rows=len(result.rows))]
        return Outcome(parts=parts)


def _tables(result: HeadResult) -> list[tuple[str, list[dict[str, Any]], pa.Schema]]:
    """Return the tables of a head without its name and the set's."""
    classes: list[dict[str, Any]] = []
    mixed_up: list[dict[str, Any]] = []
    for variant in dict.fromkeys(p["variant"] for p in result.predictions):
        labels = [p["label"] for p in result.predictions if p["variant"] == variant]
        found = [p["predicted"] for p in result.predictions if p["variant"] == variant]
        classes += [{"variant": variant, **figure} for figure in by_class(labels, found)]
        mixed_up += [{"variant": variant, **pair} for pair in confusions(labels, found)]
    return [
        (MAIN, [dict(row) for row in result.rows], schemas.EVALUATIONS),
        (PREDICTIONS, [dict(row) for row in result.predictions], schemas.PREDICTIONS),
        (CLASSES, classes, schemas.CLASS_RESULTS),
        (CONFUSIONS, mixed_up, schemas.CONFUSIONS),
    ]
