import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import CorruptWorkspace, InputError, MissingInput
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.shards.verify import FAULTS_SHOWN, verify
from tests.pipeline.shards.corpora import image, kept, pack


def faults(place, **options) -> list[str]:
    return [f for report in verify(str(place), InlineExecutor(), **options) for f in report.faults]


@pytest.fixture
def packed(tmp_path):
    workspace = kept(tmp_path / "W", 7, 5, keyed=True)
    pack(workspace, 5)
    return workspace


@pytest.fixture
def folder(packed, tmp_path) -> Path:
    """What somebody gets who gets tars, indexes and stats alone."""
    target = tmp_path / "given"
    target.mkdir()
    for path in Path(packed.path("shard")).glob("0*"):
        shutil.copy(path, target)
    return target


def members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar]


def rewrite(path: Path, content: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_shards_are_as_they_were_written(packed, folder, executor: Executor):
    for place in (packed.root, packed.path("shard"), str(folder)):
        reports = list(verify(place, executor, decode=True))
        assert [fault for report in reports for fault in report.faults] == []
        assert sum(report.samples for report in reports) == 12
        assert sum(report.bytes for report in reports) == sum(
            path.stat().st_size for path in Path(packed.path("shard")).glob("*.tar")
        )


def test_after_other_work_in_the_workspace_they_still_are(packed):
    Path(packed.path("download/images/00000.tar")).unlink()
    assert faults(packed.root) == []


def test_every_single_bit_counts(packed, folder):
    for path in (Path(packed.path("shard/00001.tar")), folder / "00001.tar"):
        whole = path.read_bytes()
        for place in range(0, len(whole), 997):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(changed)
            found = faults(path.parent)
            assert found, place
            assert all("00001" in fault for fault in found)
        path.write_bytes(whole)
    assert faults(folder) == []


def test_a_missing_member_is_named(folder):
    path = folder / "00000.tar"
    rewrite(path, [m for m in members(path) if m[0] != "000000002.txt"])
    found = faults(folder)
    assert "00000.tar: 000000002.txt is missing" in found
    assert any("lies at byte" in fault for fault in found)
    assert any("sha256 differs" in fault or "bytes, expected" in fault for fault in found)


def test_a_member_that_is_too_many_is_named(folder):
    path = folder / "00000.tar"
    rewrite(path, [*members(path), ("000000009.txt", b"spare"), ("000000001.txt", b"again")])
    found = faults(folder)
    assert "00000.tar: 000000009.txt is not in the index" in found
    assert "00000.tar: 000000001.txt is there more than once" in found


def test_members_in_another_order_are_named(folder):
    path = folder / "00000.tar"
    content = members(path)
    rewrite(path, [*content[3:], *content[:3]])
    assert any("000000000.txt stands behind members" in fault for fault in faults(folder))


def test_a_tar_that_was_cut_short_is_named(folder):
    path = folder / "00001.tar"
    path.write_bytes(path.read_bytes()[:-2000])
    found = faults(folder)
    assert any("it is cut short" in fault for fault in found)
    assert any("bytes, expected" in fault for fault in found)


@pytest.mark.parametrize(
    ("suffix", "content", "seen"),
    [
        ("txt", b"another caption", "000000003.txt is not the caption that the index has"),
        ("json", b"[]", "000000003.json is no JSON object"),
        ("json", b"{", "000000003.json is no JSON object"),
        ("json", b"{}", "000000003.json differs from the index in"),
        (None, b"<html>", "does not begin as such a picture"),
        (None, image(77), "does not begin as such a picture|pixels, the index says"),
    ],
)
def test_content_that_is_not_the_index_s_is_named(folder, suffix, content, seen):
    path = folder / "00000.tar"
    changed = [
        (name, content if name.startswith("000000003.") and _is_kind(name, suffix) else data)
        for name, data in members(path)
    ]
    rewrite(path, changed)
    found = faults(folder)
    assert any(part in fault for fault in found for part in seen.split("|")), found


def _is_kind(name: str, suffix: str | None) -> bool:
    return name.endswith(f".{suffix}") if suffix else not name.endswith((".txt", ".json"))


def test_a_changed_value_in_the_metadata_is_named(folder):
    path = folder / "00000.tar"
    content = dict(members(path))
    known = json.loads(content["000000000.json"])
    known["url"], known["extra"] = "http://elsewhere.example/", 1
    content["000000000.json"] = json.dumps(known).encode()
    rewrite(path, list(content.items()))
    assert "00000.tar: 000000000.json differs from the index in extra, url" in faults(folder)


def test_a_picture_that_only_begins_as_one_is_found_by_decoding(folder):
    path = folder / "00000.tar"
    content = dict(members(path))
    name = next(name for name in content if name.endswith(".jpg"))
    content[name] = content[name][:-30] + bytes(30)
    rewrite(path, list(content.items()))
    assert not any("cannot be decoded" in fault for fault in faults(folder))
    assert any(f"{name} cannot be decoded" in fault for fault in faults(folder, decode=True))


def test_a_shard_that_is_gone_is_named(packed, folder):
    (folder / "00001.tar").unlink()
    assert faults(folder) == ["00001.tar is missing: 00002.tar follows in its place"]
    Path(packed.path("shard/00001.tar")).unlink()
    found = faults(packed.root)
    assert any("00001.tar" in fault and "cannot read" in fault for fault in found)


def test_an_index_that_is_gone_or_none_is_named(folder):
    (folder / "00000.parquet").unlink()
    (folder / "00001.parquet").write_bytes(b"PAR1 no")
    table = pq.read_table(folder / "00002.parquet")
    pq.write_table(table.drop_columns("image_offset"), folder / "00002.parquet")
    found = faults(folder)
    assert len(found) == 3
    assert any("00000.parquet" in fault and "cannot read" in fault for fault in found)
    assert any("00001.parquet cannot be read as Parquet" in fault for fault in found)
    assert any("00002.parquet is no index of a shard: image_offset" in fault for fault in found)


def test_stats_that_are_gone_or_count_otherwise_are_named(folder):
    (folder / "00000_stats.json").unlink()
    stats = json.loads((folder / "00001_stats.json").read_text())
    (folder / "00001_stats.json").write_text(json.dumps(stats | {"count": 4}))
    (folder / "00002_stats.json").write_text("[")
    found = faults(folder)
    assert any("nothing says what its sha256 should be" in fault for fault in found)
    assert any("counts 4 samples, the index has 5" in fault for fault in found)
    assert any("00002_stats.json cannot be read" in fault for fault in found)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"count":5,"tar_bytes":1e400,"tar_sha256":""}', "5"]
)
def test_stats_that_are_hostile_are_a_fault(folder, text):
    (folder / "00000_stats.json").write_text(text)
    found = faults(folder)
    assert len(found) == 1
    assert "00000_stats.json cannot be read" in found[0]


@pytest.mark.parametrize("place", ["", "shard"])
def test_a_manifest_that_is_nested_without_end_is_refused(packed, place):
    Path(packed.path("shard/manifest.json")).write_text("[" * 200_000)
    with pytest.raises(CorruptWorkspace, match="cannot be read as a manifest"):
        faults(packed.path(place))


@pytest.mark.parametrize("table", ["tars", "main", "stats", "shards"])
@pytest.mark.parametrize(
    "name", ["../../00000.tar", "/etc/00000.tar", "s3://b/00000.tar", "shard/.."]
)
def test_a_manifest_names_nothing_outside_its_folder(packed, folder, table, name):
    manifest = json.loads(Path(packed.path("shard/manifest.json")).read_text())
    manifest["tables"][table][0]["path"] = name
    for path in (folder / "manifest.json", Path(packed.path("shard/manifest.json"))):
        path.write_text(json.dumps(manifest))
    for place in (folder, packed.root):
        with pytest.raises(CorruptWorkspace, match=r"names '.*', expected files of shard alone"):
            faults(place)


def test_an_index_of_another_shard_s_samples_is_named(folder):
    table = pq.read_table(folder / "00000.parquet")
    names = pa.array(["shard/00001.tar"] * len(table))
    table = table.set_column(table.schema.get_field_index("shard"), "shard", names)
    pq.write_table(table, folder / "00000.parquet")
    assert faults(folder) == ["00000.tar: the index has samples of shard/00001.tar"]


def test_what_the_manifest_does_not_know_is_named(packed):
    shutil.copy(packed.path("shard/00000.tar"), packed.path("shard/00009.tar"))
    assert [f for f in faults(packed.root) if "is not in the manifest" in f]


def test_a_changed_record_of_the_shards_is_named(packed):
    path = Path(packed.path("shard/shards/00001.parquet"))
    path.write_bytes(path.read_bytes()[::-1])
    assert [f for f in faults(packed.root) if "shards/00001.parquet is corrupted" in f]


def test_of_a_shard_that_is_all_wrong_some_faults_are_told_and_all_counted(tmp_path):
    workspace = kept(tmp_path, 40)
    pack(workspace, 40)
    path = Path(workspace.path("shard/00000.tar"))
    rewrite(path, [(f"x{name}", data) for name, data in members(path)])
    report = next(iter(verify(workspace.root, InlineExecutor())))
    assert len(report.faults) == FAULTS_SHOWN
    assert report.count > 120


def test_what_holds_no_shards_is_refused(tmp_path, workspace):
    with pytest.raises(InputError, match="does not exist"):
        faults(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a workspace nor does it hold shards"):
        faults(tmp_path / "empty")
    workspace.prepare()
    with pytest.raises(MissingInput, match="run `witmill shard`"):
        faults(workspace.root)
