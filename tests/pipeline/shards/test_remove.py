import hashlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import query_table
from pipeline.errors import InputError, StorageError, TaskFailed
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.workspace import Workspace
from pipeline.shards import removals
from pipeline.shards.commands import remove as remove_command
from pipeline.shards.corpus import open_corpus, reading
from pipeline.shards.remove import finish_removal, remove
from pipeline.shards.reshard import ReshardConfig, reshard
from tests.pipeline.shards.corpora import contents, files, image, kept, pack, pair_id, read, rows
from tests.pipeline.shards.test_verify import faults

SAMPLES = 24


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Workspace:
    workspace = kept(tmp_path_factory.mktemp("original") / "W", 17, 7, keyed=True)
    pack(workspace, 5)
    return workspace


@pytest.fixture
def packed(original, tmp_path) -> Workspace:
    shutil.copytree(original.root, tmp_path / "W")
    return Workspace(root=str(tmp_path / "W"))


def by_pair_id(workspace: Workspace, tmp_path: Path, *numbers: int, executor=None):
    path = tmp_path / "gone.txt"
    path.write_text("\n".join(map(pair_id, numbers)))
    return remove(
        workspace, [removals.read_list(str(path), "pair_id")], executor or InlineExecutor()
    )


def numbers(workspace: Workspace) -> list[int]:
    return [row["source_offset"] for row in rows(workspace)]


def test_what_a_list_names_is_gone_and_all_else_as_it_was(original, packed, tmp_path):
    done = by_pair_id(packed, tmp_path, 3, 4, 999)
    before, after = contents(original), contents(packed)
    assert after == {
        name: data for name, data in before.items() if name not in map(pair_id, (3, 4))
    }
    keys = {row["pair_id"]: row["key"] for row in rows(original)}
    assert all(row["key"] == keys[row["pair_id"]] for row in rows(packed))
    assert faults(packed.root, decode=True) == []
    assert (done.pairs, done.has_shards) == (2, True)


def test_only_the_shards_concerned_are_written_anew(original, packed, tmp_path):
    shard_of = {row["source_offset"]: row["shard"] for row in rows(original)}
    gone = [n for n in range(SAMPLES) if shard_of[n] == "shard/00002.tar"][:2]
    inodes = {path: path.stat().st_ino for path in Path(packed.path("shard")).glob("0*")}
    assert by_pair_id(packed, tmp_path, *gone).shards == 1
    changed = {path.name for path, inode in inodes.items() if path.stat().st_ino != inode}
    assert changed == {"00002.tar", "00002.parquet", "00002_stats.json"}
    assert json.loads(Path(packed.path("shard/00002_stats.json")).read_text())["count"] == 3
    assert [s["samples"] for s in rows(packed, "shards")] == [5, 5, 3, 5, 4]


@pytest.mark.parametrize("kind", ["url", "sha256", "pdq", "pair_id"])
@pytest.mark.parametrize("form", ["text", "parquet"])
def test_a_pair_is_found_by_its_address_its_hashes_and_its_id(packed, tmp_path, kind, form):
    gone = next(row for row in rows(packed) if row["source_offset"] == 8)
    path = tmp_path / "list"
    if form == "text":
        path.write_text(f"\n {gone[kind] if kind == 'url' else gone[kind].upper()} \r\n\n")
    else:
        pq.write_table(pa.table({"why": ["x"], kind: [gone[kind]]}), path)
    listed = removals.read_list(str(path), "hash" if kind in ("sha256", "pdq") else kind)
    remove(packed, [listed], InlineExecutor())
    assert 8 not in numbers(packed)
    assert rows(packed, "removed") == [
        {
            "pair_id": pair_id(8),
            "url": "http://example.com/8.jpg",
            "sha256": hashlib.sha256(image(8)).hexdigest(),
            "matched": kind,
            "list": "list",
        }
    ]


def test_an_address_is_found_however_it_is_written(tmp_path):
    path = tmp_path / "list"
    path.write_text("http://example.com/a b.jpg#top\nhttp://example.com/ü.png")
    assert removals.read_list(str(path), "url")["value"].to_pylist() == [
        "http://example.com/a b.jpg#top",
        "http://example.com/a%20b.jpg",
        "http://example.com/ü.png",
        "http://example.com/%C3%BC.png",
    ]


def test_the_catalogue_and_the_counts_tell_of_it(packed, tmp_path):
    by_pair_id(packed, tmp_path, 3, 4)
    by_pair_id(packed, tmp_path, 4, 5)
    manifest = packed.finished("shard")
    assert (manifest.rows_in, manifest.rows_out, dict(manifest.drops)) == (24, 21, {"removed": 3})
    table = query_table(packed, "SELECT pair_id, list FROM removed ORDER BY ALL")
    assert sorted(table["pair_id"].to_pylist()) == sorted(map(pair_id, (3, 4, 5)))
    history = query_table(
        packed,
        f"SELECT outcome, reason, detail FROM history WHERE stage = 'shard' AND pair_id = '{pair_id(4)}'",
    )
    assert history.to_pylist() == [
        {"outcome": "dropped", "reason": "removed", "detail": "gone.txt"}
    ]


def test_shards_packed_again_leave_the_same_pairs_out(packed, tmp_path):
    by_pair_id(packed, tmp_path, 3, 4)
    before = files(packed)
    pack(packed, 5)
    assert files(packed) == before
    pack(packed, 7)
    assert sorted(numbers(packed)) == [n for n in range(SAMPLES) if n not in (3, 4)]
    manifest = packed.finished("shard")
    assert (manifest.rows_in, manifest.rows_out, dict(manifest.drops)) == (24, 22, {"removed": 2})
    assert {row["pair_id"] for row in rows(packed, "removed")} == set(map(pair_id, (3, 4)))
    assert faults(packed.root) == []


def test_a_list_given_before_anything_is_packed_is_kept(tmp_path):
    workspace = kept(tmp_path / "W", 9)
    assert not by_pair_id(workspace, tmp_path, 2).has_shards
    pack(workspace)
    assert sorted(numbers(workspace)) == [n for n in range(9) if n != 2]


def test_a_list_that_names_nothing_there_is_kept_too(packed, tmp_path):
    before = files(packed)
    assert by_pair_id(packed, tmp_path, 999).pairs == 0
    assert files(packed) == before
    assert list(removals.list_files(packed)) == ["removals/00000.parquet"]
    assert packed.finished("shard").rows_out == SAMPLES
    pack(packed, 5)
    assert files(packed) == before


def test_a_subset_forgets_no_removal_when_it_is_written_again(original, tmp_path):
    subset = Workspace(root=str(tmp_path / "N"))
    config = ReshardConfig(where="source_offset < 12")
    reshard(config, original.root, subset, InlineExecutor())
    by_pair_id(subset, tmp_path, 3)
    assert faults(subset.root) == []
    before = files(subset)
    reshard(config, original.root, subset, InlineExecutor())
    assert files(subset) == before
    reshard(ReshardConfig(where="source_offset < 13"), original.root, subset, InlineExecutor())
    assert sorted(numbers(subset)) == [n for n in range(13) if n != 3]


def test_all_samples_of_a_shard_may_go(packed, tmp_path):
    by_pair_id(packed, tmp_path, *range(SAMPLES))
    assert rows(packed) == []
    assert [s["samples"] for s in rows(packed, "shards")] == [0] * 5
    assert faults(packed.root) == []


@settings(max_examples=8)
@given(st.lists(st.sets(st.integers(0, SAMPLES - 1)), min_size=1, max_size=3))
def test_removed_in_steps_or_at_once_the_same_is_left(original, tmp_path_factory, steps):
    root = tmp_path_factory.mktemp("steps")
    left = []
    for name, sets in (("steps", steps), ("once", [set().union(*steps)])):
        shutil.copytree(original.root, root / name)
        workspace = Workspace(root=str(root / name))
        for gone in sets:
            by_pair_id(workspace, root, *(gone or {999}))
        assert faults(workspace.root) == []
        left.append({k: v for k, v in files(workspace).items() if k.count("/") == 0})
    assert left[0] == left[1]


def test_the_same_bytes_whatever_the_workers(original, tmp_path, executor: Executor):
    made = []
    for name, chosen in (("one", InlineExecutor()), ("other", executor)):
        shutil.copytree(original.root, tmp_path / name)
        workspace = Workspace(root=str(tmp_path / name))
        by_pair_id(workspace, tmp_path, 1, 5, 9, executor=chosen)
        made.append(files(workspace))
    assert made[0] == made[1]


class Killed(BaseException):
    """Nothing may catch it."""


def test_killed_anywhere_it_has_happened_or_not_or_says_what_to_do(tmp_path, monkeypatch):
    old, new = (Workspace(root=str(tmp_path / name)) for name in ("old", "new"))
    pack(kept(old.root, 6), 2)
    shutil.copytree(old.root, new.root)
    by_pair_id(new, tmp_path, 1, 5)
    states = []
    for steps in range(200):
        workspace = Workspace(root=str(tmp_path / f"W{steps}"))
        shutil.copytree(old.root, workspace.root)
        with monkeypatch.context() as patch:
            _kill_after(steps, patch)
            try:
                by_pair_id(workspace, tmp_path, 1, 5)
            except Killed:
                pass
            else:
                break
        states.append(_state(workspace, old, new))
        if finish_removal(workspace):
            assert files(workspace) == files(new), steps
        by_pair_id(workspace, tmp_path, 1, 5)
        assert contents(workspace) == contents(new), steps
        assert faults(workspace.root) == [], steps
    order = list(dict.fromkeys(states))
    assert order == ["old", "cut off", "new"]
    assert states == sorted(states, key=order.index)


def _kill_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    left = [steps]

    def counted(work):
        def wrapper(*arguments):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return work(*arguments)

        return wrapper

    patch.setattr(os, "replace", counted(os.replace))
    for name in ("move", "remove"):
        patch.setattr(storage, name, counted(getattr(storage, name)))


def _state(workspace: Workspace, old: Workspace, new: Workspace) -> str:
    if storage.exists(workspace.path("_removing/shard/manifest.json")):
        for place in (workspace.root, workspace.path("shard"), f"{workspace.path('shard')}/"):
            with pytest.raises(InputError, match="was cut off half way; run `witmill remove"):
                open_corpus(place)
        return "cut off"
    if files(workspace) == files(old):
        return "old"
    assert files(workspace) == files(new)
    return "new"


def test_the_command_finishes_what_was_cut_off(packed, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.shards.remove.finish_removal", lambda workspace: None)
        by_pair_id(packed, tmp_path, 1)
    with pytest.raises(InputError, match="was cut off"):
        open_corpus(packed.root)
    assert remove_command(packed.root, workers=0) == 0
    assert "it is finished now" in capsys.readouterr().out
    assert 1 not in numbers(packed)
    with pytest.raises(Exception, match="no list is given"):
        remove_command(packed.root, workers=0)


def test_a_removal_that_failed_leaves_no_list_to_the_next(packed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.shards.remove._without", _fail)
        with pytest.raises(StorageError, match="disk is full"):
            by_pair_id(packed, tmp_path, *range(12))
    finish_removal(packed)
    assert by_pair_id(packed, tmp_path, 20).pairs == 1
    assert sorted(numbers(packed)) == [n for n in range(SAMPLES) if n != 20]


def _fail(*_):
    raise StorageError("the disk is full")


@pytest.mark.parametrize("deleted", [0, 1])
def test_no_list_and_no_record_is_written_over(packed, tmp_path, deleted):
    by_pair_id(packed, tmp_path, 3)
    by_pair_id(packed, tmp_path, 4)
    Path(packed.path(f"removals/0000{deleted}.parquet")).unlink()
    by_pair_id(packed, tmp_path, 5)
    assert len(removals.list_files(packed)) == 2
    assert {row["pair_id"] for row in rows(packed, "removed")} == set(map(pair_id, (3, 4, 5)))
    listed = [row["value"] for path in removals.list_files(packed).values() for row in read(path)]
    assert listed == [pair_id(4 - deleted), pair_id(5)]


def test_nothing_is_removed_while_the_shards_are_read(packed, tmp_path):
    (tmp_path / "ids").write_text(pair_id(3))
    with reading(packed.root), pytest.raises(InputError, match="another witmill is at work"):
        remove_command(packed.root, pair_ids=(str(tmp_path / "ids"),), workers=0)
    assert 3 in numbers(packed)


def test_all_hashes_of_a_table_count(packed, tmp_path):
    known = {row["source_offset"]: row for row in rows(packed)}
    columns = {"sha256": [known[1]["sha256"], None], "pdq": [None, known[2]["pdq"]]}
    pq.write_table(pa.table(columns), tmp_path / "list")
    remove(packed, [removals.read_list(str(tmp_path / "list"), "hash")], InlineExecutor())
    assert sorted(numbers(packed)) == [n for n in range(SAMPLES) if n not in (1, 2)]


def test_a_damaged_shard_is_not_written_anew(packed, tmp_path):
    path = Path(packed.path("shard/00000.tar"))
    data = bytearray(path.read_bytes())
    data[1500] ^= 1
    path.write_bytes(data)
    with pytest.raises(TaskFailed, match="run `witmill verify`"):
        by_pair_id(packed, tmp_path, *range(SAMPLES))
    assert path.read_bytes() == data


def test_hashes_may_say_of_which_kind_they_are(tmp_path):
    path = tmp_path / "list"
    path.write_text(f"sha256:{'A' * 64}\npdq:{'b' * 64}\n{'c' * 64}")
    values = removals.read_list(str(path), "hash")["value"].to_pylist()
    assert values == [letter * 64 for letter in "abc"]


@pytest.mark.parametrize(
    ("kind", "text", "seen"),
    [
        ("url", "example.com/a.jpg", "entry 1 is 'example.com/a.jpg', expected an http"),
        ("hash", "a" * 64 + "\nabc", "entry 2 is 'abc', expected a sha256"),
        ("pair_id", "xyz", "expected 32 hex digits"),
        ("pair_id", "\n", "lists nothing"),
    ],
)
def test_a_list_of_something_else_is_refused(tmp_path, kind, text, seen):
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(InputError, match=seen):
        removals.read_list(str(path), kind)


def test_in_a_bucket(original, tmp_path, s3_bucket):
    remote = Workspace(root=f"{s3_bucket}/W")
    for path in storage.list_inside(original.root):
        storage.write_bytes(
            remote.path(path.removeprefix(original.root).lstrip("/")), storage.read_bytes(path)
        )
    local = Workspace(root=str(tmp_path / "W"))
    shutil.copytree(original.root, local.root)
    for workspace in (remote, local):
        by_pair_id(workspace, tmp_path, 1, 5, 9)
    assert remote.finished("shard").tables == local.finished("shard").tables
    assert faults(remote.root) == []
    pack(remote, 5)
    assert remote.finished("shard").tables == local.finished("shard").tables
