from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.train.small_models import RESNET, VIT, build
from train.models import costs
from train.models.clip import Clip
from train.models.costs import estimate_memory, flops
from train.models.recipes import ModelName, ModelSpec, find_recipe


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("name", get_args(ModelName))
def test_operations_are_those_that_torch_counts(name: ModelName, dropout: float) -> None:
    spec = find_recipe(name).model
    if dropout and name.startswith("RN"):
        return
    with torch.device("meta"):
        model = Clip(spec, patch_dropout=dropout)
        pixels = torch.zeros(1, 3, spec.resolution, spec.resolution)
        tokens = torch.zeros(1, spec.text.context, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model.encode_image(pixels)
        model.encode_text(tokens)
    assert flops(spec, patch_dropout=dropout) == counter.get_total_flops()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("spec", [VIT, RESNET], ids=["vit", "resnet"])
def test_memory_is_what_a_real_pass_keeps(spec: ModelSpec, checkpointing: bool) -> None:
    model = Clip(spec, checkpointing=checkpointing)
    real = costs._kept_bytes(model, 5)
    estimate = estimate_memory(spec, 5, checkpointing=checkpointing)
    assert estimate.activations == real
    assert estimate.parameters == 16 * sum(p.numel() for p in model.parameters())


def test_memory_under_autocast_counts_copies_of_weights_once() -> None:
    model = build(VIT).train()
    with torch.autocast("cpu", torch.bfloat16):
        real = costs._kept_bytes(model, 7)
    assert estimate_memory(VIT, 7, dtype=torch.bfloat16).activations == real


def test_checkpointing_and_patch_dropout_need_less() -> None:
    plain = estimate_memory(VIT, 64).activations
    assert estimate_memory(VIT, 64, checkpointing=True).activations < plain / 4
    assert estimate_memory(VIT, 64, patch_dropout=0.5).activations < plain
