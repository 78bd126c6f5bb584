"""The contrastive model: an image tower and a text tower into one space.

State-dict names are those of the released CLIP models, so open_clip loads what is saved here.
"""

import math

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from train.models.image_tower import VisionTransformer
from train.models.recipes import ModelSpec, VitSpec
from train.models.resnet_tower import ModifiedResNet
from train.models.text_tower import TextTower, unit_length

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
FIRST_TEMPERATURE = 0.07
MAX_LOGIT_SCALE = 100.0
FIRST_LOGIT_BIAS = -10.0
"""Of the sigmoid loss: nearly all pairs of a batch do not belong together (SigLIP, section 3.2)."""


class Clip(TextTower):
    """Two towers and a learned temperature; B: batch, S: side in pixels, D: embedding.

    Options for training leave the state dict as it is.

    Args:
        patch_dropout: share of a picture's patches that a vision transformer does not see in training.
        checkpointing: keep only each block's input for the backward pass and compute the block anew.
    """

    def __init__(
        self, spec: ModelSpec, *, patch_dropout: float = 0.0, checkpointing: bool = False
    ) -> None:
        super().__init__(
            spec.text,
            embed=spec.embed,
            quick_gelu=spec.quick_gelu,
            checkpointing=checkpointing,
        )
        self.spec = spec
        self.visual: VisionTransformer | ModifiedResNet
        if isinstance(spec.image, VitSpec):
            self.visual = VisionTransformer(
                spec.image,
                resolution=spec.resolution,
                embed=spec.embed,
                quick_gelu=spec.quick_gelu,
                patch_dropout=patch_dropout,
                checkpointing=checkpointing,
            )
        elif patch_dropout:
            raise ConfigError(
                f"patch dropout is {patch_dropout:g}, but a ResNet has no patches; expected 0"
            )
        else:
            self.visual = ModifiedResNet(
                spec.image,
                resolution=spec.resolution,
                embed=spec.embed,
                checkpointing=checkpointing,
            )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))
        self.logit_bias = nn.Parameter(torch.tensor(FIRST_LOGIT_BIAS)) if spec.logit_bias else None

    def forward(self, pixels_B3SS: Tensor, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit-length embeddings [B, D] of pictures and of captions."""
        return self.encode_image(pixels_B3SS), self.encode_text(tokens_BL)

    def encode_image(
        self, pixels_B3SS: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return unit-length embeddings [B, D] of pictures, values from 0 to 255.

        Args:
            generator: draws the patches that training leaves out; default: torch's global one.
        """
        normalized = normalize_pixels(pixels_B3SS)
        if isinstance(self.visual, VisionTransformer):
            return unit_length(self.visual(normalized, generator=generator))
        return unit_length(self.visual(normalized))

    def initialize(self) -> None:
        """Draw new weights from torch's global generator."""
        self.initialize_text()
        self.visual.initialize()

    @torch.no_grad()
    def limit_logit_scale(self) -> None:
        """Keep the inverse temperature at 100 or below; to be called after each step."""
        self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))


def normalize_pixels(pixels_B3SS: Tensor) -> Tensor:
    """Return pixels from 0 to 255 as floats, by the released models' mean and deviation per channel."""
    mean = torch.tensor(PIXEL_MEAN, device=pixels_B3SS.device).view(3, 1, 1)
    std = torch.tensor(PIXEL_STD, device=pixels_B3SS.device).view(3, 1, 1)
    return (pixels_B3SS.float() / 255 - mean) / std


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers `module` learns."""
    return sum(parameter.numel() for parameter in module.parameters())
