import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.fetching import host_pace
from pipeline.fetching.host_pace import HostPace, machine_pace


@pytest.fixture
def pace(tmp_path) -> HostPace:
    return HostPace(tmp_path / "pace")


def test_turns_of_a_host_lie_apart(pace):
    begun = time.monotonic()
    turns = [pace.reserve("h.example", 0.5) for _ in range(4)]
    assert turns[0] - begun < 0.2
    assert [b - a for a, b in pairwise(turns)] == pytest.approx([0.5] * 3)


def test_another_host_is_free(pace):
    pace.reserve("h.example", 100)
    assert pace.reserve("o.example", 100) <= time.monotonic()


def test_a_closed_host_gives_no_turn_before_its_time(pace):
    pace.close("h.example", 5)
    pace.close("h.example", 1)
    assert 4 < pace.seconds_closed("h.example") <= 5
    assert pace.reserve("h.example", 1) > time.monotonic() + 4
    assert pace.seconds_closed("o.example") == 0


def reserve_some(path, count):
    pace = HostPace(path)
    return [pace.reserve("h.example", 0.01) for _ in range(count)]


def test_processes_keep_to_one_pace(tmp_path):
    path = tmp_path / "pace"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(reserve_some, [(path, 300)] * 2, chunksize=1)
    turns = sorted(found[0] + found[1])
    gaps = [b - a for a, b in pairwise(turns)]
    assert min(gaps) >= 0.01 - 1e-6


@pytest.mark.parametrize("left", [float("nan"), float("inf"), 1e300])
def test_times_of_another_start_are_not_waited_for(tmp_path, left):
    path = tmp_path / "pace"
    path.write_bytes(struct.pack("d", left) * (1 << 20))
    pace = HostPace(path)
    assert pace.seconds_closed("h.example") == 0
    assert pace.reserve("h.example", 1) <= time.monotonic()


def test_a_file_that_leads_elsewhere_is_not_used(tmp_path):
    (tmp_path / "pace").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="cannot be used"):
        HostPace(tmp_path / "pace")
    assert not (tmp_path / "victim").exists()


def test_a_file_of_two_names_is_not_used(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "pace").hardlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="something else under this name, too"):
        HostPace(tmp_path / "pace")
    assert (tmp_path / "victim").read_text() == "mine"


def test_the_memory_is_set_aside_before_it_is_used(tmp_path):
    HostPace(tmp_path / "pace")
    assert (tmp_path / "pace").stat().st_blocks * 512 >= 8 << 20


def test_where_there_is_no_room_it_is_said(tmp_path):
    code = f"""
import resource
from pathlib import Path
from pipeline.fetching.host_pace import HostPace
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
HostPace(Path({str(tmp_path / "pace")!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot be used: File too large; make room for 8 MB, or remove it" in done.stderr


@pytest.mark.parametrize(
    ("writable", "folder"), [(["run", "shm"], "/run/user/7"), (["shm"], "/dev/shm"), ([], "/tmp")]
)
def test_the_pace_lies_where_nobody_else_can_take_its_name(writable, folder, monkeypatch):
    monkeypatch.setattr(host_pace, "HostPace", lambda path: path)
    monkeypatch.setattr(os, "getuid", lambda: 7)
    monkeypatch.setattr(os, "access", lambda path, _: any(name in str(path) for name in writable))
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    path = machine_pace.__wrapped__()
    assert path.parent == Path(folder)
    assert path.name.startswith("witmill-pace-7-")


def test_all_of_a_machine_share_one_pace():
    assert machine_pace() is machine_pace()
