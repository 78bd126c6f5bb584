"""Save a model in the layout of open_clip or of OpenAI, for other programs to read."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.runtime import storage
from train.models.clip import PIXEL_MEAN, PIXEL_STD, Clip
from train.models.initial import HUB_CONFIG
from train.models.layouts import in_half
from train.models.recipes import ModelSpec, VitSpec

Layout = Literal["open_clip", "openai"]

HUB_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names under which open_clip finds weights in a folder or a repository of the Hub."""


def save_as(model: Clip, output: str, layout: Layout, *, half: bool = False) -> None:
    """Write the weights of `model` to `output`, whole or not at all; as safetensors if it is named so.

    open_clip's layout is a state dict. OpenAI's has the resolution, the context length and the
    vocabulary beside the weights. A file with a name of `HUB_NAMES` gets open_clip's configuration
    beside it, and the folder is then one that open_clip and `load_any` understand without being told
    the model.

    Args:
        half: matrices and convolutions in float16, as in OpenAI's files.

    Raises:
        ConfigError: if the layout has no place for something the model has.
        InputError: if a weight is beyond float16.
    """
    spec = model.spec
    if layout == "openai" and not spec.quick_gelu:
        raise ConfigError(
            "the model's activation is GELU, but readers of OpenAI's layout take QuickGELU; "
            "expected --layout open_clip"
        )
    if layout == "openai" and spec.logit_bias:
        raise ConfigError(
            "the model has a bias of the logits, which OpenAI's layout lacks; expected --layout open_clip"
        )
    weights = in_half(model) if half else dict(model.state_dict())
    if layout == "openai":
        weights["input_resolution"] = torch.tensor(spec.resolution)
        weights["context_length"] = torch.tensor(spec.text.context)
        weights["vocab_size"] = torch.tensor(spec.text.vocabulary)
    _write(weights, output)
    if layout == "open_clip" and output.rpartition("/")[2] in HUB_NAMES:
        config = json.dumps(open_clip_config(spec), indent=2) + "\n"
        storage.write_bytes(storage.join(storage.parent(output), HUB_CONFIG), config.encode())


def _write(weights: Mapping[str, Tensor], output: str) -> None:
    whole = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    with storage.atomic_output(output) as file:
        if output.endswith(".safetensors"):
            file.write(_as_safetensors(whole))
        else:
            torch.save(whole, file)  # type: ignore[arg-type]


def _as_safetensors(weights: Mapping[str, Tensor]) -> bytes:
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ConfigError(
            "the library safetensors is not installed; pip install safetensors, or name a .pt file"
        ) from error
    return save(dict(weights), metadata={"format": "pt"})


def open_clip_config(spec: ModelSpec) -> dict[str, Any]:
    """Return what open_clip builds the model from."""
    image, text = spec.image, spec.text
    if isinstance(image, VitSpec):
        tower: dict[str, Any] = {
            "layers": image.layers,
            "patch_size": image.patch,
            "head_width": image.width // image.heads,
        }
    else:
        head_width = 32 * image.width // image.heads
        tower = {"layers": list(image.blocks), "head_width": head_width}
    model: dict[str, Any] = {
        "embed_dim": spec.embed,
        "quick_gelu": spec.quick_gelu,
        "vision_cfg": {"image_size": spec.resolution, "width": image.width, **tower},
        "text_cfg": {
            "context_length": text.context,
            "vocab_size": text.vocabulary,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    }
    if spec.logit_bias:
        # Any number makes open_clip's model have one.
        model["init_logit_bias"] = 0.0
    return {
        "model_cfg": model,
        "preprocess_cfg": {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD)},
    }
