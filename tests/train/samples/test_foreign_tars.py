import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest

from pipeline.errors import InputError, StorageError, WitmillError
from pipeline.runtime import storage
from tests.train.foreign import sample, tar_bytes, tar_of_samples
from train.samples.foreign_tars import COLUMNS, Tar, expand, find_tars, means_tars, of_tars
from train.samples.indexed import Indexed
from train.samples.tar_index import write_tar_index


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    (tmp_path / "tars").mkdir()
    for i, count in enumerate((5, 1, 12)):
        (tmp_path / f"tars/{i:02d}.tar").write_bytes(tar_of_samples(f"{i}-", count))
    return tmp_path / "tars"


def opened(pattern: object, tmp_path: Path, **how: object) -> Indexed:
    how = {"indexes": "", "cache": str(tmp_path / "cache"), "with_pictures": True, **how}
    return of_tars(find_tars(str(pattern)), **how)


def names(found: list[Tar]) -> list[str]:
    return [tar.path.rpartition("/")[2] for tar in found]


def test_braces_mean_what_webdataset_means_by_them() -> None:
    assert list(expand("a/{08..11}.tar")) == [f"a/{i:02d}.tar" for i in (8, 9, 10, 11)]
    assert list(expand("{0..1}/{0..1}")) == ["0/0", "0/1", "1/0", "1/1"]
    for wrong in ("{3..2}.tar", "{0..99999999}.tar"):
        with pytest.raises(InputError, match="means no files"):
            list(expand(wrong))


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/{00..02}.tar"])
def test_tars_are_found_by_folder_star_and_braces(tars: Path, pattern: str, s3_bucket: str) -> None:
    assert names(find_tars(f"{tars}{pattern}")) == ["00.tar", "01.tar", "02.tar"]
    for path in tars.iterdir():
        storage.write_bytes(f"{s3_bucket}/{path.name}", path.read_bytes())
    found = find_tars(f"{s3_bucket}{pattern}")
    assert [tar.bytes for tar in found] == [path.stat().st_size for path in sorted(tars.iterdir())]
    assert means_tars(f"{s3_bucket}{pattern}")


def test_absent_tars_are_named(tars: Path) -> None:
    with pytest.raises(InputError, match=r"2 of 5 tars are missing, such as .*03\.tar"):
        find_tars(f"{tars}/{{00..04}}.tar")
    with pytest.raises(InputError, match=r"91 of 94 tars are missing"):
        find_tars(f"{tars}/{{00..93}}.tar")
    with pytest.raises(StorageError, match="does not exist"):
        find_tars(f"{tars}/none/")
    with pytest.raises(InputError, match="not read over http"):
        find_tars("https://example.org/0.tar")


def test_samples_are_read_where_they_lie(tars: Path, tmp_path: Path) -> None:
    found = opened(tars, tmp_path)
    assert found.rows.tolist() == [5, 1, 12]
    table = found.read(2, 3, 7, COLUMNS.names)
    assert table.schema.names == COLUMNS.names
    for i, row in enumerate(table.to_pylist(), start=3):
        assert row["pair_id"] == row["key"] == f"2-{i:03d}"
        assert row["caption"] == f"caption 2-{i:03d}"
        data = Path(row["shard"]).read_bytes()
        begin = row["image_offset"]
        assert data[begin : begin + row["image_length"]] == f"picture 2-{i:03d}".encode()
    assert found.left_out == {}


def test_rows_beyond_the_first_group_are_read(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.samples.tar_index.ROWS_TOGETHER", 5)
    found = opened(tars, tmp_path)
    for first in range(12):
        for last in range(first + 1, 13):
            keys = found.read(2, first, last, ["key"]).column("key").to_pylist()
            assert keys == [f"2-{i:03d}" for i in range(first, last)]


def test_an_index_is_made_once_and_again_when_the_tar_changes(tars: Path, tmp_path: Path) -> None:
    before = opened(tars, tmp_path)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache/indexes").iterdir()}
    assert opened(tars, tmp_path).identity == before.identity
    assert made == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache/indexes").iterdir()}
    (tars / "01.tar").write_bytes(tar_of_samples("9-", 1))
    os.utime(tars / "01.tar", ns=(0, 0))
    found = opened(tars, tmp_path)
    assert found.read(1, 0, 1, ["key"]).column("key").to_pylist() == ["9-000"]


def test_an_index_beside_its_tar_or_in_a_folder_is_used(tars: Path, tmp_path: Path) -> None:
    (tmp_path / "indexes").mkdir()
    for path in sorted(tars.glob("*.tar")):
        for folder in (tars, tmp_path / "indexes"):
            write_tar_index(str(path), str(folder / f"{path.stem}.index.parquet"))
    assert opened(tars, tmp_path).rows.tolist() == [5, 1, 12]
    assert not (tmp_path / "cache").exists()
    in_folder = opened(tars, tmp_path, indexes=str(tmp_path / "indexes"))
    assert in_folder.rows.tolist() == [5, 1, 12]
    (tmp_path / "indexes/01.index.parquet").unlink()
    with pytest.raises(InputError, match="no index at"):
        opened(tars, tmp_path, indexes=str(tmp_path / "indexes"))
    (tars / "01.tar").write_bytes(tar_of_samples("9-", 30))
    with pytest.raises(InputError, match="witmill index --again"):
        opened(tars, tmp_path)
    (tars / "01.index.parquet").write_bytes(b"no index")
    with pytest.raises(InputError, match="is no index of a tar"):
        opened(tars, tmp_path)


def _open_in_a_process(where: tuple[str, str]) -> list[int]:
    found = of_tars(find_tars(where[0]), indexes="", cache=where[1], with_pictures=True)
    return found.rows.tolist()


def test_processes_that_meet_tars_together_make_one_index(tars: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        where = [(str(tars), str(tmp_path / "cache"))] * 3
        assert list(pool.map(_open_in_a_process, where)) == [[5, 1, 12]] * 3
    assert len(list((tmp_path / "cache/indexes").iterdir())) == 3


def test_what_is_left_out_is_counted_over_all_tars(tars: Path, tmp_path: Path) -> None:
    members = [*sample("whole", "a text"), *sample("mute"), ("blind.txt", b"a text")]
    (tars / "03.tar").write_bytes(tar_bytes(members))
    (tars / "04.tar.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    found = opened(tars, tmp_path)
    assert found.rows.tolist() == [5, 1, 12, 1, 0]
    assert found.left_out == {"compressed": 1, "no_caption": 1, "no_picture": 1}
    assert "03.tar: mute: no_caption" in found.example
    captions = opened(tars, tmp_path, with_pictures=False)
    assert captions.rows.tolist() == [5, 1, 12, 2, 0]
    assert captions.left_out == {"compressed": 1, "no_caption": 1}
    keys = captions.read(3, 0, 2, ["key"]).column("key").to_pylist()
    assert keys == ["whole", "blind"]


def test_tars_without_a_sample_to_use_are_refused_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([*sample("1"), *sample("2")]))
    with pytest.raises(
        InputError, match=r"no samples to use: no_caption 2; the first: .*0\.tar: 1: no_caption"
    ):
        opened(tmp_path / "0.tar", tmp_path)


def test_tars_of_one_name_and_size_are_told_apart(tmp_path: Path) -> None:
    found = []
    for folder, key in (("a", "x"), ("b", "y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.tar").write_bytes(tar_of_samples(key, 2))
        found.append(opened(tmp_path / folder / "0.tar", tmp_path))
    assert len({tar.identity for tar in found}) == 2
    (tmp_path / "c").mkdir()
    (tmp_path / "c/other.tar").write_bytes((tmp_path / "b/0.tar").read_bytes())
    assert opened(tmp_path / "c/other.tar", tmp_path).identity == found[1].identity


def test_a_damaged_index_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_of_samples("0-", 30))
    index = tmp_path / "0.index.parquet"
    write_tar_index(str(tmp_path / "0.tar"), str(index))
    whole = index.read_bytes()
    for place in range(4, len(whole), 40):
        index.write_bytes(whole[:place] + b"\xff\x00\xff" + whole[place + 3 :])
        # Not every byte matters; any other error would be one of the program.
        with suppress(WitmillError):
            found = opened(tmp_path / "0.tar", tmp_path)
            found.located(0, 0, int(found.rows[0]))
    index.write_bytes(whole[:4] + bytes(200) + whole[204:])
    with pytest.raises(StorageError, match="damaged"):
        opened(tmp_path / "0.tar", tmp_path).located(0, 0, 30)


def test_an_index_is_made_in_the_cache_alone(tars: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make it with `witmill index`"):
        opened(tars, tmp_path, indexes=str(tmp_path / "cache2"))
    assert not (tmp_path / "cache2").exists()


def test_what_a_killed_process_left_in_the_cache_goes(tars: Path, tmp_path: Path) -> None:
    left = tmp_path / "cache/indexes/x.index.parquet.1.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"PAR1")
    opened(tars, tmp_path)
    assert not left.exists()
