"""CLIP's ResNet (section 2.4): three-layer stem, anti-aliased strides, attention pooling.

State-dict names are those of the released models. B: batch, C: channels, S: side, L: tokens,
D: embedding.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from train.models.recipes import ResNetSpec


class Bottleneck(nn.Module):
    """Three convolutions around a shortcut; strides are average pooling, which blurs first."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.avgpool = nn.AvgPool2d(stride)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or channels_in != 4 * channels:
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            layers["-1"] = nn.AvgPool2d(stride)
            layers["0"] = nn.Conv2d(channels_in, 4 * channels, 1, bias=False)
            layers["1"] = nn.BatchNorm2d(4 * channels)
            self.downsample = nn.Sequential(layers)

    def forward(self, maps_BCSS: Tensor) -> Tensor:
        """Return the block's output; the side shrinks by the stride."""
        hidden = functional.relu(self.bn1(self.conv1(maps_BCSS)))
        hidden = functional.relu(self.bn2(self.conv2(hidden)))
        hidden = self.bn3(self.conv3(self.avgpool(hidden)))
        return functional.relu(hidden + self.downsample(maps_BCSS))


class AttentionPool(nn.Module):
    """Pools a map by one query, its mean, attending to every place of it."""

    def __init__(self, side: int, channels: int, heads: int, embed: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(side**2 + 1, channels))
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, embed)

    def forward(self, maps_BCSS: Tensor) -> Tensor:
        """Return embeddings, [B, D]."""
        places_BLC = maps_BCSS.flatten(2).transpose(1, 2)
        tokens_BLC = torch.cat([places_BLC.mean(dim=1, keepdim=True), places_BLC], dim=1)
        tokens_BLC = tokens_BLC + self.positional_embedding
        pooled = functional.scaled_dot_product_attention(
            self._by_head(self.q_proj(tokens_BLC[:, :1])),
            self._by_head(self.k_proj(tokens_BLC)),
            self._by_head(self.v_proj(tokens_BLC)),
        )
        embedded: Tensor = self.c_proj(pooled.flatten(1))
        return embedded

    def _by_head(self, tokens_BLC: Tensor) -> Tensor:
        batch, length, _ = tokens_BLC.shape
        return tokens_BLC.view(batch, length, self.heads, -1).transpose(1, 2)


class ModifiedResNet(nn.Module):
    """A ResNet whose side shrinks 32-fold before attention pooling.

    checkpointing: in training each block keeps its input alone for the backward pass.
    """

    def __init__(
        self, spec: ResNetSpec, *, resolution: int, embed: int, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        width = spec.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        self.layer1 = _stage(width, width, spec.blocks[0], stride=1)
        self.layer2 = _stage(4 * width, 2 * width, spec.blocks[1], stride=2)
        self.layer3 = _stage(8 * width, 4 * width, spec.blocks[2], stride=2)
        self.layer4 = _stage(16 * width, 8 * width, spec.blocks[3], stride=2)
        self.attnpool = AttentionPool(resolution // 32, 32 * width, spec.heads, embed)

    def forward(self, pixels_B3SS: Tensor) -> Tensor:
        """Return the embeddings [B, D] of normalised pictures, not scaled to unit length."""
        hidden = functional.relu(self.bn1(self.conv1(pixels_B3SS)))
        hidden = functional.relu(self.bn2(self.conv2(hidden)))
        hidden = self.avgpool(functional.relu(self.bn3(self.conv3(hidden))))
        anew = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in (*self.layer1, *self.layer2, *self.layer3, *self.layer4):
            hidden = _compute_anew(block, hidden) if anew else block(hidden)
        embedded: Tensor = self.attnpool(hidden)
        return embedded

    def initialize(self) -> None:
        """Draw new weights where torch's own choice for convolutions does not serve."""
        pool = self.attnpool
        std = pool.c_proj.in_features**-0.5
        nn.init.normal_(pool.positional_embedding, std=std)
        for linear in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
        for name, parameter in self.named_parameters():
            # Each block starts as its shortcut alone.
            if name.startswith("layer") and name.endswith("bn3.weight"):
                nn.init.zeros_(parameter)


def _compute_anew(block: nn.Module, maps_BCSS: Tensor) -> Tensor:
    """Return the block's output, keeping its input alone for the backward pass."""
    output: Tensor = checkpoint(
        block,
        maps_BCSS,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(block)),
    )
    return output


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Keep a block that is computed a second time from counting its batch a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _stage(channels_in: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = Bottleneck(channels_in, channels, stride)
    return nn.Sequential(first, *(Bottleneck(4 * channels, channels, 1) for _ in range(blocks - 1)))
