import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

import train.samples.sample_reader
import train.samples.shard_cache
from pipeline.errors import StorageError
from pipeline.pictures.images import ImageRefused
from pipeline.runtime import storage
from train.samples.sample_reader import SampleReader
from train.samples.shard_cache import ShardCache
from train.stream import LOCATED, Sample


def at(path: str, offset: int, length: int) -> Sample:
    return Sample(
        pair_id="0",
        source="data",
        shard=path,
        caption="",
        image_offset=offset,
        image_length=length,
        epoch=0,
    )


def test_many_threads_read_more_files_than_are_held_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.samples.sample_reader, "OPEN_FILES", 3)
    for i in range(20):
        (tmp_path / f"{i}.tar").write_bytes(b"%08d" % i * 100)
    reader = SampleReader(None)
    start = threading.Barrier(8)

    def read(worker: int) -> list[bytes]:
        start.wait()
        return [reader.read(at(str(tmp_path / f"{i % 20}.tar"), 8 * i, 8)) for i in range(90)]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read, range(8)):
            assert found == [b"%08d" % (i % 20) for i in range(90)]
    reader.close()


def test_bytes_that_are_not_there_refuse_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    path.write_bytes(b"0123456789")
    reader = SampleReader(None)
    for sample, reason in (
        (at(str(path), 8, 5), "truncated_image"),
        (at(str(tmp_path / "1.tar"), 0, 5), "missing_file"),
        (at(str(path), 0, 0), "no_picture"),
    ):
        with pytest.raises(ImageRefused) as refusal:
            reader.read(sample)
        assert refusal.value.reason == reason
    with pytest.raises(StorageError, match="cannot read"):
        reader.read(at(str(path / "below"), 0, 5))


def located(path: str, count: int) -> pa.Table:
    columns = [["0"] * count, [path] * count, [""] * count, [50 * i for i in range(count)]]
    return pa.table([*columns, [50] * count], schema=LOCATED)


@pytest.mark.parametrize("blocks", [0, 3, 100])
def test_remote_samples_come_through_the_cache_if_two_windows_fit(
    s3_bucket: str, tmp_path: Path, blocks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{s3_bucket}/0.tar"
    data = bytes(range(250)) * 20
    storage.write_bytes(url, data)
    cache = ShardCache(str(tmp_path), limit=blocks * 1016, block_bytes=1000) if blocks else None
    reader = SampleReader(cache)
    reader.read_ahead([located(url, 80)])
    read = [reader.read(at(url, 50 * i, 50)) for i in range(80)]
    assert read == [data[50 * i : 50 * i + 50] for i in range(80)]
    reader.close()
    names = {path.name for path in tmp_path.iterdir()} - {"used"}
    assert len(names) == (4 if blocks == 100 else 0)
    told = capsys.readouterr().err.replace("\n", " ")
    assert ("do not hold two shuffle windows" in told) == (blocks == 3)


def test_a_remote_sample_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.samples.shard_cache, "FIRST_PAUSE_S", 0.0)
    with pytest.raises(StorageError):
        SampleReader(None).read(at("nosuch://bucket/0.tar", 0, 5))
