"""Killed and resumed, with any number of workers, on Ray: the same bytes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Demo, Example, environment

# Each with how many finished tasks to wait for before the kill.
KILLED_IN = {
    "ingest": 1,
    "match": 0,
    "balance": 2,
    "download": 1,
    "dedup": 3,
    "shard": 1,
    "train": 0,
}


def receipts(folder: Path) -> int:
    return len(list(folder.glob("_run/receipts/*.json")))


def kill_in(stage: str, command: list[str], workspace: Path) -> None:
    """Start the demo and SIGKILL it, with all its workers, in the middle of `stage`."""
    folder = workspace / stage
    process = subprocess.Popen(
        command,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    begun = folder / "_run/begun.json"
    while not begun.exists() or receipts(folder) < KILLED_IN[stage]:
        assert process.poll() is None, f"the demo ended before {stage}"
        time.sleep(0.002)
    if stage == "train":
        while not list(folder.glob("checkpoints/*")):
            time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "manifest.json").exists()


def test_killed_in_many_stages_the_end_is_the_same(
    example: Example, demo: Demo, check_same_as_demo: Callable[[Path], None], tmp_path: Path
) -> None:
    workspace = tmp_path / "killed"
    for stage in KILLED_IN:
        kill_in(stage, example.command(workspace, "--workers", "2"), workspace)
    example.run(workspace, "--workers", "2")
    check_same_as_demo(workspace)
    left = [p for p in workspace.rglob("*") if p.name == "_run" or p.name.endswith(".part")]
    assert left == []


@pytest.mark.parametrize(
    "options",
    [
        ("--workers", "1"),
        ("--workers", "4"),
        pytest.param(("--executor", "ray", "--workers", "2"), marks=pytest.mark.ray),
    ],
    ids=" ".join,
)
def test_neither_workers_nor_executor_matter(
    example: Example,
    demo: Demo,
    check_same_as_demo: Callable[[Path], None],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    example.run(tmp_path / "other", *options)
    check_same_as_demo(tmp_path / "other")
