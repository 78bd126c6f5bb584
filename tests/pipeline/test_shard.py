import gc
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas, shard
from pipeline.errors import CorruptWorkspace, TaskFailed
from pipeline.pictures.tar import TarWriter
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.manifest import Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from pipeline.shard import ShardConfig, cut, metadata_of

IMAGES = (b"\xff\xd8\xff picture ", b"\x89PNG picture ", b"RIFF....WEBP picture ")
EXTENSIONS = ("jpg", "png", "webp")


def image(number: int) -> bytes:
    return IMAGES[number % 3] + b"%d" % number * (number % 50)


def pair(number: int, place: tuple[str, int, int]) -> dict:
    return {
        "pair_id": hashlib.md5(b"%d" % number).hexdigest(),
        "url": f"http://example.com/{number}",
        "caption": f"  Käse №{number} 𝄞\nsecond line ",
        "caption_source": "alt",
        "page_url": None,
        "source": "a.warc",
        "source_offset": number,
        "query_ids": [1, number + 2],
        "language": "en",
        "language_probability": 0.9876543,
        "selected_by": [number + 2],
        "image_sha256": hashlib.sha256(image(number)).hexdigest(),
        "image_bytes": len(image(number)),
        "image_format": "jpeg",
        "width": 640,
        "height": 480,
        "pixel_hash": "0" * 32,
        "pdq": bytes(32) if number % 2 else None,
        "pdq_quality": 100 if number % 2 else None,
        "image_file": place[0],
        "image_offset": place[1],
        "image_length": place[2],
    }


def kept(root: Path, *sizes: int) -> Workspace:
    """A workspace whose parts have these many pairs, in another order than their images."""
    workspace = Workspace(root=str(root))
    download = begin("download", Settings(), workspace)
    rebalance = begin("rebalance", Settings(), workspace)
    outcomes = []
    first = 0
    for i, size in enumerate(sizes):
        name = f"download/images/{i:05d}.tar"
        file = io.BytesIO()
        with TarWriter(file) as tar:
            places = [(name, *tar.add(f"{n}.x", image(n))) for n in range(first, first + size)]
        path = Path(workspace.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
        download.add("images", workspace.describe(name, rows=size))
        rows = [pair(first + n, place) for n, place in enumerate(places)]
        table = pa.Table.from_pylist(rows, schema=schemas.DEDUPLICATED)
        outcomes.append(
            rebalance.output(i).write(
                rows_in=size,
                kept=table,
                schema=schemas.DEDUPLICATED,
                drops=schemas.DROPS.empty_table(),
            )
        )
        first += size
    download.finish([])
    rebalance.finish(outcomes)
    return workspace


def packed(workspace: Workspace, samples: int) -> tuple[list[dict], list[dict]]:
    manifest = shard.run(ShardConfig(samples_per_shard=samples), workspace, InlineExecutor())
    tables = [
        [
            row
            for part in manifest.tables.get(name, [])
            for row in pq.read_table(workspace.path(part.path), schema=schema).to_pylist()
        ]
        for name, schema in (("main", schemas.SHARD_INDEX), ("shards", schemas.SHARDS))
    ]
    return tables[0], tables[1]


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 15))
def test_shards_take_every_row_once_and_leave_no_gaps(sizes, samples):
    parts = [Part(path=str(i), rows=n, bytes=0, sha256="") for i, n in enumerate(sizes)]
    shards = cut(parts, samples)
    rows = [
        (s.part.path, row) for slices in shards for s in slices for row in range(s.start, s.stop)
    ]
    assert rows == [(part.path, row) for part in parts for row in range(part.rows)]
    counts = [sum(s.stop - s.start for s in slices) for slices in shards]
    assert all(count == samples for count in counts[:-1])
    assert all(0 < count <= samples for count in counts[-1:])


def test_a_sample_is_image_caption_and_metadata_under_one_key(tmp_path):
    workspace = kept(tmp_path, 6)
    packed(workspace, 4)
    with tarfile.open(workspace.path("shard/00001.tar")) as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar}
    keys = sorted({name.partition(".")[0] for name in content})
    assert keys == ["000010000", "000010001"]
    for key in keys:
        metadata = json.loads(content[f"{key}.json"])
        number = metadata["source_offset"]
        assert content[f"{key}.{EXTENSIONS[number % 3]}"] == image(number)
        assert content[f"{key}.txt"].decode() == f"  Käse №{number} 𝄞\nsecond line "
        assert metadata["selected_by"] == [number + 2]
        assert metadata["query_ids"] == [1, number + 2]
        assert metadata["pdq"] == ("00" * 32 if number % 2 else None)
        assert metadata["language_probability"] == 0.987654
        assert "image_offset" not in metadata
        assert list(metadata) == sorted(metadata)


def test_the_index_says_where_every_member_lies(tmp_path):
    workspace = kept(tmp_path, 5, 0, 9)
    index, shards = packed(workspace, 6)
    assert len(index) == 14
    assert [(s["shard"], s["samples"]) for s in shards] == [
        ("shard/00000.tar", 6),
        ("shard/00001.tar", 6),
        ("shard/00002.tar", 2),
    ]
    for row in index:
        data = Path(workspace.path(row["shard"])).read_bytes()
        place = {
            kind: data[row[f"{kind}_offset"] :][: row[f"{kind}_length"]]
            for kind in ("image", "caption", "metadata")
        }
        metadata = json.loads(place["metadata"])
        assert place["caption"].decode() == row["caption"] == metadata["caption"]
        assert place["image"] == image(metadata["source_offset"])
        assert metadata["pair_id"] == row["pair_id"]
        assert row["image_member"].partition(".")[0] == row["key"]
    for summary in shards:
        data = Path(workspace.path(summary["shard"])).read_bytes()
        assert summary["bytes"] == len(data)
        assert summary["sha256"] == hashlib.sha256(data).hexdigest()


def test_keys_are_unique_and_sort_as_the_samples_lie(tmp_path):
    index, _ = packed(kept(tmp_path, 30, 30), 7)
    keys = [row["key"] for row in index]
    assert keys == sorted(set(keys))
    assert keys[:8] == [*(f"00000{n:04d}" for n in range(7)), "000010000"]


def test_samples_lie_in_the_order_of_their_pairs(tmp_path):
    index, _ = packed(kept(tmp_path, 40), 15)
    pair_ids = [row["pair_id"] for row in index]
    assert pair_ids == sorted(pair_ids)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_shards(tmp_path):
    workspace = kept(tmp_path, 7)
    index, _ = packed(workspace, 5)
    urls = [workspace.path(f"shard/{i:05d}.tar") for i in range(2)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [row["key"] for row in index]
    assert [s["txt"].decode() for s in samples] == [row["caption"] for row in index]
    assert all(len(s.keys() & set(EXTENSIONS)) == 1 for s in samples)
    # webdataset leaves its files to the garbage collector.
    gc.collect()


def test_two_runs_give_the_same_bytes(tmp_path):
    runs = []
    for name in ("one", "other"):
        workspace = kept(tmp_path / name, 20, 3)
        packed(workspace, 9)
        folder = Path(workspace.path("shard"))
        found = sorted(f for f in folder.rglob("*") if f.suffix in (".tar", ".parquet"))
        runs.append({str(f.relative_to(folder)): f.read_bytes() for f in found})
    assert runs[0] == runs[1]
    assert len(runs[0]) == 9


def test_nothing_kept_gives_no_shards(tmp_path):
    for sizes in ((), (0,)):
        workspace = kept(tmp_path / str(len(sizes)), *sizes)
        assert packed(workspace, 5) == ([], [])


def test_metadata_has_the_same_bytes_whatever_the_order_of_columns():
    known = pair(1, ("f", 0, 1))
    assert metadata_of(known) == metadata_of(dict(reversed(known.items())))


def damaged(workspace: Workspace, change) -> None:
    path = Path(workspace.path("download/images/00000.tar"))
    path.write_bytes(change(path.read_bytes()))


def test_a_stored_image_that_is_none_any_more_ends_the_stage(tmp_path):
    workspace = kept(tmp_path, 3)
    damaged(workspace, lambda data: bytes(len(data)))
    with pytest.raises(TaskFailed, match="is corrupted: its sha256 differs"):
        packed(workspace, 5)


def test_a_tar_of_images_that_was_cut_short_is_noticed_first(tmp_path):
    workspace = kept(tmp_path, 3)
    damaged(workspace, lambda data: data[:-5000])
    with pytest.raises(CorruptWorkspace, match="expected"):
        packed(workspace, 5)
