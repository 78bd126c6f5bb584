"""Weights that exist: to begin training from, and to evaluate or export."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.runtime import storage
from train.models.clip import Clip
from train.models.layouts import (
    OPENAI_ENTRIES,
    at_resolution,
    check_weights,
    find_spec,
    fit_places,
    released_weights,
)
from train.models.recipes import ModelSpec, spec_from_dict
from train.models.weight_files import WeightFile, read_weight_file

HUB_CONFIG = "open_clip_config.json"
"""What stands beside the weights in a folder of the Hugging Face Hub, by open_clip's convention."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights by the released models' names, and what their file says of the model.

    Attributes:
        spec: the model; only files of ours say it.
        quick_gelu: its activation; None if the file does not say.
    """

    tensors: Mapping[str, Tensor]
    spec: ModelSpec | None
    quick_gelu: bool | None


def load_any(path: str, *, resolution: int | None = None, quick_gelu: bool | None = None) -> Clip:
    """Return the model in a file of ours, of open_clip's or of OpenAI's, in float32, on the CPU.

    Args:
        path: a model.pt or checkpoint; a state dict or TorchScript archive; safetensors.
        resolution: side of its pictures in pixels, if not the one it was trained with; the
            embeddings of places are interpolated.
        quick_gelu: the activation that it was trained with, where the file does not say.

    Raises:
        StorageError: if there is no such file.
        InputError: if it is damaged, of no model known by name, or does not say its activation.
        ConfigError: if the resolution does not suit the model.
    """
    weights = read_weights(path)
    activation = _activation(weights, path, quick_gelu)
    spec = weights.spec or find_spec(weights.tensors, path, quick_gelu=activation)
    with torch.device("meta"):
        check_weights(weights.tensors, Clip(spec).state_dict(), path)
        spec = at_resolution(spec, resolution or spec.resolution)
        model = Clip(spec)
    model.load_state_dict(fit_places(weights.tensors, spec), assign=True)
    return model


def load_weights(path: str, model: Clip) -> None:
    """Copy the weights in a file that `load_any` reads into `model`.

    Where the picture's resolution differs, the embeddings of its places are interpolated. A bias of the
    logits that the file lacks stays as it is.

    Raises:
        InputError: if the file is damaged or holds the weights of another model.
    """
    weights = read_weights(path)
    _activation(weights, path, model.spec.quick_gelu)
    tensors = fit_places(weights.tensors, model.spec)
    if model.logit_bias is not None:
        tensors.setdefault("logit_bias", model.logit_bias.detach())
    check_weights(tensors, model.state_dict(), path)
    model.load_state_dict(tensors)


def read_weights(path: str) -> Weights:
    """Return the weights in a file of any layout.

    Raises:
        InputError: if it is damaged or holds none.
    """
    file = read_weight_file(path)
    spec = _spec_told(path, file)
    return Weights(
        tensors=released_weights(file.content, path),
        spec=spec,
        quick_gelu=spec.quick_gelu if spec else _activation_told(path, file),
    )


def _spec_told(path: str, file: WeightFile) -> ModelSpec | None:
    if "spec" not in file.content:
        return None
    try:
        return spec_from_dict(file.content["spec"])
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} has a spec that is none of ours, expected that of a model.pt; save it again"
        ) from error


def _activation_told(path: str, file: WeightFile) -> bool | None:
    if all(name in file.content for name in OPENAI_ENTRIES):
        return True
    config = storage.join(storage.parent(path), HUB_CONFIG)
    if not storage.exists(config):
        return None
    try:
        return bool(json.loads(storage.read_bytes(config))["model_cfg"].get("quick_gelu", False))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{config} is no configuration of open_clip's, expected JSON with model_cfg; mend or remove it"
        ) from error


def _activation(weights: Weights, path: str, given: bool | None) -> bool:
    if weights.quick_gelu is None and given is None:
        raise InputError(
            f"{path} does not say its activation, and weights do not show it; give --quick-gelu "
            "(OpenAI's models and those named so) or --no-quick-gelu (open_clip's others)"
        )
    if None not in (weights.quick_gelu, given) and weights.quick_gelu != given:
        right = "--quick-gelu" if weights.quick_gelu else "--no-quick-gelu"
        raise InputError(f"{path} was trained with the other activation; give {right}")
    return bool(weights.quick_gelu if given is None else given)
