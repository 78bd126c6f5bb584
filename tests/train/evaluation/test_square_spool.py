import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StorageError
from train.evaluation.pictures import Squares
from train.evaluation.square_spool import SquareSpool


def squares(first: int, labels: list[str | None]) -> Squares:
    count = len(labels)
    rng = np.random.default_rng(first)
    return Squares(
        items=[f"{first + i}.png" for i in range(count)],
        splits=[""] * count,
        labels=labels,
        captions=[()] * count,
        pixels_B3SS=rng.integers(0, 256, (count, 3, 4, 4), np.uint8),
        refused=[{"reason": "broken_image"}],
    )


@given(st.lists(st.lists(st.integers(0, 4), max_size=9), max_size=7))
def test_pictures_are_read_in_any_order_as_they_were(batches: list[list[int]]) -> None:
    one, two = squares(0, ["a", None, "b"]), squares(3, ["a", "c", "b"])
    with SquareSpool(resolution=4) as spool:
        spool.add(one)
        spool.add(two)
        assert (spool.items, spool.refused) == (["0.png", "2.png", "3.png", "4.png", "5.png"], 2)
        assert spool.labels == ["a", "b", "a", "c", "b"]
        whole = np.concatenate([one.pixels_B3SS[[0, 2]], two.pixels_B3SS])
        for rows, pixels in zip(batches, spool.read_ahead(batches), strict=True):
            np.testing.assert_array_equal(pixels, whole[rows])


def test_the_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with SquareSpool(resolution=4, folder=str(tmp_path)) as spool:
        spool.add(squares(0, ["a"]))
        assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with SquareSpool(resolution=4, folder=str(tmp_path)) as spool:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(
            StorageError, match=f"cannot write pictures to learn from in {tmp_path}"
        ):
            spool.add(squares(0, ["a"]))


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="No such file"),
        SquareSpool(resolution=4, folder=str(tmp_path / "absent")),
    ):
        pass
