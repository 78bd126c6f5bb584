import numpy as np
import pytest
from PIL import Image, ImageDraw

from dedup.calibration.edits import EDITS, make_copy, read_copy
from pipeline.pictures.images import Pixels


@pytest.fixture
def scene() -> Pixels:
    """A smooth picture of 200x120, red towards the right and with a dark disc at the left."""
    across = np.linspace(0, 255, 200)[None, :, None] * np.ones((120, 1, 1))
    rgb = np.concatenate([across, across / 2, np.full_like(across, 90)], axis=2).astype(np.uint8)
    image = Image.fromarray(rgb)
    ImageDraw.Draw(image).ellipse((20, 30, 60, 70), "black")
    return np.asarray(image)


def difference(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("edit", EDITS)
def test_a_copy_depends_on_edit_picture_and_name_alone(edit: str, scene: Pixels) -> None:
    data = make_copy(edit, scene, "a.jpg")
    assert data.startswith(b"\xff\xd8\xff")
    assert data == make_copy(edit, scene.copy(), "a.jpg")


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (28, 28), (3, 200)])
def test_pictures_of_any_size_can_be_edited(edit: str, size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 130, np.uint8)
    assert read_copy(edit, rgb, "small").ndim == 3


def test_chance_follows_from_the_name(scene: Pixels) -> None:
    copies = {make_copy("crop 60%", scene, f"{number}.jpg") for number in range(20)}
    assert len(copies) > 15


@pytest.mark.parametrize(
    ("edit", "width", "height"),
    [
        ("jpeg 20", 200, 120),
        ("half size", 100, 60),
        ("quarter size", 50, 30),
        ("crop 90%", 180, 108),
        ("crop 80%", 160, 96),
        ("crop 70%", 140, 84),
        ("crop 60%", 120, 72),
        ("rotate 5°", 200, 120),
        ("caption bar", 200, 138),
        ("border", 212, 132),
        ("crop 90%, half size, jpeg 50", 90, 54),
    ],
)
def test_a_copy_has_the_size_that_its_edit_says(
    edit: str, width: int, height: int, scene: Pixels
) -> None:
    assert read_copy(edit, scene, "a").shape == (height, width, 3)


def test_jpeg_gets_worse_with_its_quality(scene: Pixels) -> None:
    rng = np.random.default_rng(1)
    rough = (scene // 2 + rng.integers(0, 128, (120, 200, 1))).astype(np.uint8)
    qualities = ("jpeg 90", "jpeg 70", "jpeg 50", "jpeg 30", "jpeg 20")
    lost = [difference(read_copy(edit, rough, "a"), rough) for edit in qualities]
    assert lost == sorted(lost)
    assert lost[0] < lost[-1] / 1.5


def test_a_crop_is_a_piece_of_the_picture(scene: Pixels) -> None:
    copy = read_copy("crop 80%", scene, "a")
    height, width = copy.shape[:2]
    fits = [
        difference(copy, scene[top : top + height, left : left + width])
        for top in range(121 - height)
        for left in range(201 - width)
    ]
    assert min(fits) < 3


def test_a_flip_is_a_mirror_image(scene: Pixels) -> None:
    assert difference(read_copy("flip", scene, "a"), scene[:, ::-1]) < 3


def test_light_changes_by_a_third(scene: Pixels) -> None:
    brighter, darker = (read_copy(edit, scene, "a") for edit in ("brighter 30%", "darker 30%"))
    assert brighter[100, 90].mean() == pytest.approx(1.3 * scene[100, 90].mean(), rel=0.05)
    assert darker[100, 90].mean() == pytest.approx(0.7 * scene[100, 90].mean(), rel=0.05)


def test_grey_has_no_colour(scene: Pixels) -> None:
    grey = read_copy("grey", scene, "a").astype(int)
    assert np.ptp(grey, axis=2).max() <= 2


def test_noise_is_five_percent_of_white(scene: Pixels) -> None:
    flat = np.full((200, 200, 3), 128, np.uint8)
    luma = np.asarray(Image.fromarray(read_copy("noise", flat, "a")).convert("L"), np.float64)
    # Of three channels with a deviation of 12.75 each.
    assert luma.std() == pytest.approx(12.75 * np.linalg.norm([0.299, 0.587, 0.114]), rel=0.15)


def test_a_caption_stands_beneath_the_picture(scene: Pixels) -> None:
    copy = read_copy("caption bar", scene, "a")
    assert difference(copy[:118], scene[:118]) < 4
    bar = copy[124:].mean(axis=2)
    assert bar.max() > 240
    assert bar.min() < 80


def test_a_border_lies_around_the_picture(scene: Pixels) -> None:
    copy = read_copy("border", scene, "a")
    assert difference(copy[8:-8, 8:-8], scene[2:-2, 2:-2]) < 4
    edge = copy[:3].mean()
    assert edge < 10 or edge > 245


def test_a_watermark_leaves_the_corners(scene: Pixels) -> None:
    copy = read_copy("watermark", scene, "a").astype(int)
    assert difference(copy[:20, :40], scene[:20, :40]) < 3
    assert (copy[50:70, 60:140] - scene[50:70, 60:140]).max() > 40
