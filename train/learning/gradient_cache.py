"""A step over a batch too large for its activations (GradCache, Gao et al. 2021, arXiv 2101.06983).

A contrastive loss needs the embeddings of the whole batch at once, but the towers do not. So all
micro-batches are embedded without a graph, the loss gives the gradient of each embedding, and each
micro-batch is embedded once more, with a graph, to carry its share of that gradient on to the weights.
The price is a second forward pass. B: batch, S: side in pixels, L: tokens, D: embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

Loss = Callable[[Tensor, Tensor], Tensor]
MicroBatch = tuple[Tensor, Tensor]
RandomState = tuple[Tensor, Tensor | None]


def cached_step(
    model: nn.Module,
    pixels_B3SS: Tensor,
    tokens_BL: Tensor,
    loss: Loss,
    micro_batch: int,
    *,
    parameters: Sequence[nn.Parameter] = (),
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """Add the gradient of the whole batch's loss to those of `model`, and return the loss.

    It is what one pass over the batch gives, with the random numbers of one forward pass, but that
    BatchNorm normalises each micro-batch by itself, and takes each into its running statistics once.
    Within autocast the towers run under it, and backward does not.

    Args:
        model: gives the embeddings [B, D] of pictures and of captions. DistributedDataParallel sums
            gradients once, in the last micro-batch, so ranks may have any number of micro-batches; it
            must be the outermost wrapper, without `static_graph` and `find_unused_parameters`.
        pixels_B3SS, tokens_BL: the batch; each micro-batch is moved to the model's device.
        loss: takes the embeddings of the whole batch.
        micro_batch: rows embedded at a time.
        parameters: what `loss` learns itself, such as the temperature.
        scaler: what would have scaled the loss before backward.
    """
    towers = cast(nn.Module, model.module) if _is_parallel(model) else model
    device = next(model.parameters()).device
    batches = _micro_batches(pixels_B3SS, tokens_BL, micro_batch)
    embeddings, random_states = _embed(towers, batches, device)
    value = loss(*embeddings)
    of_image, of_text, *of_parameters = _gradients(value, [*embeddings, *parameters], scaler)
    gradients = _micro_batches(of_image, of_text, micro_batch)
    last = len(batches) - 1
    for number, batch in enumerate(batches):
        _set_random_state(random_states[number], device)
        # Gradients travel only in a backward whose forward was the parallel model's own.
        run = model if number == last else towers
        outputs, seeds = [*run(*_moved(batch, device))], [*gradients[number]]
        if number == last:
            outputs, seeds = [*outputs, *parameters], [*seeds, *of_parameters]
        with torch.autocast(device.type, enabled=False):
            torch.autograd.backward(outputs, seeds)
    return value.detach()


def _is_parallel(model: nn.Module) -> bool:
    return isinstance(model, DistributedDataParallel)


def _micro_batches(image: Tensor, text: Tensor, rows: int) -> list[MicroBatch]:
    return list(zip(torch.split(image, rows), torch.split(text, rows), strict=True))


def _embed(
    towers: nn.Module, batches: Sequence[MicroBatch], device: torch.device
) -> tuple[list[Tensor], list[RandomState]]:
    """Return embeddings of pictures and of captions, and the random state before each micro-batch."""
    parts, random_states = [], []
    with torch.no_grad(), _running_statistics_kept(towers):
        for batch in batches:
            random_states.append(_random_state(device))
            parts.append(towers(*_moved(batch, device)))
    # Autocast would go on with the copies of weights it has made here, which lead no gradient back.
    torch.clear_autocast_cache()
    whole = [torch.cat(features).requires_grad_() for features in zip(*parts, strict=True)]
    return whole, random_states


def _gradients(
    value: Tensor, inputs: Sequence[Tensor], scaler: torch.amp.GradScaler | None
) -> tuple[Tensor, ...]:
    scaled = value if scaler is None else scaler.scale(value)
    with torch.autocast(value.device.type, enabled=False):
        return torch.autograd.grad(scaled, inputs)


def _moved(batch: MicroBatch, device: torch.device) -> list[Tensor]:
    return [tensor.to(device, non_blocking=True) for tensor in batch]


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by its batch, as it does, but forget the batch."""
    tracking = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def _random_state(device: torch.device) -> RandomState:
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_gpu


def _set_random_state(state: RandomState, device: torch.device) -> None:
    on_cpu, on_gpu = state
    torch.set_rng_state(on_cpu)
    if on_gpu is not None:
        torch.cuda.set_rng_state(on_gpu, device)
