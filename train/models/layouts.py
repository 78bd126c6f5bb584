"""The names and shapes that weights come in, and what model they belong to.

Ours are those of the released models. open_clip's are the same, or have the text tower's under
"text."; training on several GPUs and compiling put a word before each. L: places, W: width.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError, InputError
from train.models.clip import Clip
from train.models.image_tower import VisionTransformer
from train.models.recipes import ModelName, ModelSpec, VitSpec, find_recipe
from train.models.text_tower import Attention

PLACES = ("visual.positional_embedding", "visual.attnpool.positional_embedding")
"""Embeddings of a picture's places: of the vision transformer's, of the ResNet's last map."""

OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")
"""Numbers that stand among the weights in OpenAI's files."""

_WRAPPERS = ("module.", "_orig_mod.")
_OTHERS = {
    "vision_model.": "in the names of Hugging Face's transformers; save them with open_clip or from OpenAI's file",
    "visual.trunk.": "with an image tower of timm's; only CLIP's own towers can be read",
}


def released_weights(content: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Return the weights in what a file holds, in float32, by the released models' names.

    Args:
        content: weights by name, or such under "state_dict" or "model" beside other things.
        source: the file, for errors.

    Raises:
        InputError: if there are no weights.
    """
    inner = next((content[k] for k in ("state_dict", "model") if k in content), content)
    if not isinstance(inner, Mapping) or not all(isinstance(n, str) for n in inner):
        raise InputError(f"{source} holds no weights by name, expected those of a model")
    weights = {}
    for name, value in inner.items():
        plain = _plain_name(name)
        if isinstance(value, Tensor) and plain not in (*OPENAI_ENTRIES, "attn_mask"):
            weights[plain] = _whole(value, name, source)
    if not weights:
        raise InputError(f"{source} holds no weights, expected those of a model")
    for name in ("logit_scale", "logit_bias"):
        if name in weights and weights[name].numel() == 1:
            weights[name] = weights[name].reshape(())
    # Counts of batches came to torch after the first released files; nothing reads them.
    for name in [n for n in weights if n.endswith(".running_mean")]:
        counter = name.replace("running_mean", "num_batches_tracked")
        weights.setdefault(counter, torch.tensor(0))
    return weights


def _plain_name(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name.removeprefix("text.")


def _whole(tensor: Tensor, name: str, source: str) -> Tensor:
    """Return `tensor` in float32 if it is of floating point, having checked that it holds its numbers."""
    if tensor.layout != torch.strided or tensor.nbytes > tensor.untyped_storage().nbytes():
        raise InputError(f"{source} is damaged: {name} has fewer numbers than its shape says")
    return tensor.float() if tensor.is_floating_point() else tensor


def find_spec(weights: Mapping[str, Tensor], source: str, *, quick_gelu: bool) -> ModelSpec:
    """Return the spec of the named model that `weights` are of, as their shapes tell, at their resolution.

    The activation cannot be told from the shapes.

    Raises:
        InputError: if they are of no model known by name.
    """
    for beginning, what in _OTHERS.items():
        if any(name.startswith(beginning) for name in weights):
            raise InputError(f"{source} holds weights {what}")
    ends = _ends(weights)
    for name in get_args(ModelName):
        spec = find_recipe(name).model
        if _expected_ends(spec) == ends:
            return replace(
                spec,
                resolution=_resolution(weights, spec, source),
                quick_gelu=quick_gelu,
                logit_bias="logit_bias" in weights,
            )
    what = (
        f"an image tower that begins with {ends[0]} and a text tower that ends in {ends[1]}"
        if all(ends)
        else "no image tower and text tower of CLIP's"
    )
    known = ", ".join(get_args(ModelName))
    raise InputError(f"{source} holds {what}, expected one of {known}")


def _ends(weights: Mapping[str, Tensor]) -> tuple[list[int], ...]:
    """Return the shapes of the image tower's first weight and the text tower's last."""
    names = ("visual.conv1.weight", "text_projection")
    return tuple(list(weights[name].shape) if name in weights else [] for name in names)


def _expected_ends(spec: ModelSpec) -> tuple[list[int], ...]:
    image, last = spec.image, [spec.text.width, spec.embed]
    if isinstance(image, VitSpec):
        return [image.width, 3, image.patch, image.patch], last
    return [image.width // 2, 3, 3, 3], last


def _resolution(weights: Mapping[str, Tensor], spec: ModelSpec, source: str) -> int:
    name = next((name for name in PLACES if name in weights), None)
    if name is None:
        raise InputError(
            f"{source} holds the weights of another model: it lacks embeddings of places"
        )
    count = len(weights[name]) - 1
    side = math.isqrt(max(count, 0))
    if side == 0 or side**2 != count:
        raise InputError(
            f"{source}: {name} is of {count + 1} places, expected a square's and one more"
        )
    return side * _stride(spec)


def _stride(spec: ModelSpec) -> int:
    return spec.image.patch if isinstance(spec.image, VitSpec) else 32


def at_resolution(spec: ModelSpec, resolution: int) -> ModelSpec:
    """Return `spec` for pictures of `resolution` pixels.

    Raises:
        ConfigError: if they are not cut into whole patches.
    """
    if resolution < _stride(spec) or resolution % _stride(spec):
        raise ConfigError(
            f"resolution is {resolution}, expected a multiple of {_stride(spec)} for this model"
        )
    return replace(spec, resolution=resolution)


def check_weights(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> None:
    """Make sure that `weights` have the names and shapes of `expected`.

    Raises:
        InputError: naming the first difference.
    """
    problems = [f"it lacks {name}" for name in expected if name not in weights]
    problems += [f"the model has no {name}" for name in weights if name not in expected]
    problems += [
        f"{name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        raise InputError(f"{source} holds the weights of another model: {problems[0]}")


def fit_places(weights: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Return `weights` with the embeddings of places interpolated to the resolution of `spec`."""
    length = (spec.resolution // _stride(spec)) ** 2 + 1
    return {
        name: resize_places(tensor, length) if name in PLACES else tensor
        for name, tensor in weights.items()
    }


def resize_places(places_LW: Tensor, length: int) -> Tensor:
    """Return `length` embeddings of places on a square grid, the first standing for none of them."""
    if len(places_LW) == length:
        return places_LW
    first, grid_LW = places_LW[:1], places_LW[1:]
    before, after = math.isqrt(len(grid_LW)), math.isqrt(length - 1)
    grid_1WSS = grid_LW.float().T.reshape(1, -1, before, before)
    resized_1WSS = functional.interpolate(
        grid_1WSS, size=(after, after), mode="bicubic", antialias=True
    )
    return torch.cat([first, resized_1WSS.flatten(2)[0].T.to(first.dtype)])


def in_half(model: Clip) -> dict[str, Tensor]:
    """Return the weights of `model`, those of its matrices and convolutions in float16.

    As in OpenAI's files: norms and embeddings of tokens and places stay in float32.

    Raises:
        InputError: if a weight is beyond float16.
    """
    halved = set(_matrix_weights(model))
    weights = {
        name: tensor.half() if name in halved else tensor
        for name, tensor in model.state_dict().items()
    }
    for name in halved:
        if not weights[name].isfinite().all():
            raise InputError(f"{name} has values beyond 65,504, the largest in half precision")
    return weights


def _matrix_weights(model: Clip) -> Iterable[str]:
    yield "text_projection"
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            yield f"{name}.weight"
            if module.bias is not None:
                yield f"{name}.bias"
        elif isinstance(module, Attention):
            yield f"{name}.in_proj_weight"
            yield f"{name}.in_proj_bias"
        elif isinstance(module, VisionTransformer):
            yield f"{name}.proj"
