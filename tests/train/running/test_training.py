import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from train.config import TrainConfig, make_plan
from train.learning.distributed import alone
from train.running.training import NotFinite, Training

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    model="ViT-mini", batch_size=12, steps=20, warmup_steps=2, learning_rate=1e-3, device="cpu"
)
Tensors = tuple[Tensor, Tensor]


def training(**settings: Any) -> Training:
    config = CONFIG.model_copy(update=settings)
    return Training(make_plan(config, 100), config, alone(CPU))


def batch(step: int, rows: int = 12) -> Tensors:
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randint(0, 256, (rows, 3, 28, 28), dtype=torch.uint8, generator=generator)
    tokens = torch.randint(1, 49_000, (rows, 24), generator=generator)
    tokens[:, 10] = 49_407
    return pixels, tokens


def weights(some: Training) -> Mapping[str, Tensor]:
    return {name: tensor.clone() for name, tensor in some.model.state_dict().items()}


def losses(some: Training, steps: range) -> list[float]:
    return [some.take_step(*batch(i)).loss for i in steps]


def test_micro_batches_give_the_steps_of_the_whole_batch() -> None:
    whole, parts = training(), training(micro_batch=5)
    for i in range(3):
        one, other = whole.take_step(*batch(i)), parts.take_step(*batch(i))
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
    assert whole.holds_batch
    assert not parts.holds_batch


@pytest.mark.parametrize(
    ("micro_batch", "size"), [(12, None), (40, None), (11, 6), (6, 6), (5, 4), (1, 1)]
)
def test_micro_batches_are_equal_and_within_the_limit(micro_batch: int, size: int | None) -> None:
    assert training(micro_batch=micro_batch)._micro_batch == size


@pytest.mark.parametrize("settings", [{}, {"max_gradient_norm": 0.05}])
def test_a_longer_gradient_is_scaled_down_and_its_norm_is_told(settings: dict[str, float]) -> None:
    some = training(**settings)
    norm = some.take_step(*batch(0)).gradient_norm
    assert norm > 0.1
    gradients = [p.grad for p in some.model.parameters() if p.grad is not None]
    left = torch.nn.utils.get_total_norm(gradients).item()
    assert left == pytest.approx(settings.get("max_gradient_norm", norm), rel=1e-4)


def test_patches_are_drawn_anew_each_step_and_alike_each_time() -> None:
    some, same = training(patch_dropout=0.5), training(patch_dropout=0.5)
    torch.manual_seed(1)
    first = [some.take_step(*batch(0)).loss for _ in range(2)]
    torch.manual_seed(2)
    assert [same.take_step(*batch(0)).loss for _ in range(2)] == first
    assert losses(training(seed=0), range(1)) != losses(training(patch_dropout=0.5), range(1))


def test_the_sigmoid_loss_learns_its_bias() -> None:
    some = training(loss="sigmoid")
    first = some.take_step(*batch(0))
    assert first.logit_scale == pytest.approx(10)
    assert first.loss == pytest.approx(10, abs=4)
    assert some.model.logit_bias is not None
    assert some.model.logit_bias.item() != -10


@pytest.mark.parametrize(
    "settings",
    [
        {"ema_decay": 0.9, "micro_batch": 5, "patch_dropout": 0.3},
        {"precision": "fp16"},
        {"precision": "bf16", "gradient_checkpointing": True},
    ],
)
def test_a_checkpoint_holds_all_that_the_next_steps_need(settings: dict[str, Any]) -> None:
    straight, first, second = (training(**settings) for _ in range(3))
    told = losses(straight, range(6))
    assert losses(first, range(3)) == told[:3]
    second.resume(copy.deepcopy(first.checkpoint()))
    assert losses(second, range(3, 6)) == told[3:]
    expected = weights(straight)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(second).items())
    if straight.average and second.average:
        averaged = second.average.state_dict()
        assert all(
            torch.equal(t, averaged[name]) for name, t in straight.average.state_dict().items()
        )
        assert not torch.equal(averaged["logit_scale"], expected["logit_scale"])


def test_a_checkpoint_is_gone_on_from_with_the_decay_now_given() -> None:
    first, second = training(), training(weight_decay=0.5)
    losses(first, range(3))
    second.resume(copy.deepcopy(first.checkpoint()))
    losses(second, range(3, 4))
    groups = second.checkpoint().optimizer["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_float32_with_weights_in_float32(precision: str) -> None:
    half, full = training(precision=precision), training()
    for one, other in zip(losses(half, range(4)), losses(full, range(4)), strict=True):
        assert one != other
        assert one == pytest.approx(other, abs=0.05)
    assert {tensor.dtype for tensor in half.model.parameters()} == {torch.float32}


def test_a_gradient_beyond_float16_skips_the_step_and_lowers_the_scale() -> None:
    some = training(precision="fp16")
    some._scaler.load_state_dict({**some._scaler.state_dict(), "scale": 2.0**40})
    before = weights(some)
    step = some.take_step(*batch(0))
    assert not math.isfinite(step.gradient_norm)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(some).items())
    assert some.checkpoint().scaler["scale"] == 2.0**39


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_loss_that_is_no_number_changes_no_weight(precision: str) -> None:
    some = training(precision=precision, ema_decay=0.9)
    losses(some, range(2))
    with torch.no_grad():
        some.model.visual.conv1.weight[0, 0, 0, 0] = float("nan")
    before = weights(some)
    with pytest.raises(NotFinite, match="the loss is nan at step 3"):
        some.take_step(*batch(2))
    for name, tensor in weights(some).items():
        assert torch.equal(tensor.nan_to_num(7), before[name].nan_to_num(7))
    with pytest.raises(NotFinite, match="a weight is not finite after step 2"):
        some.checkpoint()


def test_a_gradient_that_is_no_number_changes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    some = training()
    some.model.logit_scale.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(some)
    with pytest.raises(NotFinite, match=r"the gradient's norm is (inf|nan) at step 1"):
        some.take_step(*batch(0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(some).items())


def test_a_share_without_pairs_is_computed_with() -> None:
    image, text = training()._towers(*batch(0, rows=0))
    assert image.shape == text.shape == (0, 64)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    # What makes machine code of the traced model takes half a minute here; on a GPU see below.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    settings = {"micro_batch": 6, "patch_dropout": 0.3}
    expected = losses(training(**settings), range(2))
    compiled = training(compile=True, **settings)
    assert losses(compiled, range(2)) == pytest.approx(expected, rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert set(compiled.checkpoint().model) == set(compiled.model.state_dict())


def test_a_resnet_has_no_patches_to_drop() -> None:
    config = TrainConfig(model="RN50", patch_dropout=0.5, batch_size=4, steps=5000)
    with pytest.raises(ConfigError, match=r"train\.patch_dropout is 0\.5, expected 0 for RN50"):
        make_plan(config, 100)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"compile": True}, {"micro_batch": 5}])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_takes_the_same_steps(precision: str, settings: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    config = CONFIG.model_copy(update={"precision": precision, **settings})
    on_gpu = Training(make_plan(config, 100), config, alone(torch.device("cuda")))
    expected = losses(training(), range(3))
    steps = [on_gpu.take_step(*(t.cuda() for t in batch(i))).loss for i in range(3)]
    assert steps == pytest.approx(expected, abs=1e-3 if precision == "fp32" else 0.05)
