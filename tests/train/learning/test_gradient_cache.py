import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.train.ranks import own_rows, run_ranks
from train.learning.distributed import Distributed
from train.learning.gradient_cache import cached_step
from train.learning.loss import contrastive_loss, sigmoid_loss
from train.models.clip import Clip
from train.models.recipes import ModelSpec, ResNetSpec, TextSpec, VitSpec

TEXT = TextSpec(width=32, heads=2, layers=1, context=8)
SPECS = {
    "vit": ModelSpec(
        embed=16, resolution=16, image=VitSpec(layers=2, width=32, heads=2, patch=8), text=TEXT
    ),
    "resnet": ModelSpec(
        embed=16, resolution=32, image=ResNetSpec(blocks=(1, 1, 1, 1), width=8, heads=4), text=TEXT
    ),
}
SHARES = [5, 2]


class Towers(nn.Module):
    """A Clip in training mode whose embeddings lose a part of their numbers at random."""

    def __init__(self, name: str, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.clip = Clip(SPECS[name])
        self.clip.initialize()
        self.dropout = dropout
        self.train()

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        image, text = self.clip.encode_image(pixels), self.clip.encode_text(tokens)
        return functional.dropout(image, self.dropout), functional.dropout(text, self.dropout)

    def loss(self, image: Tensor, text: Tensor) -> Tensor:
        return contrastive_loss(image, text, self.clip.logit_scale)

    def gradients(self) -> dict[str, Tensor]:
        return {n: p.grad.clone() for n, p in self.named_parameters() if p.grad is not None}


def batch(towers: Towers, pairs: int = 7) -> tuple[Tensor, Tensor]:
    spec = towers.clip.spec
    generator = torch.Generator().manual_seed(1)
    shape = (pairs, 3, spec.resolution, spec.resolution)
    pixels = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    tokens = torch.randint(1, 49_000, (pairs, spec.text.context), generator=generator)
    tokens[:, -1] = 49_407
    return pixels, tokens


def plain_step(towers: Towers, pixels: Tensor, tokens: Tensor, micro_batch: int) -> Tensor:
    """Embed micro-batches, too, but keep all their graphs."""
    parts = [
        towers(*rows)
        for rows in zip(pixels.split(micro_batch), tokens.split(micro_batch), strict=True)
    ]
    loss = towers.loss(*(torch.cat(features) for features in zip(*parts, strict=True)))
    loss.backward()
    return loss.detach()


def step(towers: Towers, pixels: Tensor, tokens: Tensor, micro: int, **options: Any) -> Tensor:
    learned = [towers.clip.logit_scale]
    return cached_step(towers, pixels, tokens, towers.loss, micro, parameters=learned, **options)


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], part: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        allowed = part * gradient.abs().max().item() + 1e-7
        torch.testing.assert_close(
            found[name], gradient, rtol=0, atol=allowed, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize("micro_batch", [1, 3, 7, 100])
def test_a_vit_gets_the_gradients_of_the_whole_batch(micro_batch: int) -> None:
    plain, cached = Towers("vit"), Towers("vit")
    pixels, tokens = batch(plain)
    expected = plain_step(plain, pixels, tokens, 7)
    loss = step(cached, pixels, tokens, micro_batch)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected)
    assert len(cached.gradients()) == len(list(cached.parameters()))
    assert_near(cached.gradients(), plain.gradients())


@pytest.mark.parametrize("micro_batch", [4, 7])
def test_a_resnet_normalises_by_micro_batch_and_takes_each_into_its_statistics_once(
    micro_batch: int,
) -> None:
    plain, cached = Towers("resnet"), Towers("resnet")
    pixels, tokens = batch(plain)
    expected = plain_step(plain, pixels, tokens, micro_batch)
    torch.testing.assert_close(step(cached, pixels, tokens, micro_batch), expected)
    assert_near(cached.gradients(), plain.gradients(), 1e-3)
    buffers = dict(cached.named_buffers())
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffers[name], buffer)
    counts = {int(b) for name, b in buffers.items() if name.endswith("num_batches_tracked")}
    assert counts == {-(-7 // micro_batch)}


def test_a_model_being_evaluated_keeps_its_statistics() -> None:
    towers = Towers("resnet").eval()
    before = copy.deepcopy(dict(towers.named_buffers()))
    step(towers, *batch(towers), 4)
    assert all(torch.equal(b, before[name]) for name, b in towers.named_buffers())


def test_both_passes_draw_the_same_random_numbers_as_one_pass_would() -> None:
    plain, cached = Towers("vit", dropout=0.5), Towers("vit", dropout=0.5)
    pixels, tokens = batch(plain)
    torch.manual_seed(5)
    expected = plain_step(plain, pixels, tokens, 3)
    after = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(step(cached, pixels, tokens, 3), expected)
    assert torch.equal(torch.rand(3), after)
    assert_near(cached.gradients(), plain.gradients())


def test_gradients_are_added_to_those_there_are() -> None:
    once, twice = Towers("vit"), Towers("vit")
    pixels, tokens = batch(once)
    step(once, pixels, tokens, 3)
    for _ in range(2):
        step(twice, pixels, tokens, 3)
    assert_near(twice.gradients(), {name: 2 * g for name, g in once.gradients().items()})


def test_under_autocast_every_weight_gets_its_gradient() -> None:
    plain, cached = Towers("vit"), Towers("vit")
    pixels, tokens = batch(plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, text = plain(pixels, tokens)
        expected = plain.loss(image, text)
        loss = step(cached, pixels, tokens, 3)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-3, atol=0)
    assert_near(cached.gradients(), plain.gradients(), 0.05)


def test_a_scaler_scales_all_gradients_and_not_the_loss() -> None:
    plain, cached = Towers("vit"), Towers("vit")
    pixels, tokens = batch(plain)
    expected = step(plain, pixels, tokens, 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert torch.equal(step(cached, pixels, tokens, 3, scaler=scaler), expected)
    assert_near(cached.gradients(), {name: 1024 * g for name, g in plain.gradients().items()})
    optimizer = torch.optim.SGD(cached.parameters(), lr=0.1)
    scaler.unscale_(optimizer)
    assert_near(cached.gradients(), plain.gradients())


def test_a_second_learned_number_of_the_loss_gets_its_gradient() -> None:
    towers, bias = Towers("vit"), nn.Parameter(torch.tensor(-10.0))
    pixels, tokens = batch(towers)
    scale = towers.clip.logit_scale

    def loss(image: Tensor, text: Tensor) -> Tensor:
        return sigmoid_loss(image, text, scale, bias)

    value = cached_step(towers, pixels, tokens, loss, 3, parameters=[scale, bias])
    expected = loss(*towers(pixels, tokens))
    torch.testing.assert_close(value, expected.detach())
    for found, exact in zip(
        (scale, bias), torch.autograd.grad(expected, (scale, bias)), strict=True
    ):
        torch.testing.assert_close(found.grad, exact)


def live_numbers(forward: Callable[[], Any]) -> int:
    """Return the most numbers that graphs have held at once."""
    sizes = {"now": 0, "most": 0}

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            sizes["now"] += tensor.numel()
            sizes["most"] = max(sizes.values())

        def __del__(self) -> None:
            sizes["now"] -= self.tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        forward()
    return sizes["most"]


def test_graphs_hold_one_micro_batch_at_a_time() -> None:
    towers = Towers("vit")
    pixels, tokens = batch(towers, 32)
    whole = live_numbers(lambda: plain_step(towers, pixels, tokens, 32))
    assert live_numbers(lambda: step(towers, pixels, tokens, 4)) < whole / 2


def parallel_step(
    distributed: Distributed, name: str, micro_batch: int | None
) -> tuple[Tensor, dict[str, Tensor], int]:
    """Take a step with DistributedDataParallel; return what it gave, and gradients sent repeatedly."""
    towers = Towers(name)
    pixels, tokens = (whole[own_rows(distributed, SHARES)] for whole in batch(towers))
    parallel = DistributedDataParallel(towers)
    sent = []

    def count(state: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        sent.append(bucket.index())
        return allreduce_hook(state, bucket)

    parallel.register_comm_hook(None, count)
    scale = towers.clip.logit_scale

    def loss(image: Tensor, text: Tensor) -> Tensor:
        return contrastive_loss(image, text, scale, distributed)

    if micro_batch is None:
        value = loss(*parallel(pixels, tokens))
        value.backward()  # type: ignore[no-untyped-call]
    else:
        value = cached_step(parallel, pixels, tokens, loss, micro_batch, parameters=[scale])
    return value.detach(), towers.gradients(), len(sent) - len(set(sent))


@pytest.mark.parametrize("micro_batch", [None, 2, 100])
def test_ranks_with_unequal_shares_send_the_global_gradients_once(
    micro_batch: int | None, tmp_path: Path
) -> None:
    plain = Towers("vit")
    expected = plain_step(plain, *batch(plain), 7)
    for loss, gradients, repeated in run_ranks(2, parallel_step, tmp_path, "vit", micro_batch):
        torch.testing.assert_close(loss, expected)
        assert_near(gradients, plain.gradients())
        assert repeated == 0


def test_ranks_with_batch_statistics_and_unequal_shares_do_not_wait_for_each_other(
    tmp_path: Path,
) -> None:
    first, second = run_ranks(2, parallel_step, tmp_path, "resnet", 3)
    assert first[1].keys() == second[1].keys()
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_gpu_draws_the_same_random_numbers_in_both_passes() -> None:
    plain, cached = (Towers("vit", dropout=0.5).cuda() for _ in range(2))
    pixels, tokens = batch(plain)
    torch.manual_seed(5)
    expected = plain_step(plain, pixels.cuda(), tokens.cuda(), 3)
    torch.manual_seed(5)
    torch.testing.assert_close(step(cached, pixels, tokens, 3), expected)
    assert_near(cached.gradients(), plain.gradients(), 1e-3)
