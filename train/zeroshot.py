"""Classify pictures by the captions their classes would have (CLIP, section 3.1).

B: pictures, C: classes, P: prompts, D: embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from train.clip import Clip
from train.prompts import fill
from train.tokenizer import tokenize


@torch.inference_mode()
def class_embeddings(
    model: Clip, labels: Sequence[str], templates: Sequence[str], *, device: torch.device
) -> Tensor:
    """Return one unit-length embedding per label, [C, D], averaged over its prompts."""
    rows = []
    for label in labels:
        tokens = tokenize(fill(templates, label), model.spec.text.context)
        rows.append(average(model.encode_text(torch.from_numpy(tokens).to(device))))
    return torch.stack(rows)


def average(prompts_PD: Tensor) -> Tensor:
    """Return the unit-length mean, [D], of unit-length embeddings."""
    return functional.normalize(prompts_PD.mean(dim=0), dim=-1)


def rank_classes(image_BD: Tensor, classes_CD: Tensor) -> Tensor:
    """Return for each picture the classes from the most to the least similar, [B, C].

    Of equally similar classes the first stays first.
    """
    return torch.sort(image_BD @ classes_CD.T, dim=1, descending=True, stable=True).indices
