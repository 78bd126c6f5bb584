"""The paper's one augmentation: a random square crop of the resized picture."""

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

CENTRE = (0.5, 0.5)


def random_corner(seed: int, epoch: int, key: str) -> tuple[float, float]:
    """Return where to crop a sample in an epoch, as shares of the free room across and down.

    Depends on nothing else, so neither on who decodes the sample nor on when.
    """
    digest = xxhash.xxh3_128_intdigest(f"{seed}:{epoch}:{key}".encode())
    return (digest >> 64) / 2**64, (digest & (2**64 - 1)) / 2**64


def square_crop(
    rgb: npt.NDArray[np.uint8], resolution: int, corner: tuple[float, float]
) -> npt.NDArray[np.uint8]:
    """Return the largest square at `corner`, resized, as [3, resolution, resolution].

    Args:
        rgb: [height, width, 3].
        corner: where the square stands, as shares of the free room across and down.
    """
    height, width, _ = rgb.shape
    side = min(height, width)
    left, top = (width - side) * corner[0], (height - side) * corner[1]
    # The same as a crop of the resized picture, with less work.
    square = Image.fromarray(rgb).resize(
        (resolution, resolution), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
