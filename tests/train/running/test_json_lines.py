import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.runtime import storage
from train.running.json_lines import JsonLines, read_json_lines

WRITE_AND_DIE = """
import os, signal, sys
from train.running.json_lines import JsonLines
lines = JsonLines(sys.argv[1], until=0)
for step in range(1, 8):
    lines.add({"step": step})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_line_added_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    root = str(Path(__file__).parents[3])
    env = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", WRITE_AND_DIE, str(path)]
    assert subprocess.run(command, env=env, check=False).returncode == -signal.SIGKILL
    assert [line["step"] for line in read_json_lines(str(path))] == list(range(1, 8))


def test_going_on_cuts_what_came_later_and_what_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}\n{"step": 20, "x": 1}\n{"step": 30}\n{"st')
    lines = JsonLines(str(path), until=20)
    lines.add({"step": 30, "again": True})
    lines.close()
    assert path.read_text() == (
        '{"step": 10}\n{"step": 20}\n{"step": 20, "x": 1}\n{"step": 30, "again": true}\n'
    )


def test_a_last_line_cut_short_goes_although_its_step_would_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 20}')
    JsonLines(str(path), until=20).close()
    assert path.read_text() == '{"step": 10}\n'


def test_a_run_from_the_start_begins_with_no_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n')
    JsonLines(str(path), until=0).close()
    assert path.read_bytes() == b""


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(str(path), until=0)
    lines.add({"step": 1, "loss": math.nan, "gradient_norm": math.inf, "mfu": None})
    assert json.loads(path.read_text()) == {
        "step": 1,
        "loss": None,
        "gradient_norm": None,
        "mfu": None,
    }


def test_an_object_store_has_the_lines_once_they_are_flushed(s3_bucket: str) -> None:
    path = f"{s3_bucket}/run/metrics.jsonl"
    lines = JsonLines(path, until=0)
    lines.add({"step": 1})
    lines.flush()
    lines.add({"step": 2})
    assert storage.read_bytes(path) == b'{"step": 1}\n'
    lines.close()
    again = JsonLines(path, until=1)
    again.add({"step": 2, "again": True})
    again.close()
    assert storage.read_bytes(path) == b'{"step": 1}\n{"step": 2, "again": true}\n'


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "metrics.jsonl"
    lines = JsonLines(str(path), until=0)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*metrics\.jsonl"):
        lines.add({"step": 1})
