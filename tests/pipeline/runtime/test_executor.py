import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, InputError, TaskFailed
from pipeline.runtime.executor import Executor, LocalExecutor, make_executor


def double(task: int) -> int:
    return 2 * task


def fail_on_seven(task: int) -> int:
    if task == 7:
        raise InputError("seven is bad")
    return task


def fail_until_the_third_try(folder: str) -> int:
    tries = len(list(Path(folder).iterdir()))
    (Path(folder) / str(tries)).touch()
    if tries < 2:
        raise ConnectionError(f"try {tries}")
    return tries


def kill_worker(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_every_executor_returns_every_result(executor: Executor) -> None:
    assert sorted(executor.map(double, range(20))) == [2 * i for i in range(20)]


def test_the_others_go_on_when_a_task_fails_and_it_is_named(executor: Executor) -> None:
    seen: list[int] = []
    with pytest.raises(TaskFailed, match=r"1 of 10 tasks failed \(7\): seven is bad") as caught:
        seen.extend(executor.map(fail_on_seven, range(10)))
    assert sorted(seen) == [i for i in range(10) if i != 7]
    assert isinstance(caught.value.__cause__, InputError)


def test_a_passing_fault_is_tried_again(executor: Executor, tmp_path: Path) -> None:
    assert list(executor.map(fail_until_the_third_try, [str(tmp_path)])) == [2]


def test_a_worker_that_dies_is_named_and_the_others_finish() -> None:
    results: list[int] = []
    death = pytest.raises(TaskFailed, match=r"1 of 6 tasks failed \(3\).*worker process died")
    with closing(LocalExecutor(2)) as executor, death:
        results.extend(executor.map(kill_worker, range(6)))
    assert sorted(results) == [0, 1, 2, 4, 5]


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from pipeline.runtime.executor import LocalExecutor\n"
        "def work(path):\n"
        "    pathlib.Path(path).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(LocalExecutor(1).map(work, [sys.argv[1]]))\n"
    )
    note = tmp_path / "pid"
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, str(script), str(note)], env={**os.environ, "PYTHONPATH": str(root)}
    )
    while not note.exists() or not note.read_text():
        time.sleep(0.05)
    worker = int(note.read_text())
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ConfigError, match="workers is -1, expected 0 or more"):
        make_executor("local", workers=-1)
