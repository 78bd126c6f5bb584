"""The parts of a picture that are to be blurred before it is stored, as tables give them."""

import math

import orjson

BOX_COLUMNS = ("face_bboxes", "blur_boxes")

Boxes = list[list[float]]
"""Left, top, right and bottom of each, as shares of the picture's width and height."""


def parse_boxes(value: object) -> Boxes | None:
    """Return the boxes of one row, None where it has none; what lies outside the picture is cut off.

    Args:
        value: lists of four numbers, or JSON text of such.

    Raises:
        ValueError: if it is anything else; whoever stored that picture might store a face.
    """
    if isinstance(value, str):
        value = orjson.loads(value) if value.strip() else None
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError("no list of boxes")
    return [_parse_box(box) for box in value] or None


def _parse_box(box: object) -> list[float]:
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise ValueError("a box is not four numbers")
    left, top, right, bottom = map(float, box)
    # Detectors overshoot the edge of a close-up; pixels, or a width in place of the right edge, do not pass.
    if not (-1 <= left <= right <= 2 and -1 <= top <= bottom <= 2):
        raise ValueError("a box is not left, top, right, bottom as shares of width and height")
    return [min(max(edge, 0.0), 1.0) for edge in (left, top, right, bottom)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
