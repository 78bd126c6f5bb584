"""AdamW with CLIP's exclusions, and its schedule: linear warm-up, then half a cosine to zero."""

import math

import torch
from torch import nn

from train.config import Plan


def make_optimizer(model: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """Return AdamW over all parameters of `model`; gains, biases and other vectors do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=plan.learning_rate,
        betas=(plan.beta1, plan.beta2),
        eps=plan.epsilon,
        fused=True,
    )


def learning_rate(step: int, plan: Plan) -> float:
    """Return the rate for the step after `step` others, 0 <= step < plan.steps."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    progress = (step - plan.warmup_steps) / (plan.steps - plan.warmup_steps)
    return plan.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Make the next step of `optimizer` use `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate
