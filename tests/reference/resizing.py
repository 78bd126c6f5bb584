"""Antialiased bicubic resizing and open_clip's random part of a picture, as their definitions say."""

import math
from collections.abc import Callable

import numpy as np


def resize_bicubic(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the picture at another size, in float64 throughout."""
    rows = weights(rgb.shape[0], height)
    columns = weights(rgb.shape[1], width)
    mixed = np.einsum("yh,hwc->ywc", rows, rgb.astype(np.float64))
    return np.clip(np.einsum("xw,ywc->yxc", columns, mixed), 0, 255)


def weights(size: int, target: int) -> np.ndarray:
    """Return the share of each old pixel in each new one, [target, size]."""
    scale = size / target
    reach = max(scale, 1.0)
    matrix = np.zeros((target, size))
    for new in range(target):
        centre = (new + 0.5) * scale
        for old in range(size):
            matrix[new, old] = cubic((old + 0.5 - centre) / reach)
        matrix[new] /= matrix[new].sum()
    return matrix


def cubic(x: float) -> float:
    """Return Keys' kernel with a = -0.5."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def random_part(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    uniform: Callable[[float, float], float],
) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a part, drawn with `uniform(low, high)`."""
    for _ in range(10):
        area = width * height * uniform(*scale)
        shape = math.exp(uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 1 <= w <= width and 1 <= h <= height:
            left = math.floor(uniform(0, width - w + 1))
            return left, math.floor(uniform(0, height - h + 1)), w, h
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (width - w) // 2, (height - h) // 2, w, h
