import io

import numpy as np
import pytest
from PIL import Image

from train.evaluation.matrix import draw_matrix

COLOURS = [(220, 20, 20), (20, 200, 40), (30, 30, 230)]


def drawn(captions: list[str]) -> np.ndarray:
    rng = np.random.default_rng(0)
    cosines = rng.random((len(captions), 3)).astype(np.float32)
    pictures = [np.full((30, 40, 3), colour, np.uint8) for colour in COLOURS]
    return np.asarray(
        Image.open(io.BytesIO(draw_matrix(cosines, captions, pictures))).convert("RGB")
    )


def test_each_picture_stands_above_its_column() -> None:
    rgb = drawn(["one", "two"])
    top = rgb[: rgb.shape[0] // 3].astype(int)
    columns = [np.abs(top - colour).sum(axis=2).argmin() % rgb.shape[1] for colour in COLOURS]
    assert columns == sorted(columns)
    assert all(np.abs(top - colour).sum(axis=2).min() < 30 for colour in COLOURS)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "$x",
        "a $ and $ again",
        "日本語の説明",
        "ا" * 500,
        "a\nb\tc\x00",
        "word " * 200,
        "\\frac{1}",
    ],
)
def test_any_caption_can_be_drawn(caption: str) -> None:
    assert drawn([caption, "plain"]).std() > 10
