"""The supervised comparison: an image tower with a linear head, all of it learnt from labelled pictures.

B: batch, S: side in pixels, C: classes.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional

from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import ConfigError, InputError
from pipeline.runtime.progress import Progress
from train.evaluation.features import Features
from train.evaluation.pictures import squares_ahead
from train.evaluation.results import HeadResult, classified
from train.evaluation.square_spool import Pixels, SquareSpool
from train.models.clip import Clip, normalize_pixels
from train.models.layouts import at_resolution
from train.models.recipes import ModelName, find_recipe

SPOOL_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How to fine-tune: Adam at a constant rate, centre squares as they are.

    Attributes:
        batch_size: pictures a step; an epoch's steps differ by one picture at most. From 4, so that no
            step is of a single picture, of which batch normalisation has no deviation.
        readers: threads that decode; no influence on results.
        scratch: folder for decoded pictures, 3·S² bytes each; default: the system's.
    """

    epochs: int = 5
    learning_rate: float = 1e-3
    batch_size: int = 64
    seed: int = 0
    readers: int = 4
    scratch: str | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 4 or not self.learning_rate > 0:
            raise ConfigError(
                f"fine-tuning for {self.epochs} epochs by {self.batch_size} pictures at rate "
                f"{self.learning_rate:g}, expected 1 epoch, 4 pictures and a positive rate at least"
            )


class Supervised(nn.Module):
    """A copy of a model's image tower, and a linear layer on its embedding."""

    def __init__(self, model: Clip, classes: int) -> None:
        super().__init__()
        self.visual = copy.deepcopy(model.visual)
        self.head = nn.Linear(model.spec.embed, classes)

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        """Return logits, [B, C], of pictures with values from 0 to 255."""
        logits_BC: Tensor = self.head(self.visual(normalize_pixels(pixels_B3SS)))
        return logits_BC


def untrained(name: ModelName, resolution: int | None = None, *, seed: int = 0) -> Clip:
    """Return a recipe's model with random weights, such as RN50 for pictures of 64 pixels.

    Raises:
        ConfigError: if the resolution does not suit the model.
    """
    spec = find_recipe(name).model
    if resolution is not None:
        spec = at_resolution(spec, resolution)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Clip(spec)
        model.initialize()
    return model


def fine_tune(
    model: Clip,
    train: EvalSet,
    validation: EvalSet | None,
    test: EvalSet,
    *,
    settings: FineTuning,
    device: torch.device,
) -> HeadResult:
    """Return how well a tower with a linear head tells classes once it has learnt from pictures of them.

    `model` is left as it is. Pictures of `validation` are learnt from as well: nothing is chosen by them.
    On the CPU, with the same number of threads, equal runs give equal bits.

    Raises:
        InputError: if a set cannot be read, or there are fewer than two classes to learn.
        ConfigError: if the loss is no longer a number.
        StorageError: if the disk has no room for the decoded pictures.
    """
    resolution = model.spec.resolution
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        SquareSpool(resolution=resolution, folder=settings.scratch) as spool,
    ):
        for evalset in (train, validation):
            if evalset is not None:
                for squares in squares_ahead(
                    evalset, resolution, SPOOL_BATCH, readers=settings.readers
                ):
                    spool.add(squares)
        classes = _classes(spool, train)
        torch.manual_seed(settings.seed)
        network = Supervised(model, len(classes)).to(device)
        losses = _learn(network, spool, classes, settings, device)
        seen, scores_NC = _classify(network, test, resolution, settings, device)
    unlearnt = sorted({label for label in seen.labels if label} - set(classes))
    missing = np.full((len(scores_NC), len(unlearnt)), -np.inf, np.float32)
    result = classified(seen, np.concatenate([scores_NC, missing], axis=1), classes + unlearnt)
    result.notes.update(
        {
            "epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "batch_size": settings.batch_size,
            "resolution": resolution,
            "training_pictures": len(spool.items),
            "training_pictures_refused": spool.refused,
            "loss_by_epoch": losses,
        }
    )
    return result


def _classes(spool: SquareSpool, train: EvalSet) -> list[str]:
    classes = sorted(set(spool.labels))
    if len(classes) < 2:
        raise InputError(
            f"fine-tuning on {train.name}: {len(spool.items)} whole training pictures of "
            f"{len(classes)} classes ({spool.refused} broken), expected two classes or more"
        )
    return classes


def _learn(
    network: Supervised,
    spool: SquareSpool,
    classes: Sequence[str],
    settings: FineTuning,
    device: torch.device,
) -> list[float]:
    """Train `network` and return the mean loss of each epoch."""
    number = {label: i for i, label in enumerate(classes)}
    truth_N = torch.tensor([number[label] for label in spool.labels])
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
    network.train()
    losses = []
    steps = -(-len(spool.items) // settings.batch_size)
    with Progress("fine-tune", settings.epochs * steps, unit="steps") as progress:
        for epoch in range(settings.epochs):
            batches = epoch_batches(
                spool.items, settings.batch_size, seed=settings.seed, epoch=epoch
            )
            total = 0.0
            for rows, pixels_B3SS in zip(batches, spool.read_ahead(batches), strict=True):
                loss = _step(network, optimizer, pixels_B3SS, truth_N[rows].to(device), device)
                if not math.isfinite(loss):
                    raise ConfigError(
                        f"fine-tuning on {len(spool.items)} pictures: the loss is {loss} in epoch "
                        f"{epoch + 1}; set the learning rate below {settings.learning_rate:g}"
                    )
                total += loss * len(rows)
                progress.advance(epoch=epoch + 1, loss=f"{loss:.3f}")
            losses.append(total / len(spool.items))
    return losses


def _step(
    network: Supervised,
    optimizer: torch.optim.Optimizer,
    pixels_B3SS: Pixels,
    truth_B: Tensor,
    device: torch.device,
) -> float:
    logits_BC = network(torch.from_numpy(pixels_B3SS).to(device))
    loss = functional.cross_entropy(logits_BC, truth_B)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def epoch_batches(
    names: Sequence[str], batch_size: int, *, seed: int, epoch: int
) -> list[list[int]]:
    """Return the rows of an epoch's steps, in an order that the pictures' names and the seed give."""
    order = sorted(
        range(len(names)),
        key=lambda row: (xxhash.xxh3_128_digest(f"{seed}:{epoch}:{names[row]}".encode()), row),
    )
    steps = -(-len(order) // batch_size)
    return [rows.tolist() for rows in np.array_split(np.array(order), steps)]


@torch.inference_mode()
def _classify(
    network: Supervised, test: EvalSet, resolution: int, settings: FineTuning, device: torch.device
) -> tuple[Features, npt.NDArray[np.float32]]:
    """Return the test pictures, without features, and their logits, [N, C]."""
    network.eval()
    seen = Features(
        evalset=test.name,
        items=[],
        splits=[],
        labels=[],
        captions=[],
        vectors_ND=np.empty((0, 0), np.float32),
    )
    scores = []
    for squares in squares_ahead(test, resolution, SPOOL_BATCH, readers=settings.readers):
        seen.items.extend(squares.items)
        seen.splits.extend(squares.splits)
        seen.labels.extend(squares.labels)
        seen.captions.extend(squares.captions)
        seen.drops.extend(squares.refused)
        if squares.items:
            scores.append(network(torch.from_numpy(squares.pixels_B3SS).to(device)).cpu().numpy())
    labelled = [row for row, label in enumerate(seen.labels) if label]
    if not labelled:
        raise InputError(
            f"fine-tuning on {test.name}: no whole test picture has a class "
            f"({len(seen.drops)} are broken), expected at least one"
        )
    seen = replace(seen, vectors_ND=np.empty((len(seen.items), 0), np.float32))
    return seen.labelled(), np.concatenate(scores)[labelled]
