"""Measure the trained model on labelled pictures, without training on any (CLIP, section 3.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from dedup.evaluation.evalsets import (
    EvalSet,
    files_of,
    is_labelled,
    items,
    prompts_of,
    read_evalsets,
)
from pipeline import schemas
from pipeline.errors import ConfigError, InputError
from pipeline.pictures.images import ImageRefused, decode
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import DROPS, MAIN, Manifest, Outcome
from pipeline.runtime.progress import Progress, say
from pipeline.runtime.stage import StageRun, begin
from pipeline.runtime.workspace import Workspace
from train.augment import CENTRE, square_crop
from train.checkpoint import load_model
from train.clip import Clip
from train.config import EvaluateConfig
from train.device import computing
from train.loop import MODEL
from train.metrics import summarize
from train.zeroshot import class_embeddings, rank_classes

PREDICTIONS = "predictions"


@dataclass(kw_only=True)
class Embedded:
    """The pictures of one set that could be decoded, and those that could not.

    Attributes:
        blocks: unit-length embeddings, [up to a batch, D] each.
        drops: rows of DROPS.
    """

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    blocks: list[Tensor] = field(default_factory=list)
    drops: list[dict[str, Any]] = field(default_factory=list)


def run(config: EvaluateConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Classify every picture of the evaluation sets by the model of the stage "train".

    Writes EVALUATIONS, one row per set and metric, and PREDICTIONS, one row per picture.

    Raises:
        ConfigError: if no evaluation sets are named.
        InputError: if a set cannot be read or holds no whole picture, or none names classes.
    """
    if not config.evalsets:
        raise ConfigError("evaluate.evalsets is not set, expected a TOML file that names the sets")
    evalsets = read_evalsets(config.evalsets)
    files = files_of(config.evalsets, evalsets)
    stage = begin("evaluate", config, workspace, reads=["train"], files=files)
    if stage.done:
        return stage.done
    labelled = _labelled(evalsets)
    with computing(config.device, config.threads) as device:
        model = load_model(storage.join(workspace.path("train"), MODEL)).to(device).eval()
        with Progress("evaluate", len(labelled), unit="sets") as progress:
            outcomes = []
            for index, evalset in enumerate(labelled):
                outcome = evaluate(model, evalset, config, device, stage, index)
                progress.advance(rows=outcome.rows_in, drops=sum(outcome.drops.values()))
                outcomes.append(outcome)
    return stage.finish(outcomes)


def _labelled(evalsets: Sequence[EvalSet]) -> list[EvalSet]:
    """Return the sets that name classes; the others are for `dedup` alone."""
    labelled = [evalset for evalset in evalsets if is_labelled(evalset)]
    if not labelled:
        raise InputError(
            "no evaluation set names the classes of its pictures, expected at least one"
        )
    for name in sorted({evalset.name for evalset in evalsets} - {e.name for e in labelled}):
        say(f"evaluate   leaves out {name}: it names no classes")
    return labelled


def evaluate(
    model: Clip,
    evalset: EvalSet,
    config: EvaluateConfig,
    device: torch.device,
    stage: StageRun,
    index: int,
) -> Outcome:
    """Evaluate one set and write its part of each table; pictures without a class are left out."""
    embedded = embed(model, evalset, config.batch_size, device)
    if not embedded.names:
        raise InputError(
            f"evaluation set {evalset.name}: none of its {len(embedded.drops)} pictures can be decoded, "
            f"such as {embedded.drops[0]['detail']}"
        )
    classes = sorted(set(embedded.labels))
    predictions = predict(model, evalset, embedded, classes, device)
    ranks = predictions.column("rank").to_pylist()
    summary = summarize(evalset.name, embedded.labels, ranks, len(classes))
    drops = pa.Table.from_pylist(embedded.drops, schemas.DROPS)
    output = stage.output(index)
    tables = {
        MAIN: (pa.Table.from_pylist(summary, schemas.EVALUATIONS), schemas.EVALUATIONS),
        PREDICTIONS: (predictions, schemas.PREDICTIONS),
        DROPS: (drops, schemas.DROPS),
    }
    return Outcome(
        rows_in=len(embedded.names) + len(drops),
        rows_out=len(embedded.names),
        drops={"broken_image": len(drops)} if embedded.drops else {},
        parts={
            name: [stage.workspace.write(output.name("parquet", name), table, schema)]
            for name, (table, schema) in tables.items()
            if len(table)
        },
    )


@torch.inference_mode()
def embed(model: Clip, evalset: EvalSet, batch_size: int, device: torch.device) -> Embedded:
    """Return the embeddings of a set's pictures, their centre squares."""
    embedded = Embedded()
    for pixels_B3SS in _batches(evalset, model.spec.resolution, batch_size, embedded):
        pixels = torch.from_numpy(pixels_B3SS).to(device)
        embedded.blocks.append(model.encode_image(pixels).cpu())
    return embedded


def _batches(
    evalset: EvalSet, resolution: int, batch_size: int, embedded: Embedded
) -> Iterator[npt.NDArray[np.uint8]]:
    squares: list[npt.NDArray[np.uint8]] = []
    for item in items(evalset):
        if item.label is None:
            continue
        try:
            picture = decode(item.data, short_side=resolution)
        except ImageRefused as refusal:
            detail = f"{evalset.name}/{item.item}: {refusal}"
            embedded.drops.append({"pair_id": None, "reason": "broken_image", "detail": detail})
            continue
        embedded.names.append(item.item)
        embedded.labels.append(item.label)
        squares.append(square_crop(picture.rgb, resolution, CENTRE))
        if len(squares) == batch_size:
            yield np.stack(squares)
            squares = []
    if squares:
        yield np.stack(squares)


def predict(
    model: Clip, evalset: EvalSet, embedded: Embedded, classes: list[str], device: torch.device
) -> pa.Table:
    """Return PREDICTIONS of one set, zero-shot."""
    classes_CD = class_embeddings(model, classes, prompts_of(evalset), device=device).cpu()
    number = {label: i for i, label in enumerate(classes)}
    predicted: list[str] = []
    ranks: list[int] = []
    labels = iter(embedded.labels)
    for block in embedded.blocks:
        for order in rank_classes(block, classes_CD).tolist():
            predicted.append(classes[order[0]])
            ranks.append(order.index(number[next(labels)]) + 1)
    columns = [[evalset.name] * len(ranks), embedded.names, embedded.labels, predicted, ranks]
    return pa.table(columns, schema=schemas.PREDICTIONS)
