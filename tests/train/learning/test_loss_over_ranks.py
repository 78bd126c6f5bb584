from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.reference.full_matrix import full_sigmoid_loss, full_softmax_loss
from tests.train.ranks import own_rows, run_ranks
from train.learning.distributed import Distributed
from train.learning.loss import contrastive_loss, sigmoid_loss

SHARES = {
    1: [[7]],
    2: [[4, 4], [5, 2], [3, 0]],
    4: [[3, 3, 3, 3], [4, 3, 3, 2], [5, 0, 1, 2]],
}
TILES = (1, 3, 2048)
LOSSES = ("softmax", "sigmoid")


def inputs_and_weights(pairs: int, scale: float = 3.0) -> tuple[list[Tensor], list[Tensor]]:
    """Return inputs of two linear towers, and all that is learned."""
    generator = torch.Generator().manual_seed(pairs)
    drawn = [
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((pairs, 6), (pairs, 6), (6, 4), (6, 4))
    ]
    learned = torch.tensor([scale, -2.0], dtype=torch.float64).unbind()
    return drawn[:2], [value.requires_grad_() for value in (*drawn[2:], *learned)]


def embed(inputs: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    return [
        functional.normalize(rows @ tower, dim=1)
        for rows, tower in zip(inputs, weights[:2], strict=True)
    ]


def tiled_losses(
    distributed: Distributed, shares: list[list[int]]
) -> list[tuple[Tensor, tuple[Tensor, ...]]]:
    """Return this rank's loss and gradients for every way to share, loss and tile."""
    return [tiled_loss(distributed, *case) for case in product(shares, LOSSES, TILES)]


def tiled_loss(
    distributed: Distributed, share: list[int], name: str, tile: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    inputs, weights = inputs_and_weights(sum(share))
    rows = own_rows(distributed, share)
    embeddings = embed([whole[rows] for whole in inputs], weights)
    if name == "softmax":
        loss = contrastive_loss(*embeddings, weights[2], distributed, tile)
    else:
        loss = sigmoid_loss(*embeddings, *weights[2:], distributed, tile)
    return loss.detach(), torch.autograd.grad(loss, weights, materialize_grads=True)


def full_loss(name: str, pairs: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    inputs, weights = inputs_and_weights(pairs)
    embeddings = embed(inputs, weights)
    if name == "softmax":
        loss = full_softmax_loss(*embeddings, weights[2])
    else:
        loss = full_sigmoid_loss(*embeddings, *weights[2:])
    return loss.detach(), torch.autograd.grad(loss, weights, materialize_grads=True)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_rank_has_the_global_loss_and_the_mean_of_their_gradients_is_its_gradient(
    world_size: int, tmp_path: Path
) -> None:
    ranks = run_ranks(world_size, tiled_losses, tmp_path, SHARES[world_size])
    for case, found in zip(
        product(SHARES[world_size], LOSSES, TILES), zip(*ranks, strict=True), strict=True
    ):
        share, name, _ = case
        value, gradients = full_loss(name, sum(share))
        for loss, _ in found:
            torch.testing.assert_close(loss, value, rtol=1e-12, atol=1e-14, msg=str(case))
            assert torch.equal(loss, found[0][0])
        of_ranks = zip(*(gradients for _, gradients in found), strict=True)
        for each, exact in zip(of_ranks, gradients, strict=True):
            mean = torch.stack(each).mean(0)
            torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-13, msg=str(case))


def loss_with_a_hole(distributed: Distributed) -> Tensor:
    embeddings = torch.eye(3) + distributed.rank
    if distributed.rank == 1:
        embeddings[2, 2] = torch.nan
    log_scale = torch.tensor(1.0)
    losses = [
        contrastive_loss(embeddings, torch.eye(3), log_scale, distributed),
        contrastive_loss(torch.eye(3), embeddings, log_scale, distributed),
        sigmoid_loss(embeddings, torch.eye(3), log_scale, log_scale, distributed),
    ]
    return torch.stack(losses)


def test_a_number_that_is_none_on_one_rank_makes_the_loss_none_on_all(tmp_path: Path) -> None:
    for losses in run_ranks(2, loss_with_a_hole, tmp_path):
        assert losses.isnan().all()
