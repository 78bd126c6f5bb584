import io
import math
import random
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from pipeline.pictures.images import decode
from tests.reference.resizing import random_part, resize_bicubic
from train.config import TrainConfig
from train.samples.augment import (
    CENTRE,
    Box,
    Crop,
    crop_of,
    draw_box,
    empty_pixels,
    random_corner,
    resize_into,
    shortest_side,
    square_box,
    square_crop,
)

SIDES = st.integers(1, 90)


def gradient(height: int, width: int) -> np.ndarray:
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.arange(width)[None, :]
    rgb[..., 1] = np.arange(height)[:, None]
    return rgb


def resized(rgb: np.ndarray, box: Box, resolution: int) -> np.ndarray:
    pixels_13SS = empty_pixels(1, resolution)
    resize_into(rgb, box, pixels_13SS)
    return pixels_13SS[0].permute(1, 2, 0).numpy()


def by_pillow(rgb: np.ndarray, box: Box, resolution: int) -> np.ndarray:
    left, top, width, height = box
    part = Image.fromarray(rgb).crop((left, top, left + width, top + height))
    return np.asarray(part.resize((resolution, resolution), Image.Resampling.BICUBIC))


def differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.float64) - other)


def test_a_square_of_the_right_size_is_left_as_it_is() -> None:
    rgb = gradient(28, 28)
    square = square_crop(rgb, 28, (0.3, 0.9))
    assert square.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(square, rgb.transpose(2, 0, 1))


@pytest.mark.parametrize(("corner", "first"), [(0.0, 0), (0.5, 30), (1.0, 60)])
def test_the_corner_chooses_the_square_along_the_longer_side(corner: float, first: int) -> None:
    wide = square_crop(gradient(40, 100), 40, (corner, 0.7))
    assert wide[0, 0, 0] == first
    tall = square_crop(gradient(100, 40), 40, (0.7, corner))
    assert tall[1, 0, 0] == first


def test_crop_and_resize_in_one_is_the_crop_of_the_resized_picture() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    whole = np.asarray(Image.fromarray(rgb).resize((64, 32), Image.Resampling.BICUBIC))
    expected = whole[:, 16:48].transpose(2, 0, 1)
    # Only at the cut edges does resizing see other neighbours.
    assert differences(square_crop(rgb, 32, CENTRE), expected)[:, :, 2:-2].max() <= 1


def test_a_sliver_of_a_picture_still_gives_a_square() -> None:
    assert square_crop(gradient(1, 200), 28, (1.0, 1.0)).shape == (3, 28, 28)


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.integers(1, 60), st.randoms(use_true_random=False), st.data())
def test_any_part_of_any_picture_is_resized_as_the_definition_says(
    height: int, width: int, resolution: int, source: random.Random, data: st.DataObject
) -> None:
    # Away from black and white: torch and Pillow clip between rows and columns, the definition at the end.
    rng = np.random.default_rng(source.randrange(2**32))
    rgb = rng.integers(100, 156, (height, width, 3), np.uint8)
    part_w, part_h = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    left, top = (
        data.draw(st.integers(0, width - part_w)),
        data.draw(st.integers(0, height - part_h)),
    )
    got = resized(rgb, Box(left, top, part_w, part_h), resolution)
    part = rgb[top : top + part_h, left : left + part_w]
    assert differences(got, resize_bicubic(part, resolution, resolution)).max() < 1.5


def test_photographs_are_resized_as_pillow_does(shared_data: Path) -> None:
    found = []
    with tarfile.open(shared_data / "images" / "imagenet_sample_600.tar") as tar:
        for member in islice((m for m in tar if m.isfile()), 25):
            file = tar.extractfile(member)
            assert file
            rgb = decode(file.read()).rgb
            box = square_box(rgb.shape[1], rgb.shape[0], CENTRE)
            found.append(differences(resized(rgb, box, 224), by_pillow(rgb, box, 224)).ravel())
    levels = np.concatenate(found)
    assert levels.max() <= 2
    assert levels.mean() < 0.01


def test_channels_of_a_pixel_lie_side_by_side() -> None:
    assert empty_pixels(2, 8).is_contiguous(memory_format=torch.channels_last)


def test_writing_into_a_batch_gives_what_torch_gives_and_touches_no_neighbour() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    pixels_B3SS = empty_pixels(3, 32)
    pixels_B3SS.fill_(7)
    resize_into(rgb, Box(5, 9, 40, 50), pixels_B3SS[1:2])
    part = torch.from_numpy(rgb[9:59, 5:45].copy()).permute(2, 0, 1)[None]
    expected = functional.interpolate(part, (32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(pixels_B3SS[1:2], expected, rtol=0, atol=0)
    assert (pixels_B3SS[0] == 7).all()
    assert (pixels_B3SS[2] == 7).all()


def test_a_picture_that_nobody_may_write_to_is_no_trouble() -> None:
    file = io.BytesIO()
    Image.fromarray(gradient(28, 28)).save(file, "PNG")
    rgb = np.asarray(Image.open(file))
    assert not rgb.flags.writeable
    np.testing.assert_array_equal(square_crop(rgb, 28, CENTRE), rgb.transpose(2, 0, 1))


def test_corners_depend_on_seed_epoch_and_key_and_cover_the_room() -> None:
    assert random_corner(1, 2, "k") == random_corner(1, 2, "k")
    corners = {random_corner(s, e, k) for s in (1, 2) for e in (1, 2) for k in "kl"}
    assert len(corners) == 8
    many = np.array([random_corner(0, 0, str(i)) for i in range(2000)])
    assert many.min() >= 0
    assert many.max() < 1
    np.testing.assert_allclose(many.mean(axis=0), 0.5, atol=0.03)
    assert abs(np.corrcoef(many.T)[0, 1]) < 0.1


def test_every_place_of_the_square_is_as_likely_as_any() -> None:
    lefts = [draw_box(13, 10, Crop(), seed=0, epoch=0, key=str(i)).left for i in range(4000)]
    np.testing.assert_allclose(np.bincount(lefts, minlength=4), 1000, atol=110)


PARTS = [Crop(scale=(0.9, 1.0)), Crop(scale=(0.08, 1.0)), Crop(scale=(0.3, 0.3), ratio=(0.2, 3.0))]


@pytest.mark.parametrize("crop", [Crop(), *PARTS])
@settings(deadline=None, max_examples=50)
@given(st.integers(1, 3000), st.integers(1, 3000), st.text(max_size=8))
def test_a_part_lies_within_its_picture_and_needs_no_more_than_the_shortest_side(
    crop: Crop, width: int, height: int, key: str
) -> None:
    box = draw_box(width, height, crop, seed=1, epoch=2, key=key)
    assert min(box) >= 0
    assert min(box.width, box.height) >= 1
    assert box.left + box.width <= width
    assert box.top + box.height <= height
    # A picture decoded to `shortest_side` has enough pixels in whichever part is drawn, to rounding.
    reduction = shortest_side(crop, 224) / min(width, height)
    assert min(box.width + 0.5, box.height + 0.5) * reduction >= 224 * crop.jpeg_margin


@pytest.mark.parametrize("crop", PARTS)
@pytest.mark.parametrize("size", [(341, 256), (256, 256), (200, 600), (2000, 20)])
def test_parts_are_drawn_as_open_clip_draws_them(crop: Crop, size: tuple[int, int]) -> None:
    uniform = random.Random(0).uniform
    assert crop.scale
    count = 4000
    expected = [random_part(*size, crop.scale, crop.ratio, uniform) for _ in range(count)]
    got = [draw_box(*size, crop, seed=0, epoch=0, key=str(i)) for i in range(count)]
    for quantile in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98):
        np.testing.assert_allclose(
            np.quantile(got, quantile, axis=0),
            np.quantile(expected, quantile, axis=0),
            atol=0.03 * max(size),
        )


def test_parts_depend_on_seed_epoch_and_key_alone() -> None:
    crop = PARTS[1]
    boxes = [
        draw_box(640, 480, crop, seed=s, epoch=e, key=k)
        for _ in range(2)
        for s in (1, 2)
        for e in (1, 2)
        for k in "kl"
    ]
    assert len(set(boxes)) == 8
    assert boxes[:8] == boxes[8:]


def test_a_larger_margin_asks_for_more_pixels() -> None:
    assert shortest_side(Crop(), 224) == 448
    assert shortest_side(Crop(jpeg_margin=1), 224) == 224
    thin = math.sqrt(0.9 * 3 / 4)
    assert shortest_side(Crop(scale=(0.9, 1), jpeg_margin=1), 224) == math.ceil(224 / thin)


def test_settings_say_which_part_is_shown() -> None:
    assert crop_of(TrainConfig()) == Crop()
    config = TrainConfig(crop_scale=(0.9, 1.0), crop_ratio=(1.0, 1.0), jpeg_margin=1.0)
    assert crop_of(config) == Crop(scale=(0.9, 1.0), ratio=(1.0, 1.0), jpeg_margin=1.0)


@pytest.mark.parametrize(
    "wrong", [{"crop_scale": (0, 1)}, {"crop_scale": (1, 0.5)}, {"crop_ratio": (2.0, 1.0)}]
)
def test_a_part_that_cannot_be_is_refused(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"crop_.* with 0 < least <= greatest"):
        TrainConfig(**wrong)
