import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pictures.images import Pixels, decode
from train.evaluation.corruptions import AMOUNTS, CORRUPTIONS, SEVERITIES, TINY, corrupt
from train.samples.augment import CENTRE, square_crop

# What the published amounts do not promise: frost darkens the picture as it adds ice, an elastic
# transform moves everything far at first and everything finely later, and glass in front of a tiny
# picture is blurred more where it is shuffled less.
GROWING = sorted(set(CORRUPTIONS) - {"frost", "elastic_transform"})


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> list[Pixels]:
    found = []
    with tarfile.open(shared_data / "images/imagenet_sample_600.tar") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and len(found) < 6:
                rgb = decode(file.read(), short_side=224).rgb
                square = square_crop(rgb, 224, CENTRE).transpose(1, 2, 0)
                found.append(np.ascontiguousarray(square))
    return found


@pytest.fixture(scope="module")
def tiny_pictures(shared_data: Path) -> list[Pixels]:
    found: list[Pixels] = []
    with tarfile.open(shared_data / "images/cifar10_jpg.tar.gz") as archive:
        for member in archive:
            if member.name.startswith("test/") and (file := archive.extractfile(member)):
                found.append(decode(file.read()).rgb)
                if len(found) == 60:
                    break
    return found


def mean_distances(name: str, pictures: list[Pixels]) -> list[float]:
    """Return how far pictures are from their corrupted copies, in levels, by severity."""
    return [
        float(np.mean([distance(corrupt(name, s, p, str(i)), p) for i, p in enumerate(pictures)]))
        for s in SEVERITIES
    ]


def distance(left: Pixels, right: Pixels) -> float:
    return float(np.abs(left.astype(np.float64) - right).mean())


def likeness(left: Pixels, right: Pixels) -> float:
    return float(np.corrcoef(left.ravel(), right.ravel())[0, 1])


def grows(values: list[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


@pytest.mark.parametrize("name", GROWING)
def test_photographs_are_farther_from_clean_with_each_severity(
    name: str, photographs: list[Pixels]
) -> None:
    found = mean_distances(name, photographs)
    assert grows(found)
    assert found[0] > 2


@pytest.mark.parametrize("name", [name for name in GROWING if name != "glass_blur"])
def test_tiny_pictures_are_farther_from_clean_with_each_severity(
    name: str, tiny_pictures: list[Pixels]
) -> None:
    found = mean_distances(name, tiny_pictures)
    assert grows(found)
    assert 0.5 < found[0] < 15


def test_frost_covers_more_with_each_severity(
    photographs: list[Pixels], tiny_pictures: list[Pixels]
) -> None:
    for pictures in (photographs, tiny_pictures):
        unlike = [
            float(np.mean([1 - likeness(corrupt("frost", s, p, str(i)), p) for i, p in enumerate(pictures)]))
            for s in SEVERITIES
        ]  # fmt: skip
        assert grows(unlike)


def test_the_exceptions_are_as_the_amounts_say(
    photographs: list[Pixels], tiny_pictures: list[Pixels]
) -> None:
    far = mean_distances("elastic_transform", photographs)
    assert min(far[:2]) > max(far[2:])
    assert grows(far[2:])
    # Severities 4 and 5 shuffle twice under the blur of 2 and 3.
    glass = mean_distances("glass_blur", tiny_pictures)
    assert glass[3] > glass[1]
    assert glass[4] > glass[2]


def test_every_corruption_has_five_amounts_for_either_size() -> None:
    assert set(AMOUNTS) == set(CORRUPTIONS)
    assert len(CORRUPTIONS) == 15
    assert all(len(of_size) == 5 for both in AMOUNTS.values() for of_size in both)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(CORRUPTIONS)),
    severity=st.sampled_from(SEVERITIES),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    level=st.sampled_from([0, 255, None]),
)
def test_any_picture_gives_one_of_its_size_again_and_again(
    name: str, severity: int, height: int, width: int, level: int | None
) -> None:
    rgb = np.full((height, width, 3), level or 0, np.uint8)
    if level is None:
        rgb = np.random.default_rng(height * 100 + width).integers(0, 256, rgb.shape, np.uint8)
    before = rgb.copy()
    found = corrupt(name, severity, rgb, "a.png")
    assert (found.shape, found.dtype) == (rgb.shape, np.uint8)
    assert np.array_equal(rgb, before)
    assert np.array_equal(found, corrupt(name, severity, rgb, "a.png"))


@pytest.mark.parametrize(
    "name",
    ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform"],
)  # fmt: skip
def test_chance_depends_on_the_item_alone(name: str, photographs: list[Pixels]) -> None:
    one, other = (corrupt(name, 3, photographs[0], item) for item in ("a", "b"))
    assert not np.array_equal(one, other)


def grey(level: int, side: int = 100) -> Pixels:
    return np.full((side, side, 3), level, np.uint8)


def test_noise_has_the_deviation_it_names() -> None:
    for severity, deviation in zip(SEVERITIES[:3], (0.08, 0.12, 0.18), strict=True):
        noise = corrupt("gaussian_noise", severity, grey(128), "a") / 255
        assert noise.std() == pytest.approx(deviation, rel=0.03)
        assert noise.mean() == pytest.approx(128 / 255, abs=0.005)


def test_photons_are_counted_with_the_deviation_of_their_root() -> None:
    for severity, white in zip(SEVERITIES[:3], (60, 25, 12), strict=True):
        counted = corrupt("shot_noise", severity, grey(100), "a") / 255
        assert counted.mean() == pytest.approx(100 / 255, rel=0.02)
        assert counted.std() == pytest.approx((100 / 255 / white) ** 0.5, rel=0.05)


def test_the_share_of_impulses_is_as_named_half_of_them_white() -> None:
    for severity, share in zip(SEVERITIES, (0.03, 0.06, 0.09, 0.17, 0.27), strict=True):
        changed = corrupt("impulse_noise", severity, grey(128), "a")
        assert (changed == 0).mean() == pytest.approx(share / 2, rel=0.15)
        assert (changed == 255).mean() == pytest.approx(share / 2, rel=0.15)


def test_contrast_and_brightness_are_exact() -> None:
    half = np.concatenate([grey(100), grey(200)])
    for severity, left in zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        found = corrupt("contrast", severity, half, "a")
        assert sorted(set(found.ravel().tolist())) == pytest.approx([150 - 50 * left, 150 + 50 * left], abs=0.51)  # fmt: skip
    red = np.zeros((100, 100, 3), np.uint8)
    red[..., 0], red[..., 1] = 100, 50
    brighter = corrupt("brightness", 2, red, "a")[0, 0].tolist()
    # Value from 100 to 151, hue and saturation as before.
    assert brighter == pytest.approx([151, 75.5, 0], abs=1)
    assert corrupt("brightness", 5, grey(0), "a")[0, 0].tolist() == [128, 128, 128]
    assert corrupt("brightness", 5, grey(200), "a")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate"])  # fmt: skip
def test_what_moves_light_leaves_an_even_picture_as_it_is(name: str) -> None:
    for severity in SEVERITIES:
        for side in (32, 100):
            found = corrupt(name, severity, grey(77, side), "a")
            assert found.min() >= 76
            assert found.max() <= 78


def test_fog_keeps_the_brightest_and_adds_none_to_black() -> None:
    half = np.concatenate([grey(0), grey(200)])
    found = corrupt("fog", 3, half, "a")
    assert found.max() <= 200
    assert not corrupt("fog", 3, grey(0), "a").any()


def test_lengths_go_with_the_size_of_the_picture() -> None:
    def spread(side: int) -> float:
        rgb = np.zeros((side, side, 3), np.uint8)
        rgb[:, side // 2 :] = 255
        row = corrupt("defocus_blur", 3, rgb, "a")[side // 2, :, 0].astype(np.float64)
        return float(((row > 12) & (row < 243)).sum() / side)

    assert spread(448) == pytest.approx(spread(224), rel=0.15)
    assert spread(TINY + 2) == pytest.approx(spread(224), abs=0.025)
    assert spread(64) == pytest.approx(spread(32), abs=0.04)


def test_colours_of_snow_and_frost_are_those_of_ice(photographs: list[Pixels]) -> None:
    def means(name: str) -> npt.NDArray[np.float64]:
        return np.asarray(corrupt(name, 5, grey(60, 224), "a").mean(axis=(0, 1)))

    assert means("snow").min() > 120
    blue = means("frost")
    assert blue[2] > blue[0]
