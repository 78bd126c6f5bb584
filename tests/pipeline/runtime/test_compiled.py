import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
HALVE = """
from pipeline.runtime.compiled import inlined

@inlined
def part(number):
    return number // {divisor}
"""
MAIN = """
import numba
from pipeline.runtime.compiled import compiled
from queries.part_kernel import part

@compiled
def take(number):
    return part(number)

print(take(12), numba.config.CACHE_DIR)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "*.parquet")
    for package in ("pipeline", "queries"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    (tmp_path / "queries/whole_kernel.py").write_text(MAIN)
    return tmp_path


def run(checkout: Path, divisor: int) -> tuple[int, Path]:
    (checkout / "queries/part_kernel.py").write_text(HALVE.format(divisor=divisor))
    command = [sys.executable, "-m", "queries.whole_kernel"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    result, folder = done.stdout.split()
    return int(result), Path(folder)


def test_a_loop_taken_from_a_changed_module_is_compiled_again(checkout: Path) -> None:
    result, first = run(checkout, 2)
    assert result == 6
    assert run(checkout, 2)[1] == first
    result, second = run(checkout, 3)
    assert result == 4
    assert second != first


def test_code_that_was_left_for_a_month_is_deleted_and_other_code_is_not(checkout: Path) -> None:
    _, folder = run(checkout, 2)
    left, recent = folder.with_name("compiled-left"), folder.with_name("compiled-recent")
    for old in (left, recent, folder):
        old.mkdir(exist_ok=True)
    long_ago = time.time() - 40 * 24 * 3600
    for old in (left, folder):
        os.utime(old, (long_ago, long_ago))
    assert run(checkout, 2)[1] == folder
    assert folder.exists()
    assert recent.exists()
    assert not left.exists()
