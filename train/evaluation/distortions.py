"""What corruptions are made of: blurs, shuffles, displacements and fractals of levels from 0 to 1.

H, W: height and width; C: channels.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.runtime.compiled import compiled

Levels = npt.NDArray[np.floating[Any]]
Chance = np.random.Generator

SAMPLES = 8
"""Of a pixel, each way, to tell how much of it a disk covers."""


def blurred(levels_HWC: Levels, kernel: Levels) -> Levels:
    """Return the picture under a kernel of odd sides, mirrored at its edges."""
    height, width, _ = levels_HWC.shape
    rows, columns = (side // 2 for side in kernel.shape)
    if rows == columns == 0:
        return levels_HWC
    wide = np.pad(levels_HWC, ((rows, rows), (columns, columns), (0, 0)), mode="reflect")
    sides = (_fast(height + 2 * rows), _fast(width + 2 * columns))
    # Channels in front, where transforms of both other axes read memory as it lies.
    spectrum = np.fft.rfft2(np.ascontiguousarray(wide.transpose(2, 0, 1)), sides)
    spectrum *= np.fft.rfft2(kernel, sides)
    whole = np.fft.irfft2(spectrum, sides)
    inner = whole[:, 2 * rows : 2 * rows + height, 2 * columns : 2 * columns + width]
    return np.asarray(inner.transpose(1, 2, 0), np.float32)


def gaussian(sigma: float) -> Levels:
    """Return a Gaussian kernel of sum 1, out to four times `sigma`."""
    reach = math.ceil(4 * sigma)
    offsets = np.arange(-reach, reach + 1)
    line = np.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    return _of_sum_one(line[:, None] * line)


def disk(radius: float, edge: float) -> Levels:
    """Return a disk of sum 1, softened by a Gaussian of `edge` pixels that sees the next pixels alone.

    A pixel counts by how much of it is inside, so that of a radius of half a pixel or less the soft edge
    alone is left.
    """
    reach = math.ceil(radius + 0.5) + 1
    fine = (np.arange((2 * reach + 1) * SAMPLES) + 0.5) / SAMPLES - (reach + 0.5)
    inside = fine[:, None] ** 2 + fine**2 <= max(radius, 0.5) ** 2
    covered = inside.reshape(2 * reach + 1, SAMPLES, 2 * reach + 1, SAMPLES).mean(axis=(1, 3))
    near = np.exp(-0.5 * (np.arange(-1, 2) / edge) ** 2)
    soft = sum(
        np.roll(covered, (down, across), (0, 1)) * near[down + 1] * near[across + 1]
        for down in (-1, 0, 1)
        for across in (-1, 0, 1)
    )
    return _of_sum_one(np.asarray(soft))


def streak(length: float, sigma: float, angle: float) -> Levels:
    """Return a kernel of sum 1 along a line from the centre, `length` twice and a pixel long, fading by `sigma`.

    Args:
        angle: degrees from the horizontal.
    """
    steps = np.arange(2 * max(1, round(length)) + 1)
    weights = np.exp(-0.5 * (steps / max(sigma, 1e-6)) ** 2)
    across, down = (steps * turn(math.radians(angle)) for turn in (math.cos, math.sin))
    reach = len(steps)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    left, top = np.floor(across).astype(int), np.floor(down).astype(int)
    right, bottom = across - left, down - top
    for rows, row_share in ((top, 1 - bottom), (top + 1, bottom)):
        for columns, column_share in ((left, 1 - right), (left + 1, right)):
            np.add.at(kernel, (reach + rows, reach + columns), weights * row_share * column_share)
    return _of_sum_one(kernel)


def enlarged(levels_HWC: Levels, factor: float) -> Levels:
    """Return the picture's middle, enlarged by `factor` to the picture's size."""
    if factor == 1:
        return levels_HWC
    height, width, channels = levels_HWC.shape
    left, top = (0.5 * (side - side / factor) for side in (width, height))
    box = (left, top, width - left, height - top)
    planes = [
        Image.fromarray(np.ascontiguousarray(levels_HWC[..., c])).resize(
            (width, height), Image.Resampling.BILINEAR, box=box
        )
        for c in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def shuffled(levels_HWC: Levels, reach: int, rounds: int, chance: Chance) -> Levels:
    """Return the picture with each pixel in its turn swapped with one at most `reach` away, so often."""
    height, width, _ = levels_HWC.shape
    moved = levels_HWC.copy()
    for _ in range(rounds):
        offsets = chance.integers(-reach, reach, (height, width, 2), np.int64)
        _swap(moved, offsets, reach)
    return moved


@compiled
def _swap(levels_HWC: Levels, offsets: npt.NDArray[np.int64], reach: int) -> None:
    height, width, channels = levels_HWC.shape
    for row in range(height - reach - 1, reach - 1, -1):
        for column in range(width - reach - 1, reach - 1, -1):
            other_row = row + offsets[row, column, 0]
            other_column = column + offsets[row, column, 1]
            for c in range(channels):
                here = levels_HWC[row, column, c]
                levels_HWC[row, column, c] = levels_HWC[other_row, other_column, c]
                levels_HWC[other_row, other_column, c] = here


def smooth_noise(size: tuple[int, int], sigma: float, chance: Chance) -> Levels:
    """Return noise from -1 to 1 under a Gaussian of `sigma` pixels, [H, W]; it goes on at the other edge."""
    height, width = size
    drawn = chance.uniform(-1, 1, size).astype(np.float32)
    down, across = np.fft.fftfreq(height), np.fft.rfftfreq(width)
    fading = np.exp(-2 * (math.pi * sigma) ** 2 * (down[:, None] ** 2 + across**2))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(drawn) * fading, size), np.float32)


def displaced(
    levels_HWC: Levels, down_HW: Levels, across_HW: Levels, corners: npt.NDArray[np.float64]
) -> Levels:
    """Return the picture after an affine map, and then each pixel taken from elsewhere.

    Args:
        down_HW, across_HW: how many pixels away each is taken from.
        corners: by how much the map moves three points a third of the shorter side from the centre,
            (down, across) of each.
    """
    height, width, _ = levels_HWC.shape
    third = max(1, min(height, width) // 3)
    centre = np.array([height // 2, width // 2])
    before = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    after = np.column_stack([before + corners, np.ones(3)])
    # From where a pixel comes: the inverse of the map.
    back = np.linalg.lstsq(after, before.astype(np.float64), rcond=None)[0]
    rows, columns = np.mgrid[:height, :width]
    place_down, place_across = rows + down_HW, columns + across_HW
    from_down, from_across = (
        back[0, i] * place_down + back[1, i] * place_across + back[2, i] for i in (0, 1)
    )
    return _sampled(levels_HWC, from_down, from_across)


def _sampled(
    levels_HWC: Levels, down_HW: npt.NDArray[np.float64], across_HW: npt.NDArray[np.float64]
) -> Levels:
    """Return the picture at places between its pixels, mirrored beyond its edges."""
    height, width, _ = levels_HWC.shape
    top, left = np.floor(down_HW).astype(int), np.floor(across_HW).astype(int)
    below = (down_HW - top).astype(np.float32)[..., None]
    right = (across_HW - left).astype(np.float32)[..., None]
    rows = [_mirrored(top + i, height) for i in (0, 1)]
    columns = [_mirrored(left + i, width) for i in (0, 1)]
    upper, lower = (
        levels_HWC[row, columns[0]] * (1 - right) + levels_HWC[row, columns[1]] * right
        for row in rows
    )
    return np.asarray(upper * (1 - below) + lower * below)


def _mirrored(places: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.int64]:
    period = max(1, 2 * (side - 1))
    within = np.abs(places) % period
    return np.minimum(within, period - within) if side > 1 else np.zeros_like(places)


def plasma(side: int, decay: float, chance: Chance) -> Levels:
    """Return a fractal cloud from 0 to 1, [S, S] with S the next power of two (diamond-square).

    Args:
        decay: from each scale to the next half as wide, heights differ less by its square.
    """
    size = 1 << max(1, side - 1).bit_length()
    heights = np.zeros((size, size))
    step, roughness = size, 1.0
    while step >= 2:
        half = step // 2
        drawn = roughness * chance.uniform(-1, 1, (3, size // step, size // step))
        corners = heights[::step, ::step]
        sides = corners + np.roll(corners, -1, 0)
        middles = (sides + np.roll(sides, -1, 1)) / 4 + drawn[0]
        across = corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0)
        down = sides + middles + np.roll(middles, 1, 1)
        heights[half::step, half::step] = middles
        heights[::step, half::step] = across / 4 + drawn[1]
        heights[half::step, ::step] = down / 4 + drawn[2]
        step, roughness = half, roughness / decay**2
    heights -= heights.min()
    return np.asarray(heights / max(float(heights.max()), 1e-12), np.float32)


def _of_sum_one(kernel: npt.NDArray[np.generic]) -> Levels:
    return np.asarray(kernel / kernel.sum(), np.float32)


def _fast(length: int) -> int:
    """Return the next length that a Fourier transform takes quickly, a multiple of 2, 3 and 5 alone."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
