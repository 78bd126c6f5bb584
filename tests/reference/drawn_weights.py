"""Weights, pictures and texts drawn by name, so that two programs have the same without a file.

The numbers are PCG64's raw output, which NumPy keeps stable from version to version.
"""

import math
import zlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

VOCABULARY = 49_408


def draw(name: str, count: int) -> npt.NDArray[np.float32]:
    """Return `count` numbers from -1 to 1, a function of `name`."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw((count + 1) // 2)
    return (raw.view(np.uint32)[:count] >> 8).astype(np.float32) * np.float32(2**-23) - 1


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Give every weight and statistic of `model` its drawn value, by its name in the state dict."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            drawn = torch.from_numpy(draw(name, tensor.numel())).view(tensor.shape)
            tensor.copy_(_scaled(name, drawn))


def _scaled(name: str, drawn: Tensor) -> Tensor:
    """Return values of a size that keeps activations near 1 through any number of layers."""
    if name.startswith("logit_"):
        return drawn + 2
    if "running_var" in name or (drawn.ndim == 1 and name.endswith("weight")):
        return 1 + drawn / 4
    if "token_embedding" in name:
        return drawn
    if drawn.ndim == 1 or "positional_embedding" in name:
        return drawn / 4
    inputs = (
        drawn.shape[0] if name.endswith("proj") or "text_projection" in name else drawn[0].numel()
    )
    return drawn * math.sqrt(3 / inputs)


def pictures(count: int, side: int) -> Tensor:
    """Return `count` pictures of noise, [count, 3, side, side], uint8."""
    noise = draw(f"pictures of {side}", count * 3 * side**2)
    return torch.from_numpy(((noise + 1) * 127.5).astype(np.uint8)).view(count, 3, side, side)


def texts(count: int, context: int) -> Tensor:
    """Return token ids, [count, context]: start, ids between, end, padding; each text longer."""
    tokens = np.zeros((count, context), np.int64)
    for row, ids in enumerate(tokens):
        end = 5 + 20 * row
        ids[0] = VOCABULARY - 2
        ids[1:end] = ((draw(f"text {row}", end - 1) + 1) / 2 * (VOCABULARY - 3)).astype(np.int64)
        ids[end] = VOCABULARY - 1
    return torch.from_numpy(tokens)
