"""Settings of the stage "evaluate"; no torch, so that `--help` is quick."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from cyclopts import Parameter
from pydantic import Field, field_validator

from dedup.evaluation import published
from pipeline.runtime.settings import Settings, pace
from train.config import Device
from train.models.recipes import ModelName

HeadName = Literal["zero_shot", "linear_probe", "few_shot", "retrieval", "fine_tuned", "robustness"]
HEADS: tuple[HeadName, ...] = get_args(HeadName)
OWN = "own"
PAPER = "paper"
TEMPLATES = (OWN, PAPER, *published.TEMPLATES)
Precision = Literal["fp32", "bf16", "fp16"]


class EvaluateConfig(Settings):
    """Measure a model on pictures it has not been trained for."""

    reasons: ClassVar[Mapping[str, str]] = {
        "broken_image": "a picture of an evaluation set cannot be decoded"
    }

    evalsets: Annotated[str, Parameter(name=["--evalsets", "--sets"])] = ""
    """TOML file that names the evaluation sets"""
    model: str = ""
    """weights to measure, of ours, open_clip's or OpenAI's; default: the model of the stage train"""
    heads: tuple[HeadName, ...] = ("zero_shot", "retrieval")
    """what to measure, of zero_shot, linear_probe, few_shot, retrieval, fine_tuned, robustness; each on the sets it suits"""
    templates: tuple[str, ...] = Field((OWN,), min_length=1)
    """captions of classes: own (the set's prompts), plain, ensemble80, paper (the set's in CLIP's paper), or a set of the paper"""
    worst: int = Field(8, ge=0)
    """classes with the lowest accuracy to show on a contact sheet, a set"""
    quick_gelu: bool | None = None
    """the activation that `model` was trained with, where its file does not say"""
    resolution: int | None = Field(None, ge=1)
    """side of the pictures in pixels, if not the one that `model` was trained with"""
    batch_size: int = Field(256, ge=1)
    """pictures at a time"""
    precision: Precision = "fp32"
    """of products in the model: bf16 and fp16 are for GPUs"""
    device: Device = "auto"
    """where to compute; auto: cuda where there is one"""
    threads: int = Field(0, ge=0)
    """CPU threads to compute with; 0: one a core"""
    readers: int = pace(4, ge=1)
    """threads that decode ahead of the model"""
    features: str = pace("")
    """folder where what the model makes of pictures is kept; default: `features` in the workspace"""
    seed: int = Field(0, ge=0, lt=2**63)
    """linear_probe, few_shot, fine_tuned: of what is chosen by chance"""
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    """few_shot: pictures of each class to learn from"""
    repeats: int = Field(5, ge=1)
    """few_shot: draws of such pictures, over which means and intervals are taken"""
    caption_prefix: str = ""
    """retrieval: what stands before every caption, such as "a photo of " in the paper"""
    tower: ModelName | None = None
    """fine_tuned: recipe of which an image tower is drawn anew, such as RN50; default: the model's own tower"""
    tower_resolution: int | None = Field(None, ge=1)
    """fine_tuned: side of the pictures for such a tower; default: the recipe's"""
    tower_epochs: int = Field(5, ge=1)
    """fine_tuned: passes over the training pictures"""
    tower_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    """fine_tuned: Adam's learning rate"""
    tower_batch_size: int = Field(64, ge=4)
    """fine_tuned: pictures a step"""
    corruption_pictures: int = Field(1000, ge=0)
    """robustness: pictures of each set, chosen by hash, to see under every corruption; 0: all"""
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field((1, 2, 3, 4, 5), min_length=1)
    """robustness: how strongly to corrupt, from 1 to 5"""

    @field_validator("heads", "templates", mode="before")
    @classmethod
    def _parted_by_commas(cls, names: object) -> object:
        given = (names,) if isinstance(names, str) else names
        if not isinstance(given, list | tuple) or not all(isinstance(n, str) for n in given):
            return given
        return tuple(dict.fromkeys(name for some in given for name in some.split(",") if name))

    @field_validator("heads")
    @classmethod
    def _heads_are_known(cls, heads: tuple[str, ...]) -> tuple[str, ...]:
        if not heads or set(heads) - set(HEADS):
            raise ValueError(f"some of: {', '.join(HEADS)}")
        return heads

    @field_validator("templates")
    @classmethod
    def _templates_are_known(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if set(templates) - set(TEMPLATES):
            raise ValueError(f"some of: {', '.join(TEMPLATES)}")
        return templates
