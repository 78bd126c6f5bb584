"""The vision transformer (CLIP, section 2.4), with open_clip's state-dict names.

B: batch, S: side in pixels, L: tokens, W: width, D: embedding.
"""

import torch
from torch import Tensor, nn

from train.models.recipes import VitSpec
from train.models.text_tower import Transformer


class VisionTransformer(nn.Module):
    """Patches and a class token through a transformer; the class token is the picture's feature."""

    def __init__(
        self,
        spec: VitSpec,
        *,
        resolution: int,
        embed: int,
        quick_gelu: bool,
        patch_dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.patch_dropout = patch_dropout
        patches = (resolution // spec.patch) ** 2
        self.conv1 = nn.Conv2d(3, spec.width, spec.patch, stride=spec.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(spec.width))
        self.positional_embedding = nn.Parameter(torch.empty(patches + 1, spec.width))
        self.ln_pre = nn.LayerNorm(spec.width)
        self.transformer = Transformer(
            spec.width,
            spec.layers,
            spec.heads,
            quick_gelu=quick_gelu,
            checkpointing=checkpointing,
        )
        self.ln_post = nn.LayerNorm(spec.width)
        self.proj = nn.Parameter(torch.empty(spec.width, embed))

    def forward(self, pixels_B3SS: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the embeddings [B, D] of normalised pictures, not scaled to unit length."""
        embedded: Tensor = self.features(pixels_B3SS, generator=generator) @ self.proj
        return embedded

    def features(self, pixels_B3SS: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return what is projected to embeddings, [B, W]; the paper's linear probes learn from it."""
        patches_BLW = self.conv1(pixels_B3SS).flatten(2).transpose(1, 2)
        patches_BLW = patches_BLW + self.positional_embedding[1:]
        if self.training and self.patch_dropout:
            patches_BLW = drop_patches(patches_BLW, self.patch_dropout, generator)
        first_W = self.class_embedding + self.positional_embedding[0]
        first_B1W = first_W.expand(len(patches_BLW), 1, -1)
        tokens_BLW = torch.cat([first_B1W, patches_BLW], dim=1)
        tokens_BLW = self.transformer(self.ln_pre(tokens_BLW), causal=False)
        features: Tensor = self.ln_post(tokens_BLW[:, 0])
        return features

    def initialize(self) -> None:
        """Draw new weights."""
        scale = len(self.class_embedding) ** -0.5
        for parameter in (self.class_embedding, self.positional_embedding, self.proj):
            nn.init.normal_(parameter, std=scale)
        self.transformer.initialize()


def patches_kept(patches: int, dropout: float) -> int:
    """Return how many of a picture's patches training sees."""
    return max(1, int(patches * (1 - dropout)))


def drop_patches(
    patches_BLW: Tensor, dropout: float, generator: torch.Generator | None = None
) -> Tensor:
    """Return a random choice of each picture's patches (FLIP, section 3), in random order.

    Args:
        generator: draws the choice, on its own device; default: torch's global one of the patches' device.
    """
    batch, length, width = patches_BLW.shape
    device = generator.device if generator else patches_BLW.device
    order_BL = torch.rand(batch, length, generator=generator, device=device).argsort(dim=1)
    kept_BL = order_BL[:, : patches_kept(length, dropout)].to(patches_BLW.device)
    return patches_BLW.gather(1, kept_BL[..., None].expand(-1, -1, width))
