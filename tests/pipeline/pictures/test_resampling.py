import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.pictures.images import resize
from tests.pipeline.pictures.test_images import photograph


def by_pillow(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    image = Image.fromarray(rgb).resize((width, height), Image.Resampling.HAMMING)
    return np.asarray(image).astype(int)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers()
)
def test_the_result_is_pillows_to_one_level(width, height, new_width, new_height, seed):
    rgb = np.random.default_rng(abs(seed)).integers(0, 256, (height, width, 3), np.uint8)
    new = resize(rgb, width=new_width, height=new_height)
    assert (new.shape, new.dtype) == ((new_height, new_width, 3), np.uint8)
    assert np.abs(new - by_pillow(rgb, new_width, new_height)).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_a_flat_picture_stays_flat(level):
    rgb = np.full((173, 211, 3), level, np.uint8)
    assert np.array_equal(np.unique(resize(rgb, width=97, height=31)), [level])


def test_resizing_averages_fine_detail_away():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, width=16, height=8)
    assert small.shape == (8, 16, 3)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() < 20


def test_views_and_other_orders_of_memory_give_the_same_bits():
    rgb = photograph(120, 90)
    expected = resize(rgb, width=40, height=30)
    assert np.array_equal(resize(np.asfortranarray(rgb), width=40, height=30), expected)
    assert np.array_equal(
        resize(rgb[::-1, ::-1], width=40, height=30),
        resize(np.ascontiguousarray(rgb[::-1, ::-1]), width=40, height=30),
    )
