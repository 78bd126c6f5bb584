"""Settings of the stage "train"; no torch, so that `--help` is quick."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeVar

from pydantic import Field, model_validator

from pipeline.errors import ConfigError, InputError
from pipeline.runtime.settings import Settings, pace
from train.models.recipes import ModelName, ModelSpec, VitSpec, find_recipe

Device = Literal["auto", "cpu", "cuda"]
Loss = Literal["softmax", "sigmoid"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
RESUME = ("auto", "latest", "never")
Number = TypeVar("Number", int, float)


class TrainConfig(Settings):
    """Train a contrastive model on the shards."""

    model: ModelName = "ViT-B/32"
    """recipe: towers and their hyper-parameters"""
    initial: str = ""
    """weights to begin from, a model.pt or a file of open_clip's, such as ViT-L/14's for ViT-L/14-336"""
    quick_gelu: bool = True
    """x·sigmoid(1.702x) as activation, as in the released models; off: GELU"""
    loss: Loss = "softmax"
    """softmax: CLIP's, over rows and columns of the batch; sigmoid: SigLIP's, each pair by itself"""
    batch_size: int | None = Field(None, ge=2)
    """pairs a step, over all processes; default: the recipe's"""
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
    max_gradient_norm: float | None = Field(None, gt=0, allow_inf_nan=False)
    """norm to which longer gradients are scaled down; default: none are"""
    patch_dropout: float = Field(0.0, ge=0, lt=1)
    """share of a picture's patches that a vision transformer is not shown in training"""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """also average the weights over steps with this decay, such as 0.9999, into model_ema.pt"""
    seed: int = Field(0, ge=0, lt=2**63)
    """seed of the first weights, the samples' order, the crops and the patches"""
    shuffle_window: int = Field(131_072, ge=1)
    """samples shuffled together: whole runs of shards in random order, until this many; bounds the index in memory"""
    sources: str = ""
    """TOML file that names what to train on, with weights, in place of the workspace's shards"""
    where: str = ""
    """train on the samples that meet a condition in DuckDB's SQL over the columns of the shards' index"""
    cache: str = pace("")
    """local folder for copies of remote shards and for indexes; default: witmill in XDG_CACHE_HOME or ~/.cache"""
    cache_gib: float = pace(50.0, ge=0, allow_inf_nan=False)
    """what the copies may take, for all processes of the machine together; 0: each remote image is a request"""
    crop_scale: tuple[float, float] | None = None
    """show a part of each picture of a random share of its area, such as 0.9 1.0 as open_clip does; default: CLIP's largest square at a random place"""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """least and greatest width by height of such a part"""
    jpeg_margin: float = Field(2.0, ge=1, allow_inf_nan=False)
    """decode a JPEG at half its size or less where that leaves so many pixels for each one needed along a side; 1 is quickest, larger is closer to a full decode"""
    precision: Precision = "auto"
    """numbers the towers compute with; auto: bf16, or fp16 on older GPUs, fp32 on CPUs"""
    max_broken: float = pace(0.1, ge=0, le=1)
    """share of a batch that may be broken before the run stops"""
    micro_batch: int | None = pace(None, ge=1)
    """pairs of a process whose activations are in memory at once; costs a second forward pass"""
    gradient_checkpointing: bool = pace(False)
    """compute activations anew for the backward pass, a block at a time, instead of keeping them"""
    compile: bool = pace(False)
    """compile the model with torch.compile: minutes at the start, faster steps"""
    device: Device = pace("auto")
    """where to compute; auto: cuda where there is one"""
    threads: int = pace(0, ge=0)
    """CPU threads to compute with; 0: one a core. Results are repeatable to the bit for the same number only"""
    readers: int = pace(0, ge=0)
    """threads that read and decode ahead; 0: one a core. No influence on results"""
    resume: str = pace("auto")
    """auto: go on, or build anew when settings changed; latest: go on or begin, never build anew; never: begin anew; or a checkpoint's path"""
    checkpoint_every: int = pace(500, ge=1)
    """steps from one checkpoint to the next"""
    checkpoint_minutes: float | None = pace(None, gt=0, allow_inf_nan=False)
    """also a checkpoint when this long has passed since the last"""
    keep_checkpoints: int = pace(2, ge=1)
    """newest checkpoints kept"""
    evalsets: str = pace("")
    """TOML file of evaluation sets to measure zero-shot accuracy on while training"""
    evaluate_every: int = pace(1000, ge=1)
    """steps from one such measurement to the next; the last step has one, too"""
    log_every: int = pace(10, ge=1)
    """steps from one line of metrics.jsonl to the next"""
    tensorboard: str = pace("")
    """folder for TensorBoard's event files; none by default"""

    @model_validator(mode="after")
    def _crops_exist(self) -> Self:
        low, high = self.crop_scale or (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale {low:g} to {high:g} with 0 < least <= greatest <= 1")
        low, high = self.crop_ratio
        if not 0 < low <= high < math.inf:
            raise ValueError(f"crop_ratio {low:g} to {high:g} with 0 < least <= greatest")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps ({self.steps}) or epochs ({self.epochs}), not both")
        return self


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
    if config.patch_dropout and not isinstance(recipe.model.image, VitSpec):
        raise ConfigError(
            f"train.patch_dropout is {config.patch_dropout:g}, expected 0 for {config.model}: "
            "a ResNet has no patches"
        )
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
        model=replace(
            recipe.model, quick_gelu=config.quick_gelu, logit_bias=config.loss == "sigmoid"
        ),
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
