"""One model in training: what a step computes. B: pairs of this process, S: side in pixels, L: tokens."""

import math
from dataclasses import asdict, dataclass
from typing import cast

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ConfigError
from train.config import Plan, TrainConfig
from train.learning.average import Average
from train.learning.distributed import Distributed
from train.learning.gradient_cache import cached_step
from train.learning.loss import SIGMOID_LOG_SCALE, contrastive_loss, sigmoid_loss
from train.learning.optimizer import learning_rate, make_optimizer, set_learning_rate
from train.learning.precision import autocast, choose_precision, make_scaler
from train.models.clip import Clip
from train.models.initial import load_weights
from train.models.resnet_tower import ModifiedResNet
from train.running.checkpoint import Checkpoint


class NotFinite(ConfigError):
    """A loss, or its gradient, is no number any more; the weights are those of the step before."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step did; `logit_scale` is the inverse temperature of its loss.

    Attributes:
        step: how many there were, this one included.
        gradient_norm: before it was limited. In fp16 it may not be finite: such a step changes no weights.
    """

    step: int
    loss: float
    logit_scale: float
    learning_rate: float
    gradient_norm: float


class Training:
    """Weights, optimiser, and the steps so far; every rank has one, and makes the same calls.

    Attributes:
        model: its weights, on the device of this rank.
        average: of the weights, if `config.ema_decay` asks for it.
    """

    def __init__(self, plan: Plan, config: TrainConfig, ranks: Distributed) -> None:
        """Draw the first weights, the same for the same seed on any device."""
        self._plan, self._config, self._ranks = plan, config, ranks
        self.precision = choose_precision(config.precision, ranks.device)
        self.model = _first_model(plan, config).to(ranks.device).train()
        self.average = Average(self.model, config.ema_decay) if config.ema_decay else None
        self._towers = _wrapped(self.model, config, ranks)
        self._optimizer = make_optimizer(self.model, plan)
        self._scaler = make_scaler(self.precision, ranks.device)
        self._micro_batch = _even_micro_batch(config, plan, ranks)
        self.step = 0

    @property
    def holds_batch(self) -> bool:
        """Whether a step wants its whole batch on the device, and not micro-batches one after the other."""
        return self._micro_batch is None

    def start_from(self, path: str) -> None:
        """Begin with the weights in a file that `load_weights` reads."""
        load_weights(path, self.model)
        if self.average:
            self.average.load_state_dict(self.model.state_dict())

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where `checkpoint` was taken, with the weight decay of the plan."""
        self.model.load_state_dict(checkpoint.model)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({**checkpoint.optimizer, "param_groups": groups})
        if self.average:
            self.average.load_state_dict(checkpoint.average or checkpoint.model)
        # In other numbers than fp16 there is none.
        if checkpoint.scaler:
            self._scaler.load_state_dict(dict(checkpoint.scaler))
        self.step = checkpoint.step

    def checkpoint(self) -> Checkpoint:
        """Return all of it that `resume` needs.

        Raises:
            NotFinite: if a weight is no number.
        """
        finite = [tensor.isfinite().all() for tensor in self.model.parameters()]
        if not torch.stack(finite).all():
            raise NotFinite(f"a weight is not finite after step {self.step}")
        return Checkpoint(
            step=self.step,
            spec=asdict(self._plan.model),
            model=self.model.state_dict(),
            optimizer=self._optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
            average=self.average.state_dict() if self.average else None,
        )

    def take_step(self, pixels_B3SS: Tensor, tokens_BL: Tensor) -> Step:
        """Learn from this rank's share of a global batch.

        Raises:
            NotFinite: if the loss is no longer a number, or its gradient; no weight has changed then.
            ConfigError: if the GPU's memory does not suffice.
        """
        rate = learning_rate(self.step, self._plan)
        set_learning_rate(self._optimizer, rate)
        torch.manual_seed(_seed_of(self._config.seed, self.step, self._ranks.rank))
        self._optimizer.zero_grad()
        try:
            loss = self._backward(pixels_B3SS, tokens_BL)
            norm = self._limit_gradient()
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"a step over {len(tokens_BL)} pairs a process does not fit into the memory of "
                f"{self._ranks.device}; give a --micro-batch or a smaller one, or --gradient-checkpointing"
            ) from error
        # One transfer a step: each lets the GPU run dry.
        scale = self.model.logit_scale.detach().exp()
        loss_value, norm_value, scale_value = torch.stack([loss, norm, scale]).tolist()
        self._check("loss", loss_value)
        if not self._scaler.is_enabled() or self._scaler.get_scale() < 1:
            self._check("gradient's norm", norm_value)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.model.limit_logit_scale()
        self.step += 1
        if self.average:
            self.average.update(self.model, self.step)
        return Step(
            step=self.step,
            loss=loss_value,
            logit_scale=scale_value,
            learning_rate=rate,
            gradient_norm=norm_value,
        )

    def _backward(self, pixels_B3SS: Tensor, tokens_BL: Tensor) -> Tensor:
        """Give the parameters their gradients, the mean of all ranks', and return the global batch's loss."""
        with autocast(self.precision, self._ranks.device):
            if self._micro_batch is not None:
                return cached_step(
                    self._towers,
                    pixels_B3SS,
                    tokens_BL,
                    self._loss,
                    self._micro_batch,
                    parameters=self._parameters_of_loss(),
                    scaler=self._scaler,
                )
            loss = self._loss(*self._towers(pixels_B3SS, tokens_BL))
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loss(self, image_BD: Tensor, text_BD: Tensor) -> Tensor:
        scale, bias = self.model.logit_scale, self.model.logit_bias
        if bias is not None:
            return sigmoid_loss(image_BD, text_BD, scale, bias, self._ranks)
        return contrastive_loss(image_BD, text_BD, scale, self._ranks)

    def _parameters_of_loss(self) -> list[nn.Parameter]:
        bias = self.model.logit_bias
        return [self.model.logit_scale, *([] if bias is None else [bias])]

    def _limit_gradient(self) -> Tensor:
        self._scaler.unscale_(self._optimizer)
        parameters = list(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([cast(Tensor, p.grad) for p in parameters])
        if self._config.max_gradient_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._config.max_gradient_norm, norm)
        return norm

    def _check(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise NotFinite(f"the {name} is {value} at step {self.step + 1}")


def _first_model(plan: Plan, config: TrainConfig) -> Clip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Clip(
            plan.model,
            patch_dropout=config.patch_dropout,
            checkpointing=config.gradient_checkpointing,
        )
        model.initialize()
    if isinstance(model.visual, ModifiedResNet):
        # As batches lie in memory; convolutions are 1.3 times as fast on a CPU, and more on tensor cores.
        model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.loss == "sigmoid":
        nn.init.constant_(model.logit_scale, SIGMOID_LOG_SCALE)
    return model


def _wrapped(model: Clip, config: TrainConfig, ranks: Distributed) -> nn.Module:
    towers: nn.Module = model
    if config.compile:
        # Gradient caching runs a micro-batch twice, without and with a graph, on the same random numbers.
        torch._inductor.config.fallback_random = config.patch_dropout > 0
        towers = cast(nn.Module, torch.compile(model))
    if ranks.world_size > 1:
        towers = DistributedDataParallel(towers, gradient_as_bucket_view=True)
    return towers


def _even_micro_batch(config: TrainConfig, plan: Plan, ranks: Distributed) -> int | None:
    """Return the largest size of equal micro-batches within the limit, None if the share is within it itself."""
    share = -(-plan.batch_size // ranks.world_size)
    if config.micro_batch is None or config.micro_batch >= share:
        return None
    count = -(-share // config.micro_batch)
    return -(-share // count)


def _seed_of(seed: int, step: int, rank: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed}:{step}:{rank}".encode()) >> 1
