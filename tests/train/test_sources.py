import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, MissingInput, WitmillError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.conftest import ROOT
from tests.train.foreign import sample, tar_bytes, tar_of_samples
from tests.train.shards import coloured_pairs
from train.config import TrainConfig
from train.sources import TrainingData, open_path, open_sources, open_training_data, open_workspace
from train.stream import Sample, ShardStream

Finish = Callable[..., Manifest]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home/witmill"


def met(data: TrainingData | str, count: int, window: int = 8) -> list[Sample]:
    with ShardStream(data, batch_size=1, seed=0, window=window) as stream:
        return [found for batch in islice(stream, count) for found in batch.samples]


def read(data: TrainingData) -> dict[str, tuple[str, bytes]]:
    with data:
        return {s.pair_id: (s.caption, data.read(s)) for s in met(data, data.samples)}


def write_tars(folder: Path, *counts: int) -> Path:
    folder.mkdir()
    for i, count in enumerate(counts):
        (folder / f"{i:02d}.tar").write_bytes(tar_of_samples(f"{i}-", count))
    return folder


def test_a_stranger_reads_tars_in_five_lines(tmp_path: Path) -> None:
    write_tars(tmp_path / "tars", 5, 3)
    code = """
from itertools import islice
from train.stream import ShardStream

with ShardStream("tars/{00..01}.tar", batch_size=4, seed=0, window=10_000) as stream:
    for batch in islice(stream, 2):
        pairs = [(stream.read(sample), sample.caption) for sample in batch.samples]
        print(len(pairs), pairs[0])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("4 (b'picture ") for line in lines)


def test_the_workspace_is_what_training_reads_unless_told_otherwise(
    workspace: Workspace, finish_shards: Finish
) -> None:
    pairs = coloured_pairs(10)
    manifest = finish_shards(pairs, per_shard=4)
    with open_training_data(TrainConfig(), workspace) as data:
        assert (data.samples, data.reads, data.files) == (10, ["shard"], {})
        assert data.describe() == []
    assert sorted(read(data).values()) == sorted((caption, image) for image, caption in pairs)
    assert manifest.rows_out == 10
    with open_training_data(TrainConfig(where="caption LIKE '%red%'"), workspace) as red:
        assert red.samples == 3
    assert all("red" in caption for caption, _ in read(red).values())


def test_without_shards_training_says_what_to_run(workspace: Workspace) -> None:
    workspace.prepare()
    with pytest.raises(MissingInput, match="witmill shard"):
        open_training_data(TrainConfig(), workspace)


SOURCES = """
[wit]
path = "workspace"
[tars]
path = "tars/*.tar"
weight = 0.5
where = "CAST(metadata->>'width' AS INTEGER) < 110"
[pets]
path = "pets"
weight = 2
prompts = ["a photo of a {label}.", "the {label}"]
labels = { cat = "cat|kitten" }
"""


def test_sources_of_all_kinds_are_mixed_by_weight(
    workspace: Workspace, finish_shards: Finish, tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(6))
    write_tars(tmp_path / "tars", 14, 4)
    for name in ("cat/1.jpg", "dog/2.jpg"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True)
        (tmp_path / "pets" / name).write_bytes(name.encode())
    (tmp_path / "sources.toml").write_text(SOURCES)
    data = open_training_data(TrainConfig(sources=str(tmp_path / "sources.toml")), workspace)
    assert data.samples == 6 + 7 + 4
    assert data.reads == []
    samples = met(data, 4 * 17)
    counts = Counter((found.source, found.pair_id) for found in samples)
    assert Counter(source for source, _ in counts) == {"wit": 6, "tars": 14, "pets": 2}
    times = {"wit": 4, "tars": 2, "pets": 8}
    assert all(count == times[source] for (source, _), count in counts.items())
    pets = {s.caption for s in samples if s.source == "pets"}
    assert pets <= {
        f"{start}{name}{end}"
        for start, end in (("a photo of a ", "."), ("the ", ""))
        for name in ("cat", "kitten", "dog")
    }
    assert len(pets) > 3
    for found in samples:
        expected = found.pair_id if found.source == "pets" else f"picture {found.pair_id}"
        assert found.source == "wit" or data.read(found) == expected.encode()
    # No turn of a source ends before each of its samples was met.
    turns = Counter((s.source, s.epoch, s.pair_id) for s in samples)
    assert set(turns.values()) == {1}
    data.close()


# webdataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_three_tars_that_webdataset_wrote_feed_two_ranks_of_eight_workers(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is part of extra download")
    for number, count in enumerate((9, 2, 14)):
        with webdataset.TarWriter(str(tmp_path / f"{number}.tar")) as tar:
            for i in range(count):
                key = f"{number}/{i:04d}"
                tar.write({"__key__": key, "jpg": os.urandom(300 + i), "txt": f"text {key}"})
    pattern = str(tmp_path / "{0..2}.tar")
    expected = {
        found["__key__"]: (found["txt"].decode(), found["jpg"])
        for found in webdataset.WebDataset(pattern, shardshuffle=False)
    }
    gc.collect()
    batches: dict[tuple[int, int], list[Sample]] = {}
    with open_path(pattern) as data:
        for rank in range(2):
            for worker in range(8):
                how = {"rank": rank, "world_size": 2, "worker": worker, "workers": 8}
                with ShardStream(data, batch_size=5, window=10, **how) as stream:
                    for turn, batch in enumerate(islice(stream, 5)):
                        batches[8 * turn + worker, rank] = list(batch.samples)
        samples = [found for place in sorted(batches) for found in batches[place]]
        for epoch in range(8):
            of_epoch = samples[25 * epoch : 25 * (epoch + 1)]
            assert {s.pair_id: (s.caption, data.read(s)) for s in of_epoch} == expected


def test_what_a_stage_depends_on_changes_with_the_samples(
    workspace: Workspace, tmp_path: Path
) -> None:
    write_tars(tmp_path / "tars", 5)
    (tmp_path / "sources.toml").write_text('[tars]\npath = "tars"\n')
    config = TrainConfig(sources=str(tmp_path / "sources.toml"))

    def stamps() -> dict[str, storage.FileStamp]:
        with open_training_data(config, workspace) as data:
            return {name: storage.stamp(path) for name, path in data.files.items()}

    before = stamps()
    assert set(before) == {"sources", "source tars"}
    assert stamps() == before
    (tmp_path / "tars/00.tar").write_bytes(tar_of_samples("0-", 60))
    assert stamps() != before


def test_captions_are_given_without_pictures_on_request(tmp_path: Path) -> None:
    members = [*sample("1", "one"), ("2.txt", b"two"), *sample("3")]
    (tmp_path / "0.tar").write_bytes(tar_bytes(members))
    with open_path(str(tmp_path / "0.tar"), pictures=False) as data:
        found = {s.caption: s.image_length for s in met(data, data.samples)}
    assert found == {"one": 0, "two": 0}
    with open_path(str(tmp_path / "0.tar")) as data:
        assert [s.caption for s in met(data, data.samples)] == ["one"]
        (line,) = data.describe()
    assert line.startswith("data: 2 samples are left out: no_caption 1, no_picture 1; the first: ")


def test_remote_tars_are_read_through_the_cache(
    s3_bucket: str, tmp_path: Path, cache: Path
) -> None:
    for path in write_tars(tmp_path / "tars", 5, 7).iterdir():
        storage.write_bytes(f"{s3_bucket}/{path.name}", path.read_bytes())
    local, remote = open_path(str(tmp_path / "tars")), open_path(s3_bucket)
    assert read(remote) == read(local)
    assert len(list((cache / "blocks").iterdir())) == 3
    with open_path(s3_bucket, cache_gib=0, cache=str(tmp_path / "other")) as direct:
        assert read(direct) == read(local)
    assert not (tmp_path / "other/blocks").exists()


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ('[x]\npath = "none"', "none does not exist"),
        ('[x]\npath = "tars"\nwhere = "widht > 3"', r"^source x: .*widht"),
        ('[x]\npath = "tars"\nwhere = "false"', "^source x: no sample meets"),
        ('[x]\npath = "tars"\nprompts = ["a {label}"]', "prompts is for folders of labelled"),
        ('[x]\npath = "empty.toml"', "a file stands where a folder is expected"),
    ],
)
def test_what_is_wrong_with_a_source_is_one_line(tmp_path: Path, text: str, seen: str) -> None:
    write_tars(tmp_path / "tars", 2)
    (tmp_path / "empty.toml").touch()
    (tmp_path / "sources.toml").write_text(text)
    with pytest.raises(WitmillError, match=seen) as error:
        open_sources(str(tmp_path / "sources.toml"))
    assert "\n" not in str(error.value)


def test_settings_that_contradict_each_other_are_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "sources.toml").write_text('[tars]\npath = "tars"\n')
    config = TrainConfig(sources=str(tmp_path / "sources.toml"), where="true")
    with pytest.raises(ConfigError, match=r"train\.where is given together with train\.sources"):
        open_training_data(config, workspace)
    with pytest.raises(ConfigError, match="expected a local folder"):
        open_workspace(workspace, cache="s3://bucket/cache")


def test_a_program_that_ends_does_not_wait_for_what_is_read_ahead(
    s3_bucket: str, tmp_path: Path
) -> None:
    storage.write_bytes(f"{s3_bucket}/0.tar", tar_of_samples("0-", 300))
    code = f"""
import time
import train.samples.shard_cache

fetch = train.samples.shard_cache.fetch_range
def slowly(path, offset, length):
    if offset:
        time.sleep(0.5)
    return fetch(path, offset, length)

train.samples.shard_cache.fetch_range = slowly
train.samples.shard_cache.ShardCache.__init__.__kwdefaults__["block_bytes"] = 2048
from train.stream import ShardStream
stream = ShardStream({s3_bucket!r}, batch_size=1, window=1000)
next(stream)
print(time.time(), flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    # Over 200 blocks by eight threads would take more than 12 s.
    assert time.time() - float(done.stdout) < 8
