import os
import subprocess
import sys
from pathlib import Path

from tests.train.shards import coloured_pairs, write_shard

ROOT = Path(__file__).parents[2]


def test_the_benchmark_runs_through_on_a_cpu(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000.tar", "00000.tar", coloured_pairs(40), 0)
    small = "--device cpu --model ViT-mini --steps 2 --warm-up 1 --batch-size 8 --large-batch 16"
    ways = "--micro-batch 8 --large-steps 1 --ways large"
    places = ["--shards", str(tmp_path / "*.tar"), "--folder", str(tmp_path / "work")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_gpu", *small.split(), *ways.split(), *places],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split(" | ")[0].strip("| "): line for line in done.stdout.splitlines()}
    cells = [cell.strip() for cell in rows["real shards, gradient caching"].strip("|").split("|")]
    assert cells[1] == "16 by 8"
    assert float(cells[2].replace(",", "")) > 0, done.stdout
    assert cells[6].endswith("%")
    assert "not asked for" in rows["real shards"]
