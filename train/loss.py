"""The contrastive loss. B: batch, D: embedding."""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(image_BD: Tensor, text_BD: Tensor, log_scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss, a scalar in nats (CLIP, figure 3).

    Args:
        image_BD, text_BD: unit-length embeddings; row i of both is pair i.
        log_scale: natural logarithm of the inverse temperature.
    """
    logits = log_scale.exp() * image_BD @ text_BD.T
    targets = torch.arange(len(logits), device=logits.device)
    over_texts = functional.cross_entropy(logits, targets)
    over_images = functional.cross_entropy(logits.T, targets)
    return (over_texts + over_images) / 2
