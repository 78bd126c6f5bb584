"""The pixels of a picture that Pillow has loaded: RGB of 8 bits a channel, transparency on white."""

import numpy as np
from PIL import Image, ImageFile

from pipeline.pictures.orientation import Pixels
from pipeline.pictures.profiles import find_profile, to_srgb

STRIP_PIXELS = 1 << 20
"""Converted at a time: what conversions need beside the picture then hardly counts."""

_KEY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Return how the file has its pixels, in Pillow's words, such as RGB;16B; to be asked before they are loaded."""
    if not image.tile:
        return ""
    options = image.tile[0].args
    return str(options[0] if isinstance(options, tuple) and options else options)


def to_rgb(image: Image.Image, raw: str) -> tuple[Pixels, bytes]:
    """Return the pixels, and the colour profile they are of, empty where that is sRGB.

    Printing inks are converted by their profile.

    Args:
        raw: what `raw_mode` returned.

    Raises:
        ValueError: if the pixels are floating-point or of 32 bits, whose range nobody knows.
    """
    _scale_transparent_colour(image, raw)
    profile: bytes | None = None
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        end = min(top + rows, height)
        strip = _on_white(image.crop((0, top, width, end)), raw)
        if profile is None:
            profile = find_profile(image.info.get("icc_profile"), strip.mode)
        if profile and strip.mode == "CMYK":
            rgb[top:end] = to_srgb(strip, profile)
        else:
            rgb[top:end] = np.asarray(strip.convert("RGB"))
    return rgb, b"" if image.mode == "CMYK" else profile or b""


def _scale_transparent_colour(image: Image.Image, raw: str) -> None:
    # PNG gives it in the file's bits; Pillow compares it with pixels of eight.
    key = image.info.get("transparency")
    if isinstance(key, int) and raw in _KEY_SCALES:
        image.info["transparency"] = key * _KEY_SCALES[raw]
    elif isinstance(key, tuple) and raw.startswith("RGB;16"):
        image.info["transparency"] = tuple(level >> 8 for level in key)


def _on_white(image: Image.Image, raw: str) -> Image.Image:
    """Return the picture without transparency, 8 bits a channel."""
    if image.mode in ("F", "I"):
        raise ValueError("floating-point or 32-bit pixels")
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.int64)
        grey = (deep >> (4 if raw == "I;12" else 8)).astype(np.uint8)
        if image.has_transparency_data:
            grey[deep == image.info["transparency"]] = 255
        return Image.fromarray(grey)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image if image.mode in ("L", "CMYK") else image.convert("RGB")
