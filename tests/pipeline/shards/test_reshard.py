import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import query_table
from pipeline.errors import ConfigError, CorruptWorkspace, InputError, MissingInput, TaskFailed
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.workspace import Workspace
from pipeline.shards.corpus import reading, writing
from pipeline.shards.reshard import ReshardConfig, check_output, reshard
from tests.pipeline.shards.corpora import contents, files, kept, pack, pair_id, rows, uid
from tests.pipeline.shards.test_verify import faults, members, rewrite
from train.stream import ShardStream

SAMPLES = 41


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Workspace:
    workspace = kept(tmp_path_factory.mktemp("source") / "W", 30, 11, keyed=True)
    pack(workspace, 9)
    return workspace


def resharded(source: Workspace | str, root: Path, executor=None, **options) -> Workspace:
    target = Workspace(root=str(root))
    place = source if isinstance(source, str) else source.root
    reshard(ReshardConfig(**options), place, target, executor or InlineExecutor())
    return target


def numbers(workspace: Workspace) -> list[int]:
    return [row["source_offset"] for row in rows(workspace)]


def test_samples_that_meet_a_condition_keep_every_byte(source, tmp_path):
    found = resharded(source, tmp_path / "N", where="language = 'de' OR source_offset >= 38")
    expected = {pair_id(n) for n in range(SAMPLES) if n % 3 == 0 or n >= 38}
    everything = contents(source)
    assert contents(found) == {name: everything[name] for name in expected}
    assert faults(found.root, decode=True) == []


def test_samples_stay_in_their_order_under_new_keys(source, tmp_path):
    found = resharded(source, tmp_path / "N", where="source_offset % 2 = 0", samples_per_shard=4)
    assert numbers(found) == [n for n in numbers(source) if n % 2 == 0]
    keys = [row["key"] for row in rows(found)]
    assert keys == [f"{i // 4:05d}{i % 4:04d}" for i in range(21)]


def test_everything_in_shards_of_the_same_size_is_the_same_again(source, tmp_path):
    found = resharded(source, tmp_path / "N", samples_per_shard=9)
    assert {name: data for name, data in files(source).items() if "drops" not in name} == files(
        found
    )


def test_reshaped_by_bytes_no_tar_is_larger(source, tmp_path):
    found = resharded(source, tmp_path / "N", shard_bytes="30KB")
    sizes = [Path(found.path(f"shard/{i:05d}.tar")).stat().st_size for i in range(3)]
    assert max(sizes) <= 30_000
    assert contents(found) == contents(source)


@settings(max_examples=4)
@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 12))
def test_twice_is_as_good_as_once(source, tmp_path_factory, least, first, second):
    root = tmp_path_factory.mktemp("twice")
    where = f"source_offset >= {least}"
    once = resharded(source, root / "once", where=where, samples_per_shard=second)
    middle = resharded(source, root / "middle", where=where, samples_per_shard=first)
    twice = resharded(middle, root / "twice", where=where, samples_per_shard=second)
    assert files(twice) == files(once)


def test_the_same_bytes_whatever_the_workers(source, tmp_path, executor: Executor):
    options = {"where": "source_offset % 3 = 1", "samples_per_shard": 4}
    one = resharded(source, tmp_path / "one", **options)
    other = resharded(source, tmp_path / "other", executor, **options)
    assert files(one) == files(other)


def test_a_condition_may_ask_all_samples_at_once_and_read_files(source, tmp_path):
    pq.write_table(pa.table({"pair_id": [pair_id(3), pair_id(5)]}), tmp_path / "scores.parquet")
    where = f"""
        pair_id IN (SELECT pair_id FROM '{tmp_path}/scores.parquet')  -- listed
        OR original_width = (SELECT max(original_width) FROM samples)"""
    found = resharded(source, tmp_path / "N", where=where)
    assert sorted(numbers(found)) == [3, 5, SAMPLES - 1]


@pytest.mark.parametrize("kind", ["text", "parquet", "npy"])
def test_samples_are_found_by_uid_and_by_pair_id(source, tmp_path, kind):
    wanted = [uid(0), uid(2), uid(40), uid(3), pair_id(7), "f" * 32]
    path = tmp_path / "list"
    if kind == "text":
        path.write_text("\n".join([*wanted[:2], "", *(w.upper() for w in wanted[2:])]))
    elif kind == "parquet":
        pq.write_table(pa.table({"other": range(6), "uid": wanted}), path)
    else:
        halves = [(int(w[:16], 16), int(w[16:], 16)) for w in sorted(wanted)]
        np.save(tmp_path / "list.npy", np.array(halves, np.dtype("u8,u8")))
        path = tmp_path / "list.npy"
    found = resharded(source, tmp_path / "N", uids=str(path))
    # An odd pair has no uid of its own.
    assert sorted(numbers(found)) == [0, 2, 7, 40]


@pytest.fixture
def given(source, tmp_path) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    for path in Path(source.path("shard")).glob("0*"):
        shutil.copy(path, folder)
    return folder


def test_a_folder_of_nothing_but_shards_will_do(source, given, tmp_path):
    where = "source_offset < 20"
    one = resharded(str(given), tmp_path / "one", where=where)
    other = resharded(source, tmp_path / "other", where=where)
    assert files(one) == files(other)


def test_run_again_it_does_nothing_until_something_changed(source, tmp_path, capfd):
    target = resharded(source, tmp_path / "N", where="source_offset < 20")
    before = Path(target.path("shard/manifest.json")).read_bytes()
    resharded(source, tmp_path / "N", where="source_offset < 20")
    assert Path(target.path("shard/manifest.json")).read_bytes() == before
    assert "nothing has changed" in capfd.readouterr().err
    resharded(source, tmp_path / "N", where="source_offset < 21")
    assert len(numbers(target)) == 21


def test_run_again_it_reads_the_files_of_the_condition_again(source, tmp_path):
    scores = tmp_path / "scores.parquet"
    where = f"pair_id IN (SELECT pair_id FROM '{scores}')"
    for expected in ([3, 5], [3, 5, 7]):
        pq.write_table(pa.table({"pair_id": [pair_id(n) for n in expected]}), scores)
        target = resharded(source, tmp_path / "N", where=where)
        assert sorted(numbers(target)) == expected


def test_the_folder_for_temporary_files_may_have_any_name(source, tmp_path, monkeypatch):
    folder = tmp_path / "it's a 'folder'"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (tmp_path / "ids").write_text(pair_id(3))
    target = resharded(source, tmp_path / "N", where="true", uids=str(tmp_path / "ids"))
    assert numbers(target) == [3]


def test_the_trainer_and_the_catalogue_read_what_was_written(source, tmp_path):
    target = resharded(source, tmp_path / "N", where="source_offset < 20", samples_per_shard=7)
    everything = contents(source)
    with ShardStream(target.root, batch_size=20, window=50) as stream:
        for sample in next(stream).samples:
            pair = stream.read(sample), sample.caption.encode()
            assert pair == everything[sample.pair_id][:2]
    query = "SELECT count(*) AS n, count(DISTINCT shard) AS shards FROM samples"
    assert query_table(target, query).to_pylist() == [{"n": 20, "shards": 3}]


def test_the_manifest_says_where_the_samples_come_from(source, tmp_path):
    target = resharded(source, tmp_path / "N", where="source_offset < 20")
    manifest = target.finished("shard")
    assert manifest.settings["source"] == source.root
    assert manifest.settings["source_content"] == source.manifest("shard").content
    assert manifest.settings["where"] == "source_offset < 20"


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ("size > 5", 'Referenced column "size" not found'),
        ("width >", "the condition failed"),
        ("true; DROP TABLE samples", "the condition holds 2 statements|the condition failed"),
        ("random() < 0.5", r"the condition uses random\(\)"),
        ("key IN (SELECT CAST(uuid() AS TEXT) FROM samples)", r"the condition uses uuid\(\)"),
        ("key IN (SELECT key FROM samples USING SAMPLE 5)", "the condition uses SAMPLE"),
        ("key IN (SELECT key FROM samples TABLESAMPLE 50%)", "the condition uses SAMPLE"),
        ("key IN (SELECT key FROM samples LIMIT 5)", "the condition uses LIMIT"),
        ("CURRENT_TIMESTAMP > '2020-01-01'", "the condition uses current_timestamp"),
        ("today() > '2020-01-01'", r"the condition uses today\(\)"),
        ("0.5 > (SELECT * FROM query('SELECT random()'))", r"the condition uses query\(\)"),
        (
            "key IN (SELECT key FROM 'http://127.0.0.1:1/x.parquet')",
            "requires the extension httpfs",
        ),
        ("pair_id IN (SELECT x FROM 'nowhere.parquet')", "the condition failed"),
        ("caption = 'no such'", "no sample is meant"),
        ("CAST(caption AS INTEGER) = 1", "the condition failed"),
    ],
)
def test_a_condition_that_will_not_do_is_refused(source, tmp_path, where, seen):
    with pytest.raises((ConfigError, InputError), match=seen):
        resharded(source, tmp_path / "N", where=where)
    assert not (tmp_path / "N" / "shard").exists()


def _save_numbers(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.arange(5))


@pytest.mark.parametrize(
    ("write", "seen"),
    [
        (lambda path: None, "nowhere|No such file"),
        (lambda path: path.write_text("\n\n"), "lists nothing"),
        (lambda path: path.write_bytes(b"\xff\xfe\xfa"), "neither UTF-8 text"),
        (lambda path: path.write_bytes(b"PAR1 no"), "cannot be read as Parquet"),
        (
            lambda path: pq.write_table(pa.table({"a": [1]}), path),
            "columns a, expected uid or pair_id",
        ),
        (_save_numbers, "expected one of u8,u8"),
    ],
)
def test_a_list_that_is_none_is_refused(source, tmp_path, write, seen):
    path = tmp_path / "nowhere"
    write(path)
    with pytest.raises(Exception, match=seen):
        resharded(source, tmp_path / "N", uids=str(path))


def test_the_source_itself_and_other_work_are_not_written_over(source, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(source.root)
    for place in (source.root, str(link), source.path("shard")):
        with pytest.raises(InputError, match="is what is read"):
            check_output(place, source)
    other = kept(tmp_path / "other", 3)
    with pytest.raises(InputError, match="expected nothing or a corpus that reshard wrote"):
        check_output(source.root, other)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.jpg").touch()
    with pytest.raises(InputError, match=r"holds 1\.jpg"):
        check_output(source.root, Workspace(root=str(photos)))
    check_output(source.root, Workspace(root=str(tmp_path / "new")))


def test_a_damaged_shard_ends_it(source, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(source.root, copy)
    path = copy / "shard/00002.tar"
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    with pytest.raises(TaskFailed, match="run `witmill verify`"):
        resharded(str(copy), tmp_path / "N", samples_per_shard=50)


def _swap_offsets(folder: Path) -> None:
    def swap(rows: list[dict]) -> None:
        for name in ("image_offset", "image_length"):
            rows[0][name], rows[1][name] = rows[1][name], rows[0][name]

    _change_index(folder, swap)


def _change_index(folder: Path, change) -> None:
    path = folder / "00000.parquet"
    table = pq.read_table(path)
    content = table.to_pylist()
    change(content)
    pq.write_table(pa.Table.from_pylist(content, table.schema), path)


def _set(**values):
    return lambda folder: _change_index(folder, lambda rows: rows[0].update(values))


def _drop_metadata(folder: Path) -> None:
    path = folder / "00000.tar"
    rewrite(path, [m for m in members(path) if m[0] != "000000008.json"])
    stats = json.loads((folder / "00000_stats.json").read_text())
    data = path.read_bytes()
    stats |= {"tar_bytes": len(data), "tar_sha256": hashlib.sha256(data).hexdigest()}
    (folder / "00000_stats.json").write_text(json.dumps(stats))


def _name_other_shard(folder: Path) -> None:
    def change(rows: list[dict]) -> None:
        for row in rows:
            row["shard"] = "shard/00001.tar"

    _change_index(folder, change)


@pytest.mark.parametrize("where", ["true", None])
@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (_swap_offsets, "lies at byte"),
        (_drop_metadata, r"000000008\.json is missing"),
        (_set(image_length=1 << 40), "the index says at 512 with 1,099,511,627,776"),
        (_set(image_length=-5), "the index says at 512 with -5"),
        (_set(caption="another"), "is not the caption that the index has"),
        (_name_other_shard, r"of shard/00001\.tar|are in the shards that the indexes name"),
    ],
)
def test_an_index_that_does_not_fit_its_tar_is_not_believed(given, tmp_path, where, spoil, seen):
    spoil(given)
    with pytest.raises((TaskFailed, CorruptWorkspace), match=seen):
        resharded(str(given), tmp_path / "N", where=where)
    assert any(re.search(seen, fault) for fault in faults(given)), faults(given)


def test_shards_are_not_changed_while_they_are_read_nor_read_while_they_are_changed(
    source, tmp_path
):
    with reading(source.root), reading(source.path("shard")):
        with pytest.raises(InputError, match="another witmill is at work"), writing(source):
            pass
        with pytest.raises(InputError, match="another witmill is at work"):
            pack(source, 8)
    with writing(source):
        with pytest.raises(InputError, match="another witmill is at work"):
            resharded(source, tmp_path / "N")
        with pytest.raises(InputError, match="another witmill is at work"):
            faults(source.root)
    # The trainer holds the lock of the workspace, and only reads them.
    with source.locked():
        assert faults(source.root) == []


def test_nothing_to_read_is_refused(tmp_path, workspace):
    with pytest.raises(InputError, match="does not exist"):
        resharded(str(tmp_path / "nowhere"), tmp_path / "N")
    workspace.prepare()
    with pytest.raises(MissingInput, match="run `witmill shard`"):
        resharded(workspace, tmp_path / "N")


def test_from_a_bucket_to_a_bucket(source, tmp_path, s3_bucket):
    local = resharded(source, tmp_path / "local", where="source_offset < 30", samples_per_shard=8)
    remote = Workspace(root=f"{s3_bucket}/all")
    reshard(ReshardConfig(samples_per_shard=9), source.root, remote, InlineExecutor())
    target = Workspace(root=f"{s3_bucket}/some")
    check_output(remote.root, target)
    config = ReshardConfig(where="source_offset < 30", samples_per_shard=8)
    reshard(config, remote.root, target, InlineExecutor())
    assert target.finished("shard").tables == local.finished("shard").tables
    assert faults(target.root) == []
    with pytest.raises(InputError, match="is what is read"):
        check_output(remote.root, remote)
