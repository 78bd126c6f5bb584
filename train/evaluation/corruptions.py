"""The fifteen corruptions under which robustness is measured, at five severities (Hendrycks and Dietterich, 2019).

Written from the published definitions. Strengths are those of ImageNet-C, which is made of pictures
224 pixels wide, and for pictures of up to TINY pixels those of CIFAR-10-C, which is made of 32; lengths are
scaled by the shorter side over 224, or 32. Chance, such as noise and directions, follows from the names of
corruption and item alone, so all severities of one picture share it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

from pipeline.pictures.images import Pixels, decode, encode_jpeg
from train.evaluation.distortions import (
    blurred,
    disk,
    displaced,
    enlarged,
    gaussian,
    plasma,
    shuffled,
    smooth_noise,
    streak,
)

SEVERITIES: Final = (1, 2, 3, 4, 5)

TINY: Final = 64
"""Shorter side up to which pictures are corrupted as CIFAR-10's are."""

Levels = npt.NDArray[np.floating[Any]]
Chance = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How strongly to corrupt one picture.

    Attributes:
        amounts: the corruption's own, at one severity; see AMOUNTS.
        scale: of lengths: 1 for pictures as large as those the amounts were chosen for.
    """

    amounts: tuple[float, ...]
    scale: float


Amounts = tuple[tuple[float, ...], ...]
Corruption = Callable[[Levels, Strength, Chance], Levels]


def corrupt(name: str, severity: int, rgb: Pixels, item: str) -> Pixels:
    """Return a corrupted copy of a picture, of its own size.

    Args:
        name: of CORRUPTIONS.
        severity: 1 to 5.
        rgb: [height, width, 3].
        item: name of the picture.
    """
    side = min(rgb.shape[:2])
    photographs, tiny = AMOUNTS[name]
    amounts, usual = (tiny, 32) if side <= TINY else (photographs, 224)
    strength = Strength(amounts=amounts[severity - 1], scale=side / usual)
    chance = np.random.default_rng(xxhash.xxh3_64_intdigest(f"{name}\0{item}".encode()))
    # 0 to 1, both in and out.
    levels = CORRUPTIONS[name](rgb.astype(np.float32) / 255, strength, chance)
    return (np.clip(levels, 0, 1) * 255).round().astype(np.uint8)


def _gaussian_noise(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    (deviation,) = by.amounts
    return rgb + deviation * chance.standard_normal(rgb.shape, np.float32)


def _shot_noise(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Count photons, so many of which are white."""
    (white,) = by.amounts
    return chance.poisson(rgb * white) / white


def _impulse_noise(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Make a share of all values black or white."""
    (share,) = by.amounts
    drawn = chance.random(rgb.shape, np.float32)
    return np.where(drawn < share / 2, 0, np.where(drawn > 1 - share / 2, 1, rgb))


def _defocus_blur(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Blur by a disk, whose edge is softened by a Gaussian of the second amount."""
    radius, edge = by.amounts
    return blurred(rgb, disk(by.scale * radius, edge))


def _glass_blur(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Swap pixels with others near them, between two slight blurs."""
    sigma, reach, rounds = by.amounts
    kernel = gaussian(by.scale * sigma)
    soft = blurred(rgb, kernel)
    return blurred(shuffled(soft, max(1, round(by.scale * reach)), int(rounds), chance), kernel)


def _motion_blur(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Smear along a line within 45 degrees of the horizontal, fading like a Gaussian."""
    length, sigma = (by.scale * amount for amount in by.amounts)
    return blurred(rgb, streak(length, sigma, chance.uniform(-45, 45)))


def _zoom_blur(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Average the picture with enlarged ones, from 1 by a step up to below the most."""
    most, step = by.amounts
    factors = np.arange(1, most, step)
    total = rgb + sum(enlarged(rgb, float(factor)) for factor in factors)
    return np.asarray(total / (len(factors) + 1), np.float32)


def _snow(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Whiten the picture and lay streaks of flakes over it, falling from both sides."""
    mean, spread, size, least, length, sigma, own = by.amounts
    drawn = mean + spread * chance.standard_normal(rgb.shape[:2], np.float32)
    flakes = enlarged(drawn[..., None], max(1.0, by.scale * size))
    flakes = np.where(flakes < least, 0, np.clip(flakes, 0, 1)).astype(np.float32)
    kernel = streak(by.scale * length, by.scale * sigma, chance.uniform(-135, -45))
    layer = blurred(flakes, kernel)
    white = np.maximum(rgb, _grey(rgb) * 1.5 + 0.5)
    return np.asarray(own * rgb + (1 - own) * white + layer + layer[::-1, ::-1])


def _frost(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Lay ice crystals over the picture; drawn ones, where the published sets have photographs of some."""
    own, ice = by.amounts
    height, width = rgb.shape[:2]
    # Ridges of fractals branch as frost does; a smooth one leaves parts of the pane nearly free.
    fractals = [plasma(max(height, width), decay, chance) for decay in (1.4, 1.3, 2.5)]
    ridges = np.max([1 - np.abs(2 * fractal - 1) for fractal in fractals[:2]], axis=0)
    crystals = 0.1 + 0.9 * ridges**5 * (0.4 + 0.6 * fractals[2])
    tint = np.array([0.86, 0.94, 1.0], np.float32)
    return np.asarray(own * rgb + ice * crystals[:height, :width, None] * tint)


def _fog(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Add a fractal cloud and bring the picture back to its own brightest."""
    thickness, decay = by.amounts
    height, width = rgb.shape[:2]
    cloud = plasma(max(height, width), decay, chance)[:height, :width, None]
    brightest = rgb.max()
    foggy = (rgb + thickness * cloud) * brightest / (brightest + thickness)
    return np.asarray(foggy, np.float32)


def _brightness(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Raise the value of hue, saturation and value."""
    value = rgb.max(axis=2, keepdims=True)
    (more,) = by.amounts
    raised = np.minimum(value + more, 1)
    black = value == 0
    return np.asarray(np.where(black, raised, rgb * (raised / np.where(black, 1, value))))


def _contrast(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Bring each channel nearer to its mean."""
    mean = rgb.mean(axis=(0, 1), keepdims=True)
    (left,) = by.amounts
    return np.asarray((rgb - mean) * left + mean)


def _elastic_transform(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    """Turn, shear and stretch the picture a little, and move each pixel by smooth noise."""
    reach, sigma, shift = (by.scale * amount for amount in by.amounts)
    height, width = rgb.shape[:2]
    noise = [reach * smooth_noise((height, width), sigma, chance) for _ in range(2)]
    moved = chance.uniform(-shift, shift, (3, 2))
    return displaced(rgb, noise[0], noise[1], moved)


def _pixelate(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    height, width = rgb.shape[:2]
    (share,) = by.amounts
    small = (max(1, int(share * width)), max(1, int(share * height)))
    image = Image.fromarray((rgb * 255).round().astype(np.uint8))
    coarse = image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
    return np.asarray(coarse, np.float32) / 255


def _jpeg_compression(rgb: Levels, by: Strength, chance: Chance) -> Levels:
    (quality,) = by.amounts
    file = encode_jpeg((rgb * 255).round().astype(np.uint8), int(quality))
    return decode(file).rgb.astype(np.float32) / 255


def _grey(rgb: Levels) -> Levels:
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


CORRUPTIONS: Final[Mapping[str, Corruption]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}

# Of photographs, as in ImageNet-C, and of tiny pictures, as in CIFAR-10-C; severity 1 first.
AMOUNTS: Final[Mapping[str, tuple[Amounts, Amounts]]] = {
    "gaussian_noise": (
        ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
        ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    ),
    "shot_noise": (((60,), (25,), (12,), (5,), (3,)), ((500,), (250,), (100,), (75,), (50,))),
    "impulse_noise": (
        ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
        ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    ),
    "defocus_blur": (
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "glass_blur": (
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": (
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    "zoom_blur": (
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    "snow": (
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    ),
    "fog": (
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ),
    "brightness": (
        ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    ),
    "contrast": (
        ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    ),
    # How far noise moves pixels, how smooth it is, and how far corners move.
    "elastic_transform": (
        (
            (488, 170.8, 24.4),
            (488, 19.52, 48.8),
            (12.2, 2.44, 4.88),
            (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
        ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    ),
    "pixelate": (
        ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
        ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    ),
    "jpeg_compression": (((25,), (18,), (15,), (10,), (7,)), ((80,), (65,), (58,), (50,), (40,))),
}
