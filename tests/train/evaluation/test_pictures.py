import threading
from pathlib import Path

import numpy as np
import pytest

from dedup.evaluation.evalsets import EvalSet, items
from pipeline.errors import InputError
from pipeline.pictures.images import decode
from tests.train.evaluation.pictures import coloured_set
from train.evaluation.pictures import squares_ahead
from train.samples.augment import CENTRE, square_crop


@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_pictures_come_in_the_sets_order_whoever_decodes(
    tmp_path: Path, readers: int, batch_size: int
) -> None:
    evalset = coloured_set(tmp_path / "set", 5)
    found = list(squares_ahead(evalset, 16, batch_size, readers=readers))
    assert [len(squares.items) for squares in found][:-1] == [batch_size] * (len(found) - 1)
    expected = list(items(evalset))
    assert [i for squares in found for i in squares.items] == [item.item for item in expected]
    assert [i for squares in found for i in squares.labels] == [item.label for item in expected]
    pixels = np.concatenate([squares.pixels_B3SS for squares in found])
    for square, item in zip(pixels, expected, strict=True):
        assert np.array_equal(square, square_crop(decode(item.data).rgb, 16, CENTRE))


def test_a_broken_picture_is_named_and_moves_no_other(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 3)
    (tmp_path / "set" / "blue" / "1.png").write_bytes(b"no picture")
    whole = coloured_set(tmp_path / "whole", 3)
    (squares,) = squares_ahead(evalset, 8, 50)
    (others,) = squares_ahead(whole, 8, 50)
    kept = [i for i, item in enumerate(others.items) if item != "blue/1.png"]
    assert squares.items == [others.items[i] for i in kept]
    assert np.array_equal(squares.pixels_B3SS, others.pixels_B3SS[kept])
    (refused,) = squares.refused
    assert refused["detail"].startswith("colours/blue/1.png: not_an_image")


def test_pictures_without_class_and_captions_are_passed_over(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 2)
    (tmp_path / "set" / "red" / "1.png").rename(tmp_path / "set" / "1.png")
    (squares,) = squares_ahead(evalset, 8, 50)
    assert len(squares.items) == 7
    assert "1.png" not in squares.items


def test_what_is_wrong_with_a_set_is_raised_where_its_pictures_are_asked_for(
    tmp_path: Path,
) -> None:
    coloured_set(tmp_path / "set", 1)
    evalset = EvalSet(name="colours", path=str(tmp_path / "set"), labels={"pink": "rose"})
    with pytest.raises(InputError, match="pink"):
        list(squares_ahead(evalset, 8, 2))


def test_threads_end_when_nobody_asks_for_more(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 20)
    before = set(threading.enumerate())
    pictures = squares_ahead(evalset, 8, 2)
    next(pictures)
    assert set(threading.enumerate()) - before
    pictures.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) - before == set()
