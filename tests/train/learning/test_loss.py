import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.reference.contrastive import symmetric_loss
from tests.reference.full_matrix import full_sigmoid_loss, full_softmax_loss
from train.learning.distributed import alone
from train.learning.loss import SIGMOID_LOG_SCALE, contrastive_loss, sigmoid_loss
from train.models.clip import FIRST_LOGIT_BIAS

ROOT = Path(__file__).parents[3]
Loss = Callable[..., Tensor]
# A tiled loss, its plain version, and the numbers that it learns.
LOSSES: dict[str, tuple[Loss, Loss, tuple[float, ...]]] = {
    "softmax": (contrastive_loss, full_softmax_loss, (2.0,)),
    "sigmoid": (sigmoid_loss, full_sigmoid_loss, (2.0, -3.0)),
}
both = pytest.mark.parametrize("name", LOSSES)


def unit_rows(rows: int, width: int, seed: int, kind: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return functional.normalize(drawn, dim=1).to(kind)


def scalars(values: tuple[float, ...], kind: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(value, dtype=kind) for value in values]


def value_and_gradients(loss: Loss, inputs: list[Tensor], **options: int) -> list[Tensor]:
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    value = loss(*leaves, **options)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


@settings(deadline=None)
@given(
    rows=st.integers(1, 12),
    width=st.integers(1, 8),
    log_scale=st.floats(-3, 4.605),
    tile=st.integers(1, 14),
    seed=st.integers(0, 2**32),
)
def test_the_loss_is_that_of_the_full_matrix_in_double_precision(
    rows: int, width: int, log_scale: float, tile: int, seed: int
) -> None:
    image, text = unit_rows(rows, width, seed), unit_rows(rows, width, seed + 1)
    expected = symmetric_loss(image.numpy(), text.numpy(), log_scale)
    for kind, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        (scale,) = scalars((log_scale,), kind)
        loss = contrastive_loss(image.to(kind), text.to(kind), scale, tile=tile)
        assert loss.dtype == kind
        assert loss.item() == pytest.approx(expected, rel=tolerance, abs=tolerance * 100)


@settings(deadline=None)
@given(
    rows=st.integers(1, 12),
    log_scale=st.floats(-3, 4.605),
    bias=st.floats(-20, 20),
    tile=st.integers(1, 14),
    seed=st.integers(0, 2**32),
)
def test_the_sigmoid_loss_is_the_sum_over_all_pairs_one_by_one(
    rows: int, log_scale: float, bias: float, tile: int, seed: int
) -> None:
    image, text = unit_rows(rows, 5, seed), unit_rows(rows, 5, seed + 1)
    terms = []
    for i, picture in enumerate(image):
        for j, caption in enumerate(text):
            logit = math.exp(log_scale) * float(picture @ caption) + bias
            terms.append(math.log1p(math.exp(-logit if i == j else logit)))
    loss = sigmoid_loss(image, text, *scalars((log_scale, bias)), tile=tile)
    assert loss.item() == pytest.approx(math.fsum(terms) / rows, rel=1e-12)


@both
@settings(deadline=None)
@given(rows=st.integers(1, 12), tile=st.integers(1, 14), seed=st.integers(0, 2**32))
def test_all_gradients_are_those_of_the_full_matrix(
    name: str, rows: int, tile: int, seed: int
) -> None:
    tiled, full, learned = LOSSES[name]
    inputs = [unit_rows(rows, 4, seed), unit_rows(rows, 4, seed + 1), *scalars(learned)]
    found = value_and_gradients(tiled, inputs, tile=tile)
    for ours, plain in zip(found, value_and_gradients(full, inputs), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-13)


@both
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    tiled, _, learned = LOSSES[name]
    inputs = [unit_rows(5, 3, 1), unit_rows(5, 3, 2), *scalars(learned)]
    leaves = [value.requires_grad_() for value in inputs]
    # Three times the loss: what comes after it counts, too.
    assert torch.autograd.gradcheck(lambda *values: 3 * tiled(*values, tile=2), leaves)


@both
@pytest.mark.parametrize("spread", [0.03, 0.5, 10])
def test_float32_is_as_near_to_the_truth_as_with_the_full_matrix(name: str, spread: float) -> None:
    tiled, full, learned = LOSSES[name]
    middle = unit_rows(1, 64, 3)
    drawn = [unit_rows(700, 64, seed) * spread + middle for seed in (1, 2)]
    learned = (math.log(100.0), *learned[1:])
    inputs = [*(functional.normalize(rows, dim=1) for rows in drawn), *scalars(learned)]
    short = [value.float() for value in inputs]
    truth = value_and_gradients(full, [value.double() for value in short])
    ours = value_and_gradients(tiled, short, tile=256)
    for exact, tiles, matrix in zip(truth, ours, value_and_gradients(full, short), strict=True):
        allowed = 3 * (matrix - exact).abs().max() + 1e-7 * exact.abs().max()
        assert (tiles - exact).abs().max() <= allowed


@both
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_short_embeddings_are_counted_in_float32_even_under_autocast(
    name: str, kind: torch.dtype
) -> None:
    tiled, _, learned = LOSSES[name]
    inputs = [unit_rows(40, 16, 1, kind), unit_rows(40, 16, 2, kind), *scalars(learned)]
    expected = value_and_gradients(tiled, [value.float() for value in inputs], tile=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_gradients(tiled, inputs, tile=16)
    assert found[0].dtype == torch.float32
    assert torch.equal(found[0], expected[0])
    for ours, wide, value in zip(found[1:], expected[1:], inputs, strict=True):
        assert ours.dtype == value.dtype
        torch.testing.assert_close(ours, wide.to(value.dtype), rtol=1e-6, atol=0)


def test_a_caller_who_allows_short_products_gets_them_back_after_the_loss() -> None:
    before = torch.get_float32_matmul_precision()
    inputs = [*(unit_rows(300, 64, seed, torch.float32) for seed in (1, 2)), torch.tensor(4.6)]
    expected = value_and_gradients(contrastive_loss, inputs)
    try:
        torch.set_float32_matmul_precision("medium")
        found = value_and_gradients(contrastive_loss, inputs)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_perfect_pairs_at_a_high_scale_cost_nothing_and_chance_costs_log_n() -> None:
    apart = torch.eye(8)
    assert 0 <= contrastive_loss(apart, apart, torch.tensor(4.6)).item() < 1e-6
    same = torch.ones(8, 1)
    assert contrastive_loss(same, same, torch.tensor(2.0)).item() == pytest.approx(np.log(8))


def test_both_directions_count() -> None:
    image, text = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    one_way = contrastive_loss(image, text, torch.tensor(1.0))
    other_way = contrastive_loss(text, image, torch.tensor(1.0))
    assert one_way.item() == pytest.approx(other_way.item())
    assert one_way.item() == pytest.approx(
        symmetric_loss(image.double().numpy(), text.double().numpy(), 1.0)
    )


def test_one_pair_costs_nothing_and_teaches_nothing() -> None:
    inputs = [unit_rows(1, 4, 1), unit_rows(1, 4, 2), torch.tensor(3.0)]
    assert all(not found.any() for found in value_and_gradients(contrastive_loss, inputs))


def test_equal_embeddings_pull_nowhere() -> None:
    same = functional.normalize(torch.ones(10, 4), dim=1)
    value, image, text, scale = value_and_gradients(
        contrastive_loss, [same, same, torch.tensor(4.605)], tile=3
    )
    assert value.item() == pytest.approx(math.log(10), abs=1e-5)
    assert max(image.abs().max(), text.abs().max()) < 1e-5
    assert scale.abs() < 1e-4


@both
@pytest.mark.parametrize("sign", [1, -1])
def test_a_scale_of_100_overflows_nowhere(name: str, sign: int) -> None:
    tiled, full, learned = LOSSES[name]
    image = unit_rows(60, 8, 1, torch.float32)
    others = scalars((math.log(100.0), *learned[1:]), torch.float32)
    inputs = [image, sign * image, *others]
    found = value_and_gradients(tiled, inputs, tile=7)
    assert all(value.isfinite().all() for value in found)
    assert found[0] >= 0
    plain = value_and_gradients(full, [value.double() for value in inputs])
    for ours, exact in zip(found, plain, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_a_number_that_is_none_makes_the_loss_none(name: str, broken: float, where: int) -> None:
    tiled, _, learned = LOSSES[name]
    inputs = [unit_rows(9, 4, 1), unit_rows(9, 4, 2), *scalars(learned)]
    inputs[where][5, 2] = broken
    assert not tiled(*inputs, tile=4).isfinite()
    inputs[where][5, 2] = 0
    inputs[2].fill_(broken)
    assert not tiled(*inputs, tile=4).isfinite()


def test_embeddings_of_unequal_number_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"image embeddings are \[3, 4\], text embeddings \[2, 4\]"
    ):
        contrastive_loss(torch.ones(3, 4), torch.ones(2, 4), torch.tensor(1.0))


def test_the_process_alone_is_the_default() -> None:
    inputs = [unit_rows(9, 4, 1), unit_rows(9, 4, 2), torch.tensor(1.0)]
    here = alone(torch.device("cpu"))
    assert contrastive_loss(*inputs) == contrastive_loss(*inputs, distributed=here)


def test_the_sigmoid_loss_begins_where_the_paper_begins() -> None:
    # A true pair at chance costs the bias, a wrong one nearly nothing.
    apart = torch.eye(64, dtype=torch.float64)
    begin = scalars((SIGMOID_LOG_SCALE, FIRST_LOGIT_BIAS))
    assert begin[0].exp().item() == pytest.approx(10)
    loss = sigmoid_loss(apart[:32], apart[32:], *begin).item()
    assert loss == pytest.approx(10 + 32 * math.log1p(math.exp(-10)))


MEMORY = """
import sys, torch
from pathlib import Path
from tests.reference.full_matrix import full_softmax_loss
from train.learning.loss import contrastive_loss, sigmoid_loss
def rss():
    # Not ru_maxrss, which begins with what the parent held when it forked.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
def step(loss, rows, **options):
    image, text = (torch.randn(rows, 16).div_(4).requires_grad_() for _ in range(2))
    loss(image, text, torch.tensor(1.0), **options).backward()
torch.set_num_threads(1)
bias = torch.tensor(0.0)
losses = {
    "softmax": (contrastive_loss, {"tile": 512}),
    "sigmoid": (sigmoid_loss, {"bias": bias, "tile": 512}),
    "full": (full_softmax_loss, {}),
}
loss, options = losses[sys.argv[1]]
step(loss, 1024, **options)
before = rss()
step(loss, 6144, **options)
print(rss() - before)
"""


def grown_megabytes(name: str) -> float:
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return float(run.stdout)


@both
def test_memory_does_not_hold_the_matrix(name: str) -> None:
    # One matrix of 6144 x 6144 is 144 MB, embeddings and their gradients are 0.4 MB each.
    assert grown_megabytes(name) < 25


def test_the_measure_of_memory_sees_the_matrix() -> None:
    assert grown_megabytes("full") > 144
