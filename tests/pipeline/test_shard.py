import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from pipeline import schemas, shard
from pipeline.errors import CorruptWorkspace, InputError, TaskFailed
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.shard import ShardConfig
from tests.pipeline.shards.corpora import (
    EXTENSIONS,
    TEXTS,
    contents,
    files,
    image,
    kept,
    pack,
    pair_id,
    rows,
    size,
    uid,
)


def test_a_sample_is_image_caption_and_metadata_under_one_key(tmp_path):
    workspace = kept(tmp_path, 6)
    pack(workspace, 4)
    with tarfile.open(workspace.path("shard/00001.tar")) as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar}
    keys = sorted({name.partition(".")[0] for name in content})
    assert keys == ["000010000", "000010001"]
    for key in keys:
        metadata = json.loads(content[f"{key}.json"])
        number = metadata["source_offset"]
        assert content[f"{key}.{EXTENSIONS[number % 3]}"] == image(number)
        caption = content[f"{key}.txt"].decode()
        assert caption.startswith(f'  Käse №{number} 𝄞\nsecond line "')
        assert caption == metadata["caption"]


def test_the_metadata_says_where_a_sample_came_from(tmp_path):
    workspace = kept(tmp_path, 1, keyed=True)
    pack(workspace)
    ((_, _, metadata),) = contents(workspace).values()
    known = json.loads(metadata)
    assert known == {
        "pair_id": pair_id(0),
        "url": "http://example.com/0.jpg",
        "caption": known["caption"],
        "caption_source": "alt",
        "page_url": "http://example.com/page0",
        "source": "a.warc",
        "source_offset": 0,
        "queries": [TEXTS[1], TEXTS[2]],
        "selected_by": [TEXTS[2]],
        "language": "de",
        "language_probability": 0.987654,
        "sha256": hashlib.sha256(image(0)).hexdigest(),
        "image_bytes": len(image(0)),
        "image_format": "jpeg",
        "original_width": 640,
        "original_height": 480,
        "width": size(0)[0],
        "height": size(0)[1],
        "pixel_hash": "0" * 32,
        "pdq": hashlib.sha256(b"pdq 0").hexdigest(),
        "pdq_quality": 100,
        "uid": uid(0),
    } | {name: known[name] for name in schemas.SAMPLE.names if name not in BASIC}
    assert list(known) == sorted(known)


BASIC = {
    "pair_id", "url", "caption", "caption_source", "page_url", "source", "source_offset", "queries",
    "selected_by", "language", "language_probability", "sha256", "image_bytes", "image_format",
    "original_width", "original_height", "width", "height", "pixel_hash", "pdq", "pdq_quality", "uid",
}  # fmt: skip


def test_the_index_says_where_every_member_lies(tmp_path):
    workspace = kept(tmp_path, 5, 0, 9)
    pack(workspace, 6)
    index = rows(workspace)
    assert len(index) == 14
    assert [(s["shard"], s["samples"]) for s in rows(workspace, "shards")] == [
        ("shard/00000.tar", 6),
        ("shard/00001.tar", 6),
        ("shard/00002.tar", 2),
    ]
    found = contents(workspace)
    for row in index:
        picture, caption, metadata = found[row["pair_id"]]
        assert caption.decode() == row["caption"] == json.loads(metadata)["caption"]
        assert picture == image(row["source_offset"])
        assert row["image_member"].partition(".")[0] == row["key"]
    for summary in rows(workspace, "shards"):
        data = Path(workspace.path(summary["shard"])).read_bytes()
        assert summary["bytes"] == len(data)
        assert summary["sha256"] == hashlib.sha256(data).hexdigest()


def test_the_index_has_the_columns_that_img2dataset_has(tmp_path):
    workspace = kept(tmp_path, 3)
    pack(workspace)
    row = rows(workspace)[0]
    number = row["source_offset"]
    assert row["url"] == f"http://example.com/{number}.jpg"
    assert (row["status"], row["error_message"]) == ("success", None)
    assert (row["width"], row["height"]) == size(number)
    assert (row["original_width"], row["original_height"]) == (640 + number, 480)
    assert row["sha256"] == hashlib.sha256(image(number)).hexdigest()


def test_the_stats_beside_a_tar_count_as_img2dataset_does(tmp_path):
    workspace = kept(tmp_path, 7)
    pack(workspace)
    stats = json.loads(Path(workspace.path("shard/00001_stats.json")).read_text())
    tar = Path(workspace.path("shard/00001.tar")).read_bytes()
    last = rows(workspace)[5:]
    assert stats == {
        "count": 2,
        "successes": 2,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "bytes_downloaded": sum(len(image(row["source_offset"])) for row in last),
        "status_dict": {"success": 2},
        "tar_bytes": len(tar),
        "tar_sha256": hashlib.sha256(tar).hexdigest(),
    }


def test_keys_are_unique_and_sort_as_the_samples_lie(tmp_path):
    workspace = kept(tmp_path, 30, 30)
    pack(workspace, 7)
    keys = [row["key"] for row in rows(workspace)]
    assert keys == sorted(set(keys))
    assert keys[:8] == [*(f"00000{n:04d}" for n in range(7)), "000010000"]


def test_samples_lie_in_the_order_of_their_pairs(tmp_path):
    workspace = kept(tmp_path, 40)
    pack(workspace, 15)
    pair_ids = [row["pair_id"] for row in rows(workspace)]
    assert pair_ids == sorted(pair_ids)


def test_a_shard_has_at_most_the_bytes_it_may_have(tmp_path):
    workspace = kept(tmp_path, 30, 20)
    manifest = pack(workspace, shard_bytes="20KB")
    tars = [part.bytes for part in manifest.tables["tars"]]
    assert max(tars) <= 20_000
    # Each but the last is so full that its successor's first sample did not fit.
    index = rows(workspace)
    firsts = {row["shard"]: row for row in reversed(index)}
    sizes = [
        sum(
            512 + -(-row[f"{kind}_length"] // 512) * 512
            for kind in ("image", "caption", "metadata")
        )
        for row in firsts.values()
    ]
    assert len(tars) > 3
    assert all(tar + first > 20_000 for tar, first in zip(tars, sizes[::-1][1:], strict=False))
    assert len(index) == 50


def test_two_limits_at_once_are_refused():
    with pytest.raises(Exception, match="samples_per_shard is 5 and shard_bytes is 1GB"):
        ShardConfig(samples_per_shard=5, shard_bytes="1GB")


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "1 furlong"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="size such as"):
        ShardConfig(shard_bytes=text)


def test_what_the_input_called_a_row_comes_back_though_its_parts_are_others(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.shards.source_keys.ROWS_PER_PARTITION", 20)
    workspace = kept(tmp_path, 30, 0, 11, keyed=True)
    pack(workspace, 7)
    found = {row["source_offset"]: row["uid"] for row in rows(workspace)}
    assert found == {n: None if n % 2 else uid(n) for n in range(41)}


def test_the_same_bytes_whatever_the_workers(tmp_path, executor: Executor):
    one, other = (kept(tmp_path / name, 20, 3, keyed=True) for name in ("one", "other"))
    pack(one, 9)
    shard.run(ShardConfig(samples_per_shard=9), other, executor)
    assert files(one) == files(other)
    assert sum(name.endswith(".tar") for name in files(one)) == 3


def test_nothing_kept_gives_no_shards(tmp_path):
    for sizes in ((), (0,)):
        workspace = kept(tmp_path / str(len(sizes)), *sizes)
        assert pack(workspace).rows_out == 0
        assert rows(workspace) == []


def damaged(workspace, change) -> None:
    path = Path(workspace.path("download/images/00000.tar"))
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("byte", [0, 600, -1])
def test_a_stored_image_that_is_none_any_more_ends_the_stage(tmp_path, byte):
    workspace = kept(tmp_path, 3)

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[byte] ^= 1
        return bytes(changed)

    damaged(workspace, flip)
    with pytest.raises(TaskFailed, match="is corrupted"):
        pack(workspace)


def test_a_tar_of_images_that_was_cut_short_is_noticed_first(tmp_path):
    workspace = kept(tmp_path, 3)
    damaged(workspace, lambda data: data[:-5000] if len(data) > 5000 else data[:-1])
    with pytest.raises(CorruptWorkspace, match="expected"):
        pack(workspace)


def test_a_removal_that_was_cut_off_has_to_be_finished_first(tmp_path):
    workspace = kept(tmp_path, 3)
    Path(workspace.path("_removing/shard")).mkdir(parents=True)
    Path(workspace.path("_removing/shard/manifest.json")).write_text("{}")
    with pytest.raises(InputError, match="was cut off half way"):
        shard.run(ShardConfig(), workspace, InlineExecutor())
