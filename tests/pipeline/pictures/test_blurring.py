import warnings
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pictures.blurring import blur


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


def blurred_slowly(rgb: np.ndarray, boxes: list[list[float]]) -> np.ndarray:
    """The rule with a sampled Gaussian, edges repeated."""
    height, width = rgb.shape[:2]
    mask, inside = np.zeros((2, height, width, 1))
    sides = []
    for left, top, right, bottom in boxes:
        x, y = int(left * width), int(top * height)
        to_x, to_y = ceil(right * width), ceil(bottom * height)
        inside[y:to_y, x:to_x] = 1
        sides.append(max(to_x - x, to_y - y))
        margin = round(0.1 * sides[-1])
        mask[max(0, y - margin) : to_y + margin, max(0, x - margin) : to_x + margin] = 1
    sigma = 0.1 * max(sides)
    soft, alpha = convolved(rgb.astype(float), sigma), convolved(mask, sigma)
    alpha = np.maximum(alpha, inside)
    return rgb * (1 - alpha) + soft * alpha


def convolved(values: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(4 * sigma) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        pads = [(reach, reach) if i == axis else (0, 0) for i in range(values.ndim)]
        padded = np.pad(values, pads, mode="edge")
        size = values.shape[axis]
        values = sum(
            weight * np.take(padded, np.arange(k, k + size), axis)
            for k, weight in enumerate(weights)
        )
    return values


BOXES = [[[0.25, 0.25, 0.75, 0.5]], [[0.0, 0.0, 0.3, 0.3], [0.5, 0.4, 1.0, 1.0]]]


@pytest.mark.parametrize("boxes", BOXES)
def test_the_result_is_that_of_the_rule(boxes):
    rgb = noise(200, 160)
    found = blur(rgb, boxes)
    assert np.abs(found.astype(float) - blurred_slowly(rgb, boxes)).mean() < 1


def blurred_by_img2dataset(
    rgb: np.ndarray, boxes: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from img2dataset.blurrer import BoundingBoxBlurrer

        return BoundingBoxBlurrer()(rgb, boxes)


@pytest.mark.parametrize("boxes", BOXES)
def test_at_least_as_much_is_lost_as_with_img2dataset(boxes, monkeypatch):
    rgb = noise(200, 160)
    theirs = blurred_by_img2dataset(rgb, boxes, monkeypatch)
    left, top, right, bottom = (
        int(edge * side) for edge, side in zip(boxes[-1], (200, 160) * 2, strict=True)
    )
    inside = np.s_[top + 10 : bottom - 10, left + 10 : right - 10]
    assert blur(rgb, boxes)[inside].std() <= theirs[inside].std()


@pytest.mark.parametrize(
    "box",
    [
        [0.05, 0.05, 0.07, 0.09],
        [0.02, 0.05, 0.3, 0.06],
        [0.9, 0.0, 0.91, 0.9],
        [0.003, 0.003, 0.006, 0.006],
    ],
)
def test_a_box_keeps_no_contrast_however_small_or_thin(box):
    y, x = np.mgrid[0:400, 0:600]
    rgb = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    found = blur(rgb, [box, [0.3, 0.3, 0.88, 0.88]])
    left, top, right, bottom = box
    inside = np.s_[int(top * 400) : ceil(bottom * 400), int(left * 600) : ceil(right * 600)]
    assert np.ptp(found[inside]) < 16


def test_what_is_far_from_a_box_is_untouched():
    rgb = noise(200, 160)
    found = blur(rgb, [[0.0, 0.0, 0.2, 0.2]])
    assert np.array_equal(found[80:], rgb[80:])
    assert not np.array_equal(found[:32], rgb[:32])


edges = st.floats(0, 1, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.lists(st.tuples(edges, edges, edges, edges), min_size=1, max_size=5),
)
def test_any_boxes_can_be_blurred(width, height, boxes):
    ordered = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in boxes]
    found = blur(noise(width, height), ordered)
    assert (found.shape, found.dtype) == ((height, width, 3), np.uint8)
