import numpy as np
import pytest
from PIL import Image

from train.augment import CENTRE, random_corner, square_crop


def gradient(height: int, width: int) -> np.ndarray:
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.arange(width)[None, :]
    rgb[..., 1] = np.arange(height)[:, None]
    return rgb


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
    resized = np.asarray(Image.fromarray(rgb).resize((64, 32), Image.Resampling.BICUBIC))
    expected = resized[:, 16:48].transpose(2, 0, 1).astype(int)
    got = square_crop(rgb, 32, CENTRE).astype(int)
    # Only at the cut edges does resizing see other neighbours.
    assert abs(got - expected)[:, :, 2:-2].max() <= 1


def test_a_sliver_of_a_picture_still_gives_a_square() -> None:
    assert square_crop(gradient(1, 200), 28, (1.0, 1.0)).shape == (3, 28, 28)


def test_corners_depend_on_seed_epoch_and_key_and_cover_the_room() -> None:
    assert random_corner(1, 2, "k") == random_corner(1, 2, "k")
    corners = {random_corner(s, e, k) for s in (1, 2) for e in (1, 2) for k in "kl"}
    assert len(corners) == 8
    many = np.array([random_corner(0, 0, str(i)) for i in range(2000)])
    assert many.min() >= 0
    assert many.max() < 1
    np.testing.assert_allclose(many.mean(axis=0), 0.5, atol=0.03)
    assert abs(np.corrcoef(many.T)[0, 1]) < 0.1
