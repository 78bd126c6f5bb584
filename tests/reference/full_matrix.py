"""Contrastive losses over the whole matrix of logits, with torch's own gradients."""

import torch
from torch import Tensor
from torch.nn import functional


def full_softmax_loss(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Return the mean of the cross-entropies over rows and over columns (CLIP, figure 3)."""
    logits = log_scale.exp() * image @ text.T
    pairs = torch.arange(len(logits))
    over_texts = functional.cross_entropy(logits, pairs)
    return (over_texts + functional.cross_entropy(logits.T, pairs)) / 2


def full_sigmoid_loss(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Return the sum of the pairs' binary losses by the number of pictures (SigLIP, algorithm 1)."""
    logits = log_scale.exp() * image @ text.T + bias
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype) - 1
    return -functional.logsigmoid(signs * logits).sum() / len(logits)
