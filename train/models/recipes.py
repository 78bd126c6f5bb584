"""Named models with the hyper-parameters they were trained with (CLIP, tables 18 to 20)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

VOCABULARY = 49_408

ModelName = Literal[
    "RN50",
    "RN101",
    "RN50x4",
    "RN50x16",
    "RN50x64",
    "ViT-B/32",
    "ViT-B/16",
    "ViT-L/14",
    "ViT-L/14-336",
    "ViT-mini",
    "RN-mini",
]


@dataclass(frozen=True, kw_only=True)
class VitSpec:
    """A vision transformer; `patch` is the side of a patch in pixels."""

    layers: int
    width: int
    heads: int
    patch: int


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """CLIP's ResNet; its last stage is 32 times as wide as `width`."""

    blocks: tuple[int, ...]
    width: int
    heads: int


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """The text transformer; `context` is its length in tokens, start and end included."""

    width: int
    heads: int
    layers: int = 12
    context: int = 77
    vocabulary: int = VOCABULARY


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Both towers.

    Attributes:
        embed: width of the space both towers project into.
        resolution: side of the square picture, pixels.
        quick_gelu: x·sigmoid(1.702x) in place of GELU.
        logit_bias: a learned bias of the logits, as the sigmoid loss needs.
    """

    embed: int
    resolution: int
    image: VitSpec | ResNetSpec
    text: TextSpec
    quick_gelu: bool = True
    logit_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and the hyper-parameters to train it with."""

    model: ModelSpec
    learning_rate: float
    beta2: float
    epsilon: float
    beta1: float = 0.9
    batch_size: int = 32_768
    epochs: int = 32
    warmup_steps: int = 2_000
    weight_decay: float = 0.2


def find_recipe(name: ModelName) -> Recipe:
    """Return the recipe called `name`."""
    return _recipes()[name]


def _recipes() -> dict[ModelName, Recipe]:
    large = _vit_recipe(embed=768, layers=24, width=1024, heads=16, patch=14, text_width=768)
    return {
        "RN50": _resnet_recipe(blocks=(3, 4, 6, 3), width=64, embed=1024),
        "RN101": _resnet_recipe(blocks=(3, 4, 23, 3), width=64, embed=512),
        "RN50x4": _resnet_recipe(
            blocks=(4, 6, 10, 6), width=80, embed=640, resolution=288, text_width=640
        ),
        "RN50x16": _resnet_recipe(
            blocks=(6, 8, 18, 8),
            width=96,
            embed=768,
            resolution=384,
            text_width=768,
            learning_rate=4e-4,
        ),
        "RN50x64": _resnet_recipe(
            blocks=(3, 15, 36, 10),
            width=128,
            embed=1024,
            resolution=448,
            text_width=1024,
            learning_rate=3.6e-4,
        ),
        "ViT-B/32": _vit_recipe(embed=512, layers=12, width=768, heads=12, patch=32),
        "ViT-B/16": _vit_recipe(embed=512, layers=12, width=768, heads=12, patch=16),
        "ViT-L/14": replace(large, learning_rate=4e-4),
        # One more epoch on top of ViT-L/14's weights, at the higher resolution.
        "ViT-L/14-336": replace(
            large,
            model=replace(large.model, resolution=336),
            learning_rate=2e-5,
            epochs=1,
        ),
        "ViT-mini": _mini_recipe(),
        "RN-mini": _mini_resnet_recipe(),
    }


def _resnet_recipe(
    *,
    blocks: tuple[int, ...],
    width: int,
    embed: int,
    resolution: int = 224,
    text_width: int = 512,
    learning_rate: float = 5e-4,
) -> Recipe:
    return Recipe(
        model=ModelSpec(
            embed=embed,
            resolution=resolution,
            image=ResNetSpec(blocks=blocks, width=width, heads=width // 2),
            text=TextSpec(width=text_width, heads=text_width // 64),
        ),
        learning_rate=learning_rate,
        beta2=0.999,
        epsilon=1e-8,
    )


def _vit_recipe(
    *, embed: int, layers: int, width: int, heads: int, patch: int, text_width: int = 512
) -> Recipe:
    return Recipe(
        model=ModelSpec(
            embed=embed,
            resolution=224,
            image=VitSpec(layers=layers, width=width, heads=heads, patch=patch),
            text=TextSpec(width=text_width, heads=text_width // 64),
        ),
        learning_rate=5e-4,
        beta2=0.98,
        epsilon=1e-6,
    )


def _mini_recipe() -> Recipe:
    """Return a model for pictures of about 32 pixels that two CPU cores train in minutes."""
    return Recipe(
        model=ModelSpec(
            embed=64,
            resolution=28,
            image=VitSpec(layers=4, width=96, heads=3, patch=7),
            text=TextSpec(width=64, heads=2, layers=2, context=24),
        ),
        learning_rate=2e-3,
        beta2=0.98,
        epsilon=1e-6,
        batch_size=192,
        epochs=8,
        warmup_steps=20,
    )


def _mini_resnet_recipe() -> Recipe:
    """Return a model that learns more from each picture of 32 pixels, shown at 64, and takes longer."""
    mini = _mini_recipe()
    image = ResNetSpec(blocks=(1, 1, 1, 1), width=32, heads=16)
    return replace(
        mini,
        model=replace(mini.model, resolution=64, image=image),
        learning_rate=1e-3,
        batch_size=256,
        epochs=20,
        warmup_steps=50,
    )


def spec_from_dict(values: Mapping[str, Any]) -> ModelSpec:
    """Return the spec that `dataclasses.asdict` once turned into `values`."""
    image = dict(values["image"])
    tower = (
        VitSpec(**image)
        if "patch" in image
        else ResNetSpec(**image | {"blocks": tuple(image["blocks"])})
    )
    return ModelSpec(**{**values, "image": tower, "text": TextSpec(**values["text"])})
