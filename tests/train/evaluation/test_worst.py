import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.train.evaluation.pictures import coloured_set
from tests.train.shards import COLOURS
from train.evaluation.results import Prediction
from train.evaluation.worst import draw_worst


def prediction(label: str, number: int, predicted: str, rank: int) -> Prediction:
    return Prediction(
        variant="",
        split="",
        item=f"{label}/{number}.png",
        label=label,
        predicted=predicted,
        rank=rank,
    )


def shown_colours(sheet: bytes) -> dict[str, int]:
    """Return of how many pictures' area each colour is found."""
    page = np.asarray(Image.open(io.BytesIO(sheet))).astype(int)
    tile = 100 * 150
    return {
        name: round(int((np.abs(page - colour).max(axis=2) <= 30).sum()) / tile)
        for name, colour in COLOURS.items()
        if name != "grey"
    }


def test_wrong_pictures_of_the_worst_classes_are_shown(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 10)
    predictions = [prediction("red", i, "blue", 2 + i) for i in range(10)]
    predictions += [prediction("blue", i, "red" if i < 3 else "blue", 1 + (i < 3)) for i in range(10)]  # fmt: skip
    predictions += [prediction("green", i, "green", 1) for i in range(10)]
    both = draw_worst(evalset, predictions, 5)
    assert both is not None
    assert shown_colours(both) == {"red": 8, "green": 0, "blue": 3}
    one = draw_worst(evalset, predictions, 1)
    assert one is not None
    assert shown_colours(one) == {"red": 8, "green": 0, "blue": 0}


def test_nothing_is_drawn_where_nothing_is_wrong(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 1)
    assert draw_worst(evalset, [prediction("red", 0, "red", 1)], 5) is None
