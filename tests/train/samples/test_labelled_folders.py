from pathlib import Path

import pytest

from dedup.evaluation.readers.settings import EvalSet
from pipeline.errors import InputError
from train.samples.indexed import Indexed
from train.samples.labelled_folders import COLUMNS, REASONS, of_folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name in ("cat/1.jpg", "cat/2.PNG", "great_dane/deep/3.webp", "cat/notes.txt", "4.jpg"):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "pets/cat/empty.jpg").touch()
    (tmp_path / "pets/.hidden").mkdir()
    (tmp_path / "pets/.hidden/5.jpg").write_bytes(b"x")
    return tmp_path / "pets"


def opened(path: Path, **settings: object) -> Indexed:
    return of_folder(EvalSet(name="pets", path=str(path), **settings))


def test_pictures_are_found_with_the_label_of_their_folder(pets: Path) -> None:
    found = opened(pets, labels={"cat": "house cat"})
    table = found.read(0, 0, 3, COLUMNS.names)
    assert table.schema.equals(COLUMNS)
    rows = {row["pair_id"]: row for row in table.to_pylist()}
    assert {name: row["caption"] for name, row in rows.items()} == {
        "cat/1.jpg": "house cat",
        "cat/2.PNG": "house cat",
        "great_dane/deep/3.webp": "great dane",
    }
    for name, row in rows.items():
        assert Path(row["shard"]).read_bytes() == name.encode()
        assert row["image_length"] == len(name)
    assert found.left_out == {"empty_file": 1, "no_class": 1, "no_picture": 1}
    assert set(found.left_out) == set(REASONS)
    assert found.example == "4.jpg: no_class"


def test_classes_are_mixed_in_an_order_that_stays(tmp_path: Path) -> None:
    for i in range(200):
        path = tmp_path / f"{'cat' if i < 100 else 'dog'}/{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    first, second = opened(tmp_path), opened(tmp_path)
    captions = first.read(0, 0, 200, ["caption"]).column("caption").to_pylist()
    assert 20 < captions[:100].count("cat") < 80
    assert first.identity == second.identity
    assert captions == second.read(0, 0, 200, ["caption"]).column("caption").to_pylist()
    (tmp_path / "cat/0.jpg").write_bytes(b"xy")
    assert opened(tmp_path).identity != first.identity


def test_large_folders_are_read_in_shards(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.samples.labelled_folders.PICTURES_TOGETHER", 2)
    found = opened(pets)
    assert found.rows.tolist() == [2, 1]
    names = [found.read(shard, 0, int(n), ["pair_id"]) for shard, n in enumerate(found.rows)]
    assert sum(table.num_rows for table in names) == 3


def test_what_is_no_such_folder_is_refused(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class 'dog'"):
        opened(pets, labels={"dog": "dog"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures in folders of their classes"):
        opened(tmp_path / "empty")
