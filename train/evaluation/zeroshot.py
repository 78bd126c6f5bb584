"""Classify pictures by the captions their classes would have (CLIP, section 3.1).

B: pictures, C: classes, P: prompts, T: texts, D: embedding.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from train.evaluation.templates import fill
from train.models.clip import Clip
from train.samples.tokenizer import tokenize

TEXTS = 512
"""Texts at a time."""


@torch.inference_mode()
def class_embeddings(
    model: Clip, labels: Sequence[str], templates: Sequence[str], *, device: torch.device
) -> Tensor:
    """Return one unit-length embedding per label, [C, D], averaged over its prompts."""
    prompts = [fill(templates, label) for label in labels]
    rows: list[Tensor] = []
    for some in _groups(prompts):
        texts_TD = embed_texts(model, [prompt for of_label in some for prompt in of_label], device)
        rows += [
            average(prompts_PD) for prompts_PD in torch.split(texts_TD, [len(p) for p in some])
        ]
    return torch.stack(rows)


@torch.inference_mode()
def embed_texts(model: Clip, texts: Sequence[str], device: torch.device) -> Tensor:
    """Return the unit-length embeddings of texts, [T, D]."""
    blocks = []
    for first in range(0, len(texts), TEXTS):
        tokens = tokenize(texts[first : first + TEXTS], model.spec.text.context)
        blocks.append(model.encode_text(torch.from_numpy(tokens).to(device)).float())
    return torch.cat(blocks)


def average(prompts_PD: Tensor) -> Tensor:
    """Return the unit-length mean, [D], of unit-length embeddings."""
    return functional.normalize(prompts_PD.mean(dim=0), dim=-1)


def rank_classes(image_BD: Tensor, classes_CD: Tensor) -> Tensor:
    """Return for each picture the classes from the most to the least similar, [B, C].

    Of equally similar classes the first stays first.
    """
    return torch.sort(image_BD @ classes_CD.T, dim=1, descending=True, stable=True).indices


def _groups(prompts: Sequence[list[str]]) -> Iterator[list[list[str]]]:
    """Yield labels' prompts, as many labels as make up about one group of texts."""
    group: list[list[str]] = []
    for of_label in prompts:
        group.append(of_label)
        if sum(map(len, group)) >= TEXTS:
            yield group
            group = []
    if group:
        yield group
