import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train.samples.shard_cache
from pipeline.errors import StorageError
from pipeline.runtime import storage
from tests.conftest import ROOT
from train.samples.shard_cache import CHECKSUM_BYTES, ShardCache, fetch_range, look_at
from train.stream import LOCATED

BLOCK = 1000
HELD = BLOCK + CHECKSUM_BYTES


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


class Store:
    """Files somewhere else, and what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **files: bytes) -> None:
        self.files = files
        self.asked: Counter[tuple[str, int]] = Counter()
        self.before: Callable[[], None] = lambda: None
        monkeypatch.setattr(
            train.samples.shard_cache,
            "look_at",
            lambda path: train.samples.shard_cache.RemoteFile(
                path=path, size=len(self.files[path]), version=str(hash(self.files[path]))
            ),
        )

    def fetch(self, path: str, offset: int, length: int) -> bytes:
        self.asked[path, offset] += 1
        self.before()
        return self.files[path][offset : offset + length]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch, a=content(10_500), b=content(3000, 1), c=b"")


def cache(tmp_path: Path, store: Store, blocks: int = 100) -> ShardCache:
    return ShardCache(
        str(tmp_path / "cache"), limit=blocks * HELD, block_bytes=BLOCK, fetch=store.fetch
    )


def held(tmp_path: Path) -> list[Path]:
    return sorted(p for p in (tmp_path / "cache").iterdir() if p.name != "used")


def used(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in held(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    ranges=st.lists(st.tuples(st.integers(0, 11_000), st.integers(0, 4000)), max_size=8),
    blocks=st.integers(0, 12),
)
def test_what_is_read_is_what_the_file_holds(
    ranges: list[tuple[int, int]], blocks: int, store: Store, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        some = cache(Path(folder), store, blocks)
        for offset, length in ranges:
            assert some.read("a", offset, length) == store.files["a"][offset : offset + length]
            assert used(Path(folder)) <= some.limit
        some.close()


def test_a_block_is_fetched_once_by_many_threads_and_by_later_caches(
    store: Store, tmp_path: Path
) -> None:
    store.before = lambda: time.sleep(0.02)
    some = cache(tmp_path, store)
    with ThreadPoolExecutor(16) as pool:
        read = list(pool.map(lambda i: some.read("a", i * 37, 50), range(200)))
    assert read == [store.files["a"][i * 37 : i * 37 + 50] for i in range(200)]
    other = cache(tmp_path, store)
    assert other.read("a", 0, 7000) == store.files["a"][:7000]
    assert set(store.asked.values()) == {1}
    assert [path.suffix for path in held(tmp_path)] == [""] * 8


def test_the_limit_holds_and_what_lay_unused_longest_goes(store: Store, tmp_path: Path) -> None:
    some = cache(tmp_path, store, blocks=4)
    for number in range(10):
        assert some.read("a", number * BLOCK, BLOCK) == store.files["a"][number * BLOCK :][:BLOCK]
        assert used(tmp_path) <= 4 * HELD
        # Times of files may be no finer than this.
        time.sleep(0.01)
    store.asked.clear()
    some.read("a", 9 * BLOCK, BLOCK)
    assert not store.asked
    some.read("a", 0, BLOCK)
    assert store.asked == {("a", 0): 1}


def test_without_room_bytes_are_read_all_the_same(store: Store, tmp_path: Path) -> None:
    some = cache(tmp_path, store, blocks=0)
    assert some.read("a", 500, 2000) == store.files["a"][500:2500]
    assert held(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "longer"])
def test_a_damaged_block_is_noticed_and_fetched_again(
    store: Store, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache(tmp_path, store).read("a", 0, BLOCK)
    (path,) = held(tmp_path)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    wrong = {"cut": data[:-5], "flipped": data, "empty": b"", "longer": data + b"x"}[damage]
    path.write_bytes(wrong)
    assert cache(tmp_path, store).read("a", 0, BLOCK) == store.files["a"][:BLOCK]
    assert store.asked == {("a", 0): 2}
    assert "is damaged; it is fetched again" in capsys.readouterr().err.replace("\n", "")


def test_a_file_that_changed_is_another_file(store: Store, tmp_path: Path) -> None:
    cache(tmp_path, store).read("a", 0, BLOCK)
    store.files["a"] = content(10_500, 5)
    assert cache(tmp_path, store).read("a", 0, BLOCK) == store.files["a"][:BLOCK]


def test_a_block_that_cannot_be_fetched_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def fail() -> None:
        raise StorageError("the network is gone")

    some = cache(tmp_path, store)
    store.before = fail
    with pytest.raises(StorageError, match="gone"):
        some.read("a", 0, 5)
    assert held(tmp_path) == []
    store.before = lambda: None
    assert some.read("a", 0, 5) == store.files["a"][:5]


def test_a_ledger_that_makes_no_sense_is_counted_anew(store: Store, tmp_path: Path) -> None:
    some = cache(tmp_path, store, blocks=4)
    some.read("a", 0, 3 * BLOCK)
    (tmp_path / "cache" / "used").write_bytes(b"\0garbage")
    some.read("a", 3 * BLOCK, 3 * BLOCK)
    assert used(tmp_path) <= 4 * HELD


def test_blocks_are_read_ahead(store: Store, tmp_path: Path) -> None:
    some = cache(tmp_path, store)
    columns = [["1", "2", "3"], ["a", "b", "a"], [""] * 3, [900, 0, 5000], [200, 10, 0]]
    table = pa.table(columns, schema=LOCATED)
    assert some.blocks(table) == [("a", 0), ("a", 1), ("b", 0)]
    some.read_ahead(some.blocks(table))
    for _ in range(500):
        if len(held(tmp_path)) == 3 and not any(p.suffix for p in held(tmp_path)):
            break
        time.sleep(0.01)
    store.asked.clear()
    some.read("a", 900, 200)
    assert not store.asked
    some.close()


def test_a_failure_of_reading_ahead_is_met_by_the_reader(store: Store, tmp_path: Path) -> None:
    def fail() -> None:
        raise StorageError("the network is gone")

    store.before = fail
    some = cache(tmp_path, store)
    some.read_ahead([("a", 0)])
    some.close()
    with pytest.raises(StorageError, match="gone"):
        some.read("a", 0, 5)


READER = """
import sys, time
from train.samples.shard_cache import ShardCache, fetch_range
folder, url, limit, slow = sys.argv[1:]
def fetch(path, offset, length):
    data = fetch_range(path, offset, length)
    print("fetched", offset, flush=True)
    time.sleep(float(slow))
    return data
cache = ShardCache(folder, limit=int(limit), block_bytes=1000, fetch=fetch)
for turn in range(3):
    for start in range(0, 20_000, 700):
        data = cache.read(url, start, 700)
        print(start, data.hex(), flush=True)
"""


def reader(tmp_path: Path, url: str, limit: int, slow: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", READER, str(tmp_path / "cache"), url, str(limit), str(slow)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def check(output: str, data: bytes) -> int:
    lines = [line.split() for line in output.splitlines()]
    for start, read in (line for line in lines if line[0] != "fetched"):
        assert bytes.fromhex(read) == data[int(start) : int(start) + 700]
    return sum(line[0] == "fetched" for line in lines)


def test_processes_share_a_cache_of_a_bucket_within_its_limit(
    s3_bucket: str, tmp_path: Path
) -> None:
    url, data = f"{s3_bucket}/shard.tar", content(20_000)
    storage.write_bytes(url, data)
    readers = [reader(tmp_path, url, 100 * HELD) for _ in range(3)]
    fetched = [check(some.communicate(timeout=120)[0], data) for some in readers]
    assert [some.returncode for some in readers] == [0] * 3
    assert sum(fetched) == 20
    # And with less room than the file takes, each meets blocks that the others removed.
    readers = [reader(tmp_path, url, 7 * HELD) for _ in range(3)]
    for some in readers:
        check(some.communicate(timeout=120)[0], data)
        assert some.returncode == 0
    assert used(tmp_path) <= 7 * HELD


def test_a_killed_process_leaves_a_cache_that_others_use(s3_bucket: str, tmp_path: Path) -> None:
    url, data = f"{s3_bucket}/shard.tar", content(20_000)
    storage.write_bytes(url, data)
    killed = reader(tmp_path, url, 100 * HELD, slow=1.0)
    assert killed.stdout is not None
    # The second block: the line comes while it is under way.
    while "fetched 1000" not in killed.stdout.readline():
        pass
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert any(path.suffix == ".part" for path in held(tmp_path))
    other = reader(tmp_path, url, 100 * HELD)
    check(other.communicate(timeout=120)[0], data)
    assert other.returncode == 0
    assert not any(path.suffix == ".part" for path in held(tmp_path))
    # What it had begun and nobody wants any more goes when room is needed.
    (tmp_path / "cache" / "left.part").write_bytes(bytes(50 * HELD))
    small = ShardCache(str(tmp_path / "cache"), limit=21 * HELD, block_bytes=BLOCK)
    storage.write_bytes(f"{s3_bucket}/other.tar", data)
    small.read(f"{s3_bucket}/other.tar", 0, 3000)
    assert used(tmp_path) <= 21 * HELD
    assert "left.part" not in [path.name for path in held(tmp_path)]
    small.close()


def test_passing_failures_of_a_bucket_are_tried_again(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3_bucket}/shard.tar"
    storage.write_bytes(url, b"0123456789")
    monkeypatch.setattr(train.samples.shard_cache, "FIRST_PAUSE_S", 0.0)
    opened = train.samples.shard_cache._opened
    failures = iter([OSError("reset"), OSError("reset")])

    def open_badly(path: str) -> pa.NativeFile:
        if (failure := next(failures, None)) is not None:
            raise failure
        return opened(path)

    open_badly.cache_clear = opened.cache_clear  # type: ignore[attr-defined]
    monkeypatch.setattr(train.samples.shard_cache, "_opened", open_badly)
    assert fetch_range(url, 3, 4) == b"3456"
    with pytest.raises(StorageError, match="came"):
        fetch_range(url, 8, 4)


def test_a_file_that_is_not_there_is_one_line(s3_bucket: str) -> None:
    with pytest.raises(StorageError, match="not there"):
        look_at(f"{s3_bucket}/missing.tar")


def test_reading_ahead_goes_on_behind_what_lies_beyond_a_files_end(
    tmp_path: Path, store: Store
) -> None:
    some = cache(tmp_path, store)
    some.read_ahead([("b", 50)] * 20 + [("b", 0)])
    deadline = time.monotonic() + 10
    while not held(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    some.close()
    assert len(held(tmp_path)) == 1
    assert set(store.asked) == {("b", 0)}
