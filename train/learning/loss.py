"""Contrastive losses, exact over the batches of all ranks, without ever holding a matrix of N x N.

Each rank takes its own pictures against all captions, a tile of logits at a time, so it holds
O(N·D + tile²) numbers. Backward computes the tiles again. Every rank gets the loss of the global
batch, and gradients whose mean over ranks, which is what DistributedDataParallel takes, is the global
batch's: those of its own part times the number of ranks, whatever the ranks' shares are.

B: pairs of this rank, N: pairs of all ranks, D: embedding.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from train.learning.distributed import Distributed, alone

TILE = 2048
"""Rows and columns of a tile."""

SIGMOID_LOG_SCALE = math.log(10)
"""Where the sigmoid loss begins (SigLIP, section 3.2), with a bias of `clip.FIRST_LOGIT_BIAS`."""


def contrastive_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    log_scale: Tensor,
    distributed: Distributed | None = None,
    tile: int = TILE,
) -> Tensor:
    """Return the symmetric InfoNCE loss of the global batch, a scalar in nats (CLIP, figure 3).

    Computed in float32, in float64 where the embeddings are, whatever autocast says. The loss's
    gradient must be the same on every rank, as it is where the loss is what backward begins with.

    Args:
        image_BD, text_BD: unit-length embeddings of this rank's pairs; row i of both is pair i.
        log_scale: natural logarithm of the inverse temperature.
        distributed: the ranks, whose shares may differ; default: this process alone.
        tile: rows and columns computed at a time; no influence on the result but by rounding.
    """
    image_BD, text_ND, shares, ranks = _gathered(image_BD, text_BD, distributed)
    loss = _Softmax.apply(image_BD, text_ND, log_scale, shares, ranks, tile)  # type: ignore[no-untyped-call]
    return cast(Tensor, loss)


def sigmoid_loss(
    image_BD: Tensor,
    text_BD: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    distributed: Distributed | None = None,
    tile: int = TILE,
) -> Tensor:
    """Return the sigmoid loss of the global batch, a scalar in nats (SigLIP, equation 1).

    Each of the N² pairs of a picture and a caption is classified alone; the sum is divided by N.
    The rest is as with `contrastive_loss`.

    Args:
        image_BD, text_BD: unit-length embeddings of this rank's pairs; row i of both is pair i.
        log_scale: natural logarithm of the inverse temperature, at first `SIGMOID_LOG_SCALE`.
        bias: what is added to the logits, at first -10.
        distributed: the ranks, whose shares may differ; default: this process alone.
        tile: rows and columns computed at a time; no influence on the result but by rounding.
    """
    image_BD, text_ND, shares, ranks = _gathered(image_BD, text_BD, distributed)
    loss = _Sigmoid.apply(image_BD, text_ND, log_scale, bias, shares, ranks, tile)  # type: ignore[no-untyped-call]
    return cast(Tensor, loss)


def _gathered(
    image_BD: Tensor, text_BD: Tensor, distributed: Distributed | None
) -> tuple[Tensor, Tensor, list[int], Distributed]:
    if image_BD.shape != text_BD.shape:
        raise ValueError(
            f"image embeddings are {list(image_BD.shape)}, text embeddings {list(text_BD.shape)}"
        )
    ranks = distributed or alone(image_BD.device)
    # Before gathering, so that gradients are summed over ranks in float32, too.
    kind = torch.promote_types(torch.promote_types(image_BD.dtype, text_BD.dtype), torch.float32)
    shares = ranks.shares(len(text_BD))
    return image_BD.to(kind), ranks.gather(text_BD.to(kind), shares), shares, ranks


class _Exponentials(NamedTuple):
    """Sums of exponentials of logits, of rows or of columns, as multiples of that of the highest.

    One logarithm would be rounded as coarsely as a logit of 100 is, and probabilities would no longer
    add up to 1.
    """

    highest: Tensor
    total: Tensor

    @classmethod
    def none(cls, like: Tensor, length: int) -> "_Exponentials":
        return cls(like.new_full((length,), -math.inf), like.new_zeros(length))

    def of(self, part: slice) -> "_Exponentials":
        return _Exponentials(self.highest[part], self.total[part])

    def add(self, logits: Tensor, dim: int) -> None:
        """Add the logits of a tile along `dim`."""
        highest = torch.maximum(self.highest, logits.amax(dim))
        self.total.mul_((self.highest - highest).exp_())
        self.total.add_((logits - highest.unsqueeze(dim)).exp_().sum(dim))
        self.highest.copy_(highest)

    def of_all(self, ranks: Distributed) -> "_Exponentials":
        """Return the sums over all ranks."""
        pairs_W2N = ranks.gather(torch.stack(self)[None], [1] * ranks.world_size)
        highest_WN, total_WN = pairs_W2N.unbind(1)
        highest = highest_WN.amax(0)
        return _Exponentials(highest, (total_WN * (highest_WN - highest).exp()).sum(0))

    def less(self, logits: Tensor) -> Tensor:
        """Return the logarithms of the sums, less `logits`."""
        return (self.highest - logits) + self.total.log()

    def softmax(self, logits: Tensor, dim: int) -> Tensor:
        """Return the share each logit of a tile has in its sum along `dim`."""
        shifted = logits - self.highest.unsqueeze(dim)
        return shifted.exp_().div_(self.total.unsqueeze(dim))


class _Softmax(torch.autograd.Function):
    """The mean of the cross-entropies over rows and over columns."""

    @staticmethod
    def forward(
        ctx: Any,
        image_BD: Tensor,
        text_ND: Tensor,
        log_scale: Tensor,
        shares: list[int],
        ranks: Distributed,
        tile: int,
    ) -> Tensor:
        scaled_BD = image_BD * log_scale.exp()
        first = sum(shares[: ranks.rank])
        over_texts = _Exponentials.none(scaled_BD, len(scaled_BD))
        over_images = _Exponentials.none(scaled_BD, len(text_ND))
        positives_B = scaled_BD.new_empty(len(scaled_BD))
        with _exact(scaled_BD.device):
            for rows, columns, offset in _tiles(len(scaled_BD), len(text_ND), first, tile):
                logits = scaled_BD[rows] @ text_ND[columns].T
                over_texts.of(rows).add(logits, dim=1)
                over_images.of(columns).add(logits, dim=0)
                found = logits.diagonal(offset)
                positives_B[rows][max(0, -offset) :][: len(found)] = found
        # Each rank has met all captions, but of the pictures only its own.
        over_images = over_images.of_all(ranks)
        own = slice(first, first + len(scaled_BD))
        total = over_texts.less(positives_B).sum() + over_images.of(own).less(positives_B).sum()
        ctx.save_for_backward(scaled_BD, text_ND, log_scale, *over_texts, *over_images)
        ctx.first, ctx.ranks, ctx.tile = first, ranks, tile
        return ranks.sum(total) / (2 * len(text_ND))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scaled_BD, text_ND, log_scale, *sums = ctx.saved_tensors
        over_texts, over_images = _Exponentials(*sums[:2]), _Exponentials(*sums[2:])
        image, text = torch.zeros_like(scaled_BD), torch.zeros_like(text_ND)
        with _exact(scaled_BD.device):
            for rows, columns, offset in _tiles(len(scaled_BD), len(text_ND), ctx.first, ctx.tile):
                logits = scaled_BD[rows] @ text_ND[columns].T
                gradient = over_texts.of(rows).softmax(logits, dim=1)
                gradient += over_images.of(columns).softmax(logits, dim=0)
                gradient.diagonal(offset).sub_(2)
                image[rows] += gradient @ text_ND[columns]
                text[columns] += gradient.T @ scaled_BD[rows]
        weight = upstream * ctx.ranks.world_size / (2 * len(text_ND))
        return *_gradients(image, text, scaled_BD, log_scale, weight), None, None, None


class _Sigmoid(torch.autograd.Function):
    """Minus the log-likelihood of all pairs, the true ones and the others, by the number of the true."""

    @staticmethod
    def forward(
        ctx: Any,
        image_BD: Tensor,
        text_ND: Tensor,
        log_scale: Tensor,
        bias: Tensor,
        shares: list[int],
        ranks: Distributed,
        tile: int,
    ) -> Tensor:
        scaled_BD = image_BD * log_scale.exp()
        first = sum(shares[: ranks.rank])
        total = scaled_BD.new_zeros(())
        with _exact(scaled_BD.device):
            for rows, columns, offset in _tiles(len(scaled_BD), len(text_ND), first, tile):
                logits = (scaled_BD[rows] @ text_ND[columns].T).add_(bias).neg_()
                logits.diagonal(offset).neg_()
                total -= functional.logsigmoid(logits).sum()
        ctx.save_for_backward(scaled_BD, text_ND, log_scale, bias)
        ctx.first, ctx.ranks, ctx.tile = first, ranks, tile
        return ranks.sum(total) / len(text_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scaled_BD, text_ND, log_scale, bias = ctx.saved_tensors
        image, text = torch.zeros_like(scaled_BD), torch.zeros_like(text_ND)
        of_bias = scaled_BD.new_zeros(())
        with _exact(scaled_BD.device):
            for rows, columns, offset in _tiles(len(scaled_BD), len(text_ND), ctx.first, ctx.tile):
                logits = (scaled_BD[rows] @ text_ND[columns].T).add_(bias)
                gradient = logits.sigmoid_()
                gradient.diagonal(offset).sub_(1)
                of_bias += gradient.sum()
                image[rows] += gradient @ text_ND[columns]
                text[columns] += gradient.T @ scaled_BD[rows]
        weight = upstream * ctx.ranks.world_size / len(text_ND)
        features = _gradients(image, text, scaled_BD, log_scale, weight)
        return *features, (of_bias * weight).to(bias.dtype), None, None, None


def _tiles(rows: int, columns: int, first: int, tile: int) -> Iterator[tuple[slice, slice, int]]:
    """Yield rows and columns of each tile, and which diagonal of it holds true pairs, if any.

    Row i's caption stands in column `first` + i.
    """
    for top in range(0, rows, tile):
        for left in range(0, columns, tile):
            yield slice(top, top + tile), slice(left, left + tile), first + top - left


def _gradients(
    image: Tensor, text: Tensor, scaled_BD: Tensor, log_scale: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of embeddings and log scale from sums over tiles; changes the sums."""
    # A logit grows with the log of its scale by itself, and the sum over a row of gradient times logit
    # is the product of the row's sums with its picture.
    scale = (image * scaled_BD).sum() * weight
    return image.mul_(log_scale.exp() * weight), text.mul_(weight), scale.to(log_scale.dtype)


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Keep matrix products in float32: bfloat16 is off by 0.3 in a logit of 100, TF32 by 0.007."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
