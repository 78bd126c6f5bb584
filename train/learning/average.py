"""An exponential moving average of a model's weights over its steps."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from train.models.clip import Clip


class Average:
    """A second model, whose weights follow those of one in training.

    Args:
        model: where it begins.
        decay: share of the average that stays at each step, less in the first steps, so that the first
            weights are soon forgotten: at most (1 + step) / (10 + step).
    """

    def __init__(self, model: Clip, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, model: Clip, step: int) -> None:
        """Take in the weights of `model` after `step` steps; running statistics are copied."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for own, other in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(other)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights by name."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averaged weights."""
        self.model.load_state_dict(state)
