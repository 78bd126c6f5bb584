"""Small models for tests, with weights that a seed gives."""

import torch

from train.models.clip import Clip
from train.models.recipes import ModelSpec, ResNetSpec, TextSpec, VitSpec

TEXT = TextSpec(width=32, heads=2, layers=2, context=12)
VIT = ModelSpec(
    embed=16, resolution=16, image=VitSpec(layers=2, width=32, heads=2, patch=4), text=TEXT
)
RESNET = ModelSpec(
    embed=16, resolution=64, image=ResNetSpec(blocks=(1, 2, 1, 1), width=8, heads=4), text=TEXT
)


def build(spec: ModelSpec, seed: int = 0, **options: float) -> Clip:
    torch.manual_seed(seed)
    model = Clip(spec, **options)  # type: ignore[arg-type]
    model.initialize()
    return model
