"""The transformer both towers are built of, and the text tower.

State-dict names are those of the released CLIP models and of open_clip.
B: batch, L: tokens, W: width, H: heads, D: embedding.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from train.models.recipes import TextSpec


class QuickGELU(nn.Module):
    """x·sigmoid(1.702x), the released models' activation."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the activation of `hidden`, elementwise."""
        return hidden * torch.sigmoid(1.702 * hidden)


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens_BLW: Tensor, *, causal: bool) -> Tensor:
        """Return tokens that have looked at each other, [B, L, W]; causal: only at earlier ones."""
        batch, length, width = tokens_BLW.shape
        joint = functional.linear(tokens_BLW, self.in_proj_weight, self.in_proj_bias)
        query, key, value = joint.view(batch, length, 3, self.heads, width // self.heads).permute(
            2, 0, 3, 1, 4
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return projected


class ResidualBlock(nn.Module):
    """Attention, then a two-layer perceptron four times as wide, each behind a LayerNorm."""

    def __init__(self, width: int, heads: int, *, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=QuickGELU() if quick_gelu else nn.GELU(),
                c_proj=nn.Linear(4 * width, width),
            )
        )

    def forward(self, tokens_BLW: Tensor, *, causal: bool) -> Tensor:
        """Return the block's output, [B, L, W]."""
        tokens_BLW = tokens_BLW + self.attn(self.ln_1(tokens_BLW), causal=causal)
        widened: Tensor = self.mlp(self.ln_2(tokens_BLW))
        return tokens_BLW + widened


class Transformer(nn.Module):
    """A stack of residual blocks; checkpointing: in training each keeps its input alone."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        quick_gelu: bool,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        blocks = (ResidualBlock(width, heads, quick_gelu=quick_gelu) for _ in range(layers))
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, tokens_BLW: Tensor, *, causal: bool) -> Tensor:
        """Return the last block's output, [B, L, W]."""
        anew = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in self.resblocks:
            if anew:
                # No block draws anything at random, so no random state needs keeping.
                tokens_BLW = checkpoint(
                    block, tokens_BLW, causal=causal, use_reentrant=False, preserve_rng_state=False
                )
            else:
                tokens_BLW = block(tokens_BLW, causal=causal)
        return tokens_BLW

    def initialize(self) -> None:
        """Draw new weights; what adds to the residual stream is scaled down by the depth."""
        for block in self.resblocks:
            assert isinstance(block, ResidualBlock)
            width = block.attn.out_proj.in_features
            onto_residual = (2 * width * len(self.resblocks)) ** -0.5
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=onto_residual)
            for name, std in (("c_fc", (2 * width) ** -0.5), ("c_proj", onto_residual)):
                nn.init.normal_(block.mlp.get_submodule(name).get_parameter("weight"), std=std)
            for name, parameter in block.named_parameters():
                if name.endswith("bias"):
                    nn.init.zeros_(parameter)


def unit_length(embedded_BD: Tensor) -> Tensor:
    """Return embeddings at unit length, in float32 at least: in bfloat16 lengths are off by 0.3%."""
    kind = torch.promote_types(embedded_BD.dtype, torch.float32)
    return functional.normalize(embedded_BD.to(kind), dim=-1)


class TextTower(nn.Module):
    """Token ids to embeddings, read off at each text's end token.

    In the released models these parts stand beside the image tower, not under a name of their own,
    so `Clip` inherits from this class.
    """

    def __init__(
        self, spec: TextSpec, *, embed: int, quick_gelu: bool, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(spec.vocabulary, spec.width)
        self.positional_embedding = nn.Parameter(torch.empty(spec.context, spec.width))
        self.transformer = Transformer(
            spec.width,
            spec.layers,
            spec.heads,
            quick_gelu=quick_gelu,
            checkpointing=checkpointing,
        )
        self.ln_final = nn.LayerNorm(spec.width)
        self.text_projection = nn.Parameter(torch.empty(spec.width, embed))

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """Return unit-length embeddings [B, D] of token ids [B, L] that end in the highest id."""
        hidden = self.token_embedding(tokens_BL) + self.positional_embedding
        hidden = self.ln_final(self.transformer(hidden, causal=True))
        ends = hidden[torch.arange(len(hidden), device=hidden.device), tokens_BL.argmax(dim=1)]
        return unit_length(ends @ self.text_projection)

    def initialize_text(self) -> None:
        """Draw new weights for the text tower."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        self.transformer.initialize()
        nn.init.normal_(self.text_projection, std=1 / math.sqrt(len(self.text_projection)))
