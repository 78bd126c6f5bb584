"""What a model costs: operations by formula, memory by tracing a pass that holds no numbers.

L: tokens, W: width, S: side of a map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from train.models.clip import Clip, count_parameters
from train.models.image_tower import patches_kept
from train.models.recipes import ModelSpec, ResNetSpec, VitSpec

OPTIMIZER_BYTES = 16
"""Of a parameter in float32 with its gradient and AdamW's two averages."""


def flops(spec: ModelSpec, *, patch_dropout: float = 0.0) -> int:
    """Return the floating-point operations of one pair's forward pass, two a multiply-add.

    Matrix products and convolutions alone, causal attention in full, as is usual. A step of training
    takes three times as many; four, where activations are computed anew.
    """
    return 2 * (_image(spec, patch_dropout) + _text(spec))


def _text(spec: ModelSpec) -> int:
    text = spec.text
    return text.layers * _block(text.context, text.width) + text.width * spec.embed


def _image(spec: ModelSpec, patch_dropout: float) -> int:
    if isinstance(spec.image, ResNetSpec):
        return _resnet(spec.image, spec.resolution, spec.embed)
    return _vision_transformer(spec.image, spec.resolution, spec.embed, patch_dropout)


def _block(tokens: int, width: int) -> int:
    """Four W×W matrices of attention, eight of the perceptron, and L×L twice."""
    return 12 * tokens * width**2 + 2 * tokens**2 * width


def _vision_transformer(image: VitSpec, resolution: int, embed: int, dropout: float) -> int:
    patches = (resolution // image.patch) ** 2
    tokens = 1 + (patches_kept(patches, dropout) if dropout else patches)
    first = patches * 3 * image.patch**2 * image.width
    return first + image.layers * _block(tokens, image.width) + image.width * embed


def _resnet(image: ResNetSpec, resolution: int, embed: int) -> int:
    width, side = image.width, resolution // 2
    half = width // 2
    total = side**2 * 9 * (3 * half + half * half + half * width)
    side //= 2
    channels_in = width
    for stage, blocks in enumerate(image.blocks):
        channels, stride = width * 2**stage, 1 if stage == 0 else 2
        for _ in range(blocks):
            total += _bottleneck(channels_in, channels, side, stride)
            side, stride, channels_in = side // stride, 1, 4 * channels
    tokens = side**2 + 1
    # Keys and values of every place; the query, the output and the mixing of one.
    pool = 2 * tokens * channels_in**2 + channels_in**2 + 2 * tokens * channels_in
    return total + pool + channels_in * embed


def _bottleneck(channels_in: int, channels: int, side: int, stride: int) -> int:
    before, after = side**2, (side // stride) ** 2
    total = before * (channels_in * channels + 9 * channels**2) + after * 4 * channels**2
    if stride > 1 or channels_in != 4 * channels:
        total += after * channels_in * 4 * channels
    return total


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that training holds at once.

    Attributes:
        parameters: weights, gradients and the optimiser's averages, in float32.
        activations: what the forward pass keeps for the backward pass.
    """

    parameters: int
    activations: int


def estimate_memory(
    spec: ModelSpec,
    micro_batch: int,
    *,
    dtype: torch.dtype = torch.float32,
    patch_dropout: float = 0.0,
    checkpointing: bool = False,
) -> Memory:
    """Return what training holds for `micro_batch` pairs whose graph is kept at once.

    The forward pass is traced on tensors without numbers, as on the CPU. Left out: the loss, the block
    that checkpointing computes anew, what kernels need for themselves, and what the allocator wastes.

    Args:
        dtype: of matrix products and convolutions, by autocast.
    """
    with FakeTensorMode():
        model = Clip(spec, patch_dropout=patch_dropout, checkpointing=checkpointing).train()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            two, three = (_kept_bytes(model, pairs) for pairs in (2, 3))
    return Memory(
        parameters=count_parameters(model) * OPTIMIZER_BYTES,
        # Autocast's copies of the weights are there once.
        activations=two + (micro_batch - 2) * (three - two),
    )


def _kept_bytes(model: Clip, pairs: int) -> int:
    """Return the bytes of all tensors, but the weights, that a forward pass saves; each once."""
    side = model.spec.resolution
    weights = {_identity(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _identity(tensor) not in weights:
            kept.setdefault(_identity(tensor), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        # What is kept must live while it is counted, or an identity would be given a second time.
        outputs = (
            model.visual(torch.zeros(pairs, 3, side, side)),
            model.encode_text(torch.zeros(pairs, model.spec.text.context, dtype=torch.long)),
        )
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del outputs
    return total


def _identity(tensor: Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata
    return identity
