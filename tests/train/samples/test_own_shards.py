import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import CorruptWorkspace, InputError, MissingInput, StorageError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.foreign import tar_of_samples
from tests.train.shards import coloured_pairs
from train.samples.indexed import Indexed
from train.samples.own_shards import is_own, of_folder, of_tars, of_workspace
from train.samples.shard_cache import ShardCache
from train.stream import LOCATED

Finish = Callable[..., Manifest]


def pictures(found: Indexed) -> list[tuple[str, bytes]]:
    """Return caption and picture of every sample."""
    read = []
    for shard, count in enumerate(found.rows):
        for row in found.located(shard, 0, int(count)).to_pylist():
            begin = row["image_offset"]
            data = storage.read_bytes(row["shard"])
            read.append((row["caption"], data[begin : begin + row["image_length"]]))
    return read


def test_shards_are_the_same_in_a_workspace_a_folder_and_by_name(
    workspace: Workspace, finish_shards: Finish, tmp_path: Path
) -> None:
    pairs = coloured_pairs(10)
    finish_shards(pairs, per_shard=4)
    found = of_workspace(workspace, None)
    assert found.rows.tolist() == [4, 4, 2]
    assert pictures(found) == [(caption, image) for image, caption in pairs]
    assert found.located(1, 1, 3).schema.equals(LOCATED)
    shutil.copytree(workspace.path("shard"), tmp_path / "copy")
    copied = of_folder(str(tmp_path / "copy"), None)
    assert pictures(copied) == pictures(found)
    assert copied.identity == found.identity
    (tmp_path / "copy/manifest.json").unlink()
    tars = [str(tmp_path / f"copy/{i:05d}.tar") for i in range(3)]
    assert all(is_own(tar) for tar in tars)
    assert pictures(of_tars(tars, None)) == pictures(found)


def test_in_a_bucket_indexes_are_read_through_the_cache(
    workspace: Workspace, finish_shards: Finish, tmp_path: Path, s3_bucket: str
) -> None:
    finish_shards(coloured_pairs(6), per_shard=4)
    for path in storage.list_inside(workspace.root):
        storage.write_bytes(s3_bucket + path.removeprefix(workspace.root), Path(path).read_bytes())
    cache = ShardCache(str(tmp_path / "cache"), limit=1 << 30)
    remote = of_workspace(Workspace(root=s3_bucket), cache)
    assert pictures(remote) == pictures(of_workspace(workspace, None))
    assert len(list((tmp_path / "cache").iterdir())) == 3
    cache.close()


def test_a_damaged_index_is_told(workspace: Workspace, finish_shards: Finish) -> None:
    finish_shards(coloured_pairs(6))
    path = Path(workspace.path("shard/00000.parquet"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptWorkspace, match="sha256 differs"):
        of_workspace(workspace, None).located(0, 0, 1)


def test_shards_that_are_not_there_are_told(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="witmill shard"):
        of_workspace(workspace, None)
    (tmp_path / "0.tar").write_bytes(tar_of_samples("", 2))
    assert not is_own(str(tmp_path / "0.tar"))
    # As img2dataset leaves one beside its tars.
    pq.write_table(LOCATED.empty_table().select(["caption"]), tmp_path / "0.parquet")
    assert not is_own(str(tmp_path / "0.tar"))
    (tmp_path / "0.parquet").write_bytes(b"no parquet")
    assert not is_own(str(tmp_path / "0.tar"))
    with pytest.raises(InputError, match="no index of witmill's beside it"):
        of_tars([str(tmp_path / "0.tar")], None)


def test_a_shard_is_not_another_of_its_name_and_length(
    workspace: Workspace, finish_shards: Finish, tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(6), per_shard=3)
    found = []
    for number in (0, 1):
        (tmp_path / f"{number}").mkdir()
        for suffix in ("tar", "parquet"):
            shard = workspace.path(f"shard/{number:05d}.{suffix}")
            shutil.copy(shard, tmp_path / f"{number}/same.{suffix}")
        found.append(of_tars([str(tmp_path / f"{number}/same.tar")], None))
    assert len({shards.identity for shards in found}) == 2


def test_an_index_without_a_column_that_is_asked_for_is_told(
    workspace: Workspace, finish_shards: Finish
) -> None:
    finish_shards(coloured_pairs(3))
    index = workspace.path("shard/00000.parquet")
    pq.write_table(pq.read_table(index).drop_columns(["language"]), index)
    found = of_tars([workspace.path("shard/00000.tar")], None)
    with pytest.raises(StorageError, match=r"language.*lacks a column"):
        found.read(0, 0, 1, ["pair_id", "language"])
