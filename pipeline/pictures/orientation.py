"""Turn pictures, and boxes within them, upright as their EXIF orientation says."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""RGB, [height, width, 3]."""

Boxes = Sequence[Sequence[float]]
"""Left, top, right and bottom of each, as shares of the picture's width and height."""

_TURNS: dict[int, tuple[bool, int]] = {
    # EXIF orientation: (mirrored left to right first, quarter turns anticlockwise after that)
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}


def turn_upright(rgb: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation."""
    if orientation not in _TURNS:
        return rgb
    mirrored, quarters = _TURNS[orientation]
    return np.ascontiguousarray(np.rot90(rgb[:, ::-1] if mirrored else rgb, quarters))


def turn_boxes(boxes: Boxes, orientation: int) -> Boxes:
    """Return boxes of a file's own pixels as those of the upright picture."""
    if orientation not in _TURNS:
        return boxes
    mirrored, quarters = _TURNS[orientation]
    return [_turn_box(box, mirrored, quarters) for box in boxes]


def _turn_box(box: Sequence[float], mirrored: bool, quarters: int) -> list[float]:
    left, top, right, bottom = box
    if mirrored:
        left, right = 1 - right, 1 - left
    for _ in range(quarters):
        left, top, right, bottom = top, 1 - right, bottom, 1 - left
    return [left, top, right, bottom]
