"""Settings of the stages "train" and "evaluate"; no torch, so that `--help` is quick."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from pipeline.errors import ConfigError, InputError
from pipeline.runtime.settings import Settings, pace
from train.recipes import ModelName, ModelSpec, find_recipe

Device = Literal["auto", "cpu", "cuda"]
Number = TypeVar("Number", int, float)


class TrainConfig(Settings):
    """Train a contrastive model on the shards."""

    model: ModelName = "ViT-B/32"
    """recipe: towers and their hyper-parameters"""
    initial: str = ""
    """weights to begin from, a model.pt or a file of open_clip's, such as ViT-L/14's for ViT-L/14-336"""
    quick_gelu: bool = True
    """x·sigmoid(1.702x) as activation, as in the released models; off: GELU"""
    batch_size: int | None = Field(None, ge=2)
    """pairs a step; default: the recipe's"""
    epochs: int | None = Field(None, ge=1)
    """passes over the shards; default: the recipe's"""
    steps: int | None = Field(None, ge=1)
    """optimiser steps, in place of epochs"""
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    """highest learning rate; default: the recipe's"""
    warmup_steps: int | None = Field(None, ge=0)
    """steps over which the learning rate rises; default: the recipe's"""
    weight_decay: float | None = Field(None, ge=0, allow_inf_nan=False)
    """decoupled decay of all but gains and biases; default: the recipe's"""
    seed: int = Field(0, ge=0, lt=2**63)
    """seed of the first weights, the samples' order and the crops"""
    shuffle_window: int = Field(131_072, ge=1)
    """samples shuffled together: whole shards in random order, until this many; bounds the index in memory"""
    max_broken: float = pace(0.1, ge=0, le=1)
    """share of a batch that may be broken before the run stops"""
    checkpoint_every: int = pace(500, ge=1)
    """steps from one checkpoint to the next"""
    keep_checkpoints: int = pace(2, ge=1)
    """newest checkpoints kept"""
    device: Device = "auto"
    """where to compute; auto: cuda where there is one"""
    threads: int = Field(0, ge=0)
    """CPU threads to compute with; 0: one a core. Results are repeatable for the same number only"""
    readers: int = pace(4, ge=1)
    """threads that read and decode ahead; no influence on results"""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps ({self.steps}) or epochs ({self.epochs}), not both")
        return self


class EvaluateConfig(Settings):
    """Measure the trained model on labelled pictures it has not been trained for."""

    reasons: ClassVar[Mapping[str, str]] = {
        "broken_image": "a picture of an evaluation set cannot be decoded"
    }

    evalsets: str = ""
    """TOML file that names the evaluation sets"""
    batch_size: int = Field(256, ge=1)
    """pictures at a time"""
    device: Device = "auto"
    """where to compute; auto: cuda where there is one"""
    threads: int = Field(0, ge=0)
    """CPU threads to compute with; 0: one a core"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do: the recipe with the settings' changes, and its length in steps."""

    model: ModelSpec
    batch_size: int
    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float


def make_plan(config: TrainConfig, samples: int) -> Plan:
    """Return what `config` means for shards of `samples` samples.

    Raises:
        InputError: if there are no samples.
        ConfigError: if the numbers do not fit together.
    """
    recipe = find_recipe(config.model)
    if not samples:
        raise InputError(
            "shard holds no samples to train on; look at `witmill status` for the drops"
        )
    batch_size = _chosen(config.batch_size, recipe.batch_size)
    warmup_steps = _chosen(config.warmup_steps, recipe.warmup_steps)
    if batch_size > samples:
        raise ConfigError(
            f"train.batch_size is {batch_size}, expected at most the {samples} samples of the shards; "
            "name a smaller --batch-size, or a small model such as --model ViT-mini"
        )
    # The last batch is filled from the start of one more epoch.
    whole = -(-_chosen(config.epochs, recipe.epochs) * samples // batch_size)
    steps = _chosen(config.steps, whole)
    if warmup_steps >= steps:
        raise ConfigError(
            f"train.warmup_steps is {warmup_steps}, expected fewer than the {steps} steps of the run"
        )
    return Plan(
        model=replace(recipe.model, quick_gelu=config.quick_gelu),
        batch_size=batch_size,
        steps=steps,
        learning_rate=_chosen(config.learning_rate, recipe.learning_rate),
        warmup_steps=warmup_steps,
        weight_decay=_chosen(config.weight_decay, recipe.weight_decay),
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        epsilon=recipe.epsilon,
    )


def _chosen(setting: Number | None, recipe: Number) -> Number:
    return recipe if setting is None else setting
