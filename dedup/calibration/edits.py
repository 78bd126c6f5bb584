"""The edits under which a copy of a picture must still be found, each by its name.

What an edit gives is saved as JPEG, as copies on the web are: of quality 90 where it names none. Chance,
such as the place of a crop, follows from the names of the edit and the picture alone.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import xxhash
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from pipeline.pictures.images import Pixels, decode, encode_jpeg

QUALITY: Final = 90
"""Of the JPEG in which a copy is saved."""

CAPTION: Final = "when the picture has been seen before"
WATERMARK: Final = "© SAMPLE"

Chance = np.random.Generator
Edit = Callable[[Image.Image, Chance], Image.Image]


def make_copy(edit: str, rgb: Pixels, item: str) -> bytes:
    """Return the JPEG file of an edited copy.

    Args:
        edit: a name of EDITS.
        item: name of the picture.
    """
    chance = np.random.default_rng(xxhash.xxh3_64_intdigest(f"{edit}\0{item}".encode()))
    edited = EDITS[edit](Image.fromarray(rgb), chance)
    return encode_jpeg(np.asarray(edited), _QUALITIES.get(edit, QUALITY))


def _keep(image: Image.Image, chance: Chance) -> Image.Image:
    return image


def _scale(share: float) -> Edit:
    def scale(image: Image.Image, chance: Chance) -> Image.Image:
        size = [max(1, round(share * side)) for side in image.size]
        return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)

    return scale


def _crop(share: float) -> Edit:
    """Cut a rectangle of this share of each side out of any place."""

    def crop(image: Image.Image, chance: Chance) -> Image.Image:
        width, height = (max(1, round(share * side)) for side in image.size)
        left = int(chance.integers(image.width - width + 1))
        top = int(chance.integers(image.height - height + 1))
        return image.crop((left, top, left + width, top + height))

    return crop


def _flip(image: Image.Image, chance: Chance) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _rotate(image: Image.Image, chance: Chance) -> Image.Image:
    """Turn by 5 degrees to either side; what comes from outside is black."""
    return image.rotate(float(chance.choice([-5, 5])), Image.Resampling.BICUBIC)


def _grey(image: Image.Image, chance: Chance) -> Image.Image:
    return image.convert("L").convert("RGB")


def _brighten(factor: float) -> Edit:
    return lambda image, chance: ImageEnhance.Brightness(image).enhance(factor)


def _blur(image: Image.Image, chance: Chance) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 100))


def _add_noise(image: Image.Image, chance: Chance) -> Image.Image:
    """Add normal noise with a deviation of 5% of white to each channel."""
    levels = np.asarray(image, np.float32)
    noisy = levels + chance.normal(0, 0.05 * 255, levels.shape).astype(np.float32)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def _caption(image: Image.Image, chance: Chance) -> Image.Image:
    """Add a white bar of 15% of the height beneath, with black text in it."""
    bar = max(1, round(0.15 * image.height))
    page = Image.new("RGB", (image.width, image.height + bar), "white")
    page.paste(image)
    at = (image.width / 2, image.height + bar / 2)
    _write(page, CAPTION, at, width=0.9 * image.width, height=0.5 * bar, fill="black")
    return page


def _border(image: Image.Image, chance: Chance) -> Image.Image:
    """Add a black or white border of 5% of the shorter side."""
    edge = max(1, round(0.05 * min(image.size)))
    size = (image.width + 2 * edge, image.height + 2 * edge)
    page = Image.new("RGB", size, str(chance.choice(["black", "white"])))
    page.paste(image, (edge, edge))
    return page


def _watermark(image: Image.Image, chance: Chance) -> Image.Image:
    """Write across the middle in half transparent white."""
    layer = Image.new("RGBA", image.size, (255, 255, 255, 0))
    at = (image.width / 2, image.height / 2)
    _write(layer, WATERMARK, at, width=0.8 * image.width, height=image.height / 3, fill="#ffffff80")
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _write(
    page: Image.Image,
    text: str,
    at: tuple[float, float],
    *,
    width: float,
    height: float,
    fill: str,
) -> None:
    """Write `text` around a point, as large as the width and height allow."""
    trial = ImageFont.load_default(100)
    left, _, right, _ = trial.getbbox(text)
    size = max(1, min(height, 100 * width / (right - left)))
    ImageDraw.Draw(page).text(at, text, fill, ImageFont.load_default(size), anchor="mm")


def _in_turn(*edits: Edit) -> Edit:
    def combined(image: Image.Image, chance: Chance) -> Image.Image:
        for edit in edits:
            image = edit(image, chance)
        return image

    return combined


EDITS: Final[Mapping[str, Edit]] = {
    "jpeg 90": _keep,
    "jpeg 70": _keep,
    "jpeg 50": _keep,
    "jpeg 30": _keep,
    "jpeg 20": _keep,
    "half size": _scale(1 / 2),
    "quarter size": _scale(1 / 4),
    "crop 90%": _crop(0.9),
    "crop 80%": _crop(0.8),
    "crop 70%": _crop(0.7),
    "crop 60%": _crop(0.6),
    "flip": _flip,
    "rotate 5°": _rotate,
    "grey": _grey,
    "brighter 30%": _brighten(1.3),
    "darker 30%": _brighten(0.7),
    "blur": _blur,
    "noise": _add_noise,
    "caption bar": _caption,
    "border": _border,
    "watermark": _watermark,
    "crop 90%, half size, jpeg 50": _in_turn(_crop(0.9), _scale(1 / 2)),
    "flip, caption bar, jpeg 70": _in_turn(_flip, _caption),
    "brighter 30%, border, watermark": _in_turn(_brighten(1.3), _border, _watermark),
}
"""Crops keep a share of each side; other numbers stand in the docstrings above."""

_QUALITIES: Final = {name: int(name.rpartition("jpeg ")[2]) for name in EDITS if "jpeg " in name}


def read_copy(edit: str, rgb: Pixels, item: str) -> Pixels:
    """Return the pixels of an edited copy, as they come out of its file."""
    return decode(make_copy(edit, rgb, item)).rgb
