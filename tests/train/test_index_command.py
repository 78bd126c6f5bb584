from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from tests.train.foreign import sample, tar_bytes, tar_of_samples
from train.index_command import index
from train.sources import open_path


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00.tar").write_bytes(tar_of_samples("0-", 4))
    (tmp_path / "a/01.tar").write_bytes(tar_bytes([*sample("1"), *sample("2", "two")]))
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_indexes_are_put_beside_their_tars(
    tars: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(f"{tars}/a/{{00..01}}.tar", workers=workers) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"{tars}/a/01.tar: 1: no_caption",
        f"no_caption       {1:>12}",
        "2 tars, 5 samples, 1 left out",
    ]
    with open_path(f"{tars}/a", cache=f"{tars}/cache") as data:
        assert data.samples == 5
    assert not (tars / "cache").exists()


def test_indexes_that_are_there_stay_unless_asked_for_again(tars: Path) -> None:
    index(f"{tars}/a", workers=0)
    made = (tars / "a/00.index.parquet").stat().st_mtime_ns
    index(f"{tars}/a", workers=0)
    assert (tars / "a/00.index.parquet").stat().st_mtime_ns == made
    index(f"{tars}/a", workers=0, again=True)
    assert (tars / "a/00.index.parquet").stat().st_mtime_ns > made
    # A tar of another size is another tar.
    (tars / "a/00.tar").write_bytes(tar_of_samples("0-", 40))
    index(f"{tars}/a", workers=0)
    with open_path(f"{tars}/a") as data:
        assert data.samples == 41


def test_indexes_in_a_folder_need_names_of_their_own(tars: Path) -> None:
    with pytest.raises(ConfigError, match="would be the index of 2 tars"):
        index(f"{tars}/a", f"{tars}/b", output=f"{tars}/indexes", workers=0)
    index(f"{tars}/a", output=f"{tars}/indexes", workers=0)
    assert len(list((tars / "indexes").iterdir())) == 2
    with pytest.raises(ConfigError, match="no tars are given"):
        index()
