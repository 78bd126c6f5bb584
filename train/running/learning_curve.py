"""Zero-shot accuracy of a model while it is trained, on pictures shared over the ranks.

B: pictures at a time, C: classes, D: embedding.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from dedup.evaluation.evalsets import EvalSet, files_of, is_labelled, prompts_of, read_evalsets
from pipeline.errors import InputError
from train.evaluation.pictures import squares_ahead
from train.evaluation.zeroshot import class_embeddings, rank_classes
from train.learning.distributed import Distributed
from train.models.clip import Clip

BATCH_SIZE = 256


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of the pictures of a set whose own class is the most similar; `broken` are left out."""

    evalset: str
    top1: float
    images: int
    classes: int
    broken: int


def labelled_sets(path: str) -> list[EvalSet]:
    """Return the evaluation sets of a TOML file that name classes.

    Raises:
        InputError: if one cannot be opened, or none names classes.
    """
    evalsets = read_evalsets(path)
    files_of(path, evalsets)
    labelled = [evalset for evalset in evalsets if is_labelled(evalset)]
    if not labelled:
        raise InputError(f"{path} names no evaluation set with classes, expected at least one")
    return labelled


@torch.no_grad()
def measure(
    models: Mapping[str, Clip],
    evalset: EvalSet,
    ranks: Distributed,
    *,
    readers: int,
    precise: AbstractContextManager[object],
) -> dict[str, Accuracy]:
    """Return how each of `models` does on a set; each rank embeds its share of pictures and of classes.

    Args:
        models: by name; they stay in the mode they are in.
        readers: threads that decode.
        precise: what the models compute within.

    Raises:
        InputError: if the set cannot be read, or none of its pictures decoded.
    """
    training = [model for model in models.values() if model.training]
    for model in models.values():
        ranks.equal(model.buffers())
        model.eval()
    try:
        with precise:
            return _measure(models, evalset, ranks, readers)
    finally:
        for model in training:
            model.train()


def _measure(
    models: Mapping[str, Clip], evalset: EvalSet, ranks: Distributed, readers: int
) -> dict[str, Accuracy]:
    labels: list[str] = []
    broken = 0
    blocks: dict[str, list[Tensor]] = {name: [] for name in models}
    resolution = next(iter(models.values())).spec.resolution
    with ranks.together():
        share = (ranks.rank, ranks.world_size)
        for squares in squares_ahead(evalset, resolution, BATCH_SIZE, readers=readers, share=share):
            # Pictures that have captions only say nothing here.
            named = [i for i, label in enumerate(squares.labels) if label is not None]
            labels += [label for label in squares.labels if label is not None]
            broken += len(squares.refused)
            pixels_B3SS = torch.from_numpy(squares.pixels_B3SS[named]).to(ranks.device)
            for name, model in models.items():
                blocks[name].append(model.encode_image(pixels_B3SS).float())
    counts = torch.tensor([len(labels), broken])
    images, all_broken = (int(count) for count in ranks.sum(counts))
    if not images:
        with ranks.together():
            raise InputError(
                f"evaluation set {evalset.name}: none of its {all_broken} pictures can be decoded"
            )
    classes = sorted({label for of_rank in ranks.collect(set(labels)) for label in of_rank})
    found = {}
    for name, model in models.items():
        classes_CD = _classes(model, classes, prompts_of(evalset), ranks)
        first = [
            i for block in blocks[name] for i in rank_classes(block, classes_CD)[:, 0].tolist()
        ]
        hits = sum(classes[i] == label for i, label in zip(first, labels, strict=True))
        found[name] = Accuracy(
            evalset=evalset.name,
            top1=int(ranks.sum(torch.tensor(hits))) / images,
            images=images,
            classes=len(classes),
            broken=all_broken,
        )
    return found


def _classes(
    model: Clip, classes: Sequence[str], templates: Sequence[str], ranks: Distributed
) -> Tensor:
    """Return the embeddings of all classes, [C, D], of which each rank computes a share."""
    first, last = (i * len(classes) // ranks.world_size for i in (ranks.rank, ranks.rank + 1))
    own_CD = torch.empty(0, model.spec.embed, device=ranks.device)
    with ranks.together():
        if first < last:
            own_CD = class_embeddings(model, classes[first:last], templates, device=ranks.device)
    return ranks.gather(own_CD)
