"""Begin from weights that exist: an earlier `model.pt`, or a checkpoint of open_clip."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import InputError
from train.checkpoint import read_torch_file
from train.clip import Clip

POSITIONS = ("visual.positional_embedding", "visual.attnpool.positional_embedding")


def load_weights(path: str, model: Clip) -> None:
    """Copy the weights in `path` into `model`.

    Where the picture's resolution differs, the embeddings of its places are interpolated.

    Raises:
        InputError: if the file is damaged or holds the weights of another model.
    """
    damaged = f"{path} is no whole torch file of weights; expected a model.pt or one of open_clip's"
    content = read_torch_file(path, InputError(damaged))
    # A model trained on several GPUs is saved with a prefix to each name.
    weights = {
        name.removeprefix("module."): tensor
        for name, tensor in content.get("state_dict", content).items()
    }
    expected = model.state_dict()
    for name in POSITIONS:
        if name in weights and name in expected:
            weights[name] = resize_positions(weights[name], len(expected[name]))
    problems = [f"it lacks {name}" for name in expected if name not in weights]
    problems += [f"the model has no {name}" for name in weights if name not in expected]
    problems += [
        f"{name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        raise InputError(f"{path} holds the weights of another model: {problems[0]}")
    model.load_state_dict(weights)


def resize_positions(positions_LW: Tensor, length: int) -> Tensor:
    """Return `length` embeddings of places on a square grid, the first standing for none of them."""
    if len(positions_LW) == length:
        return positions_LW
    first, grid_LW = positions_LW[:1], positions_LW[1:]
    before, after = math.isqrt(len(grid_LW)), math.isqrt(length - 1)
    grid_1WSS = grid_LW.float().T.reshape(1, -1, before, before)
    resized_1WSS = functional.interpolate(
        grid_1WSS, size=(after, after), mode="bicubic", antialias=True
    )
    return torch.cat([first, resized_1WSS.flatten(2)[0].T.to(first.dtype)])
