"""Run the stage `dedup` over made-up pairs and measure it."""

import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.balance import PART_ROWS, hex_strings, made_up_pairs, part_bytes, peak_memory
from dedup.deduplicate import DedupConfig, run
from pipeline import schemas
from pipeline.runtime.executor import make_executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

# Of the pairs: the same bytes as another, and a hash some bits from another's.
COPIED = 0.03
NEAR = 0.05


class MadeUp(Settings):
    """Settings of a made-up download."""

    rows: int


@dataclass(frozen=True, kw_only=True)
class MakeTask:
    """One part to make up."""

    first: int
    rows: int
    output: TaskOutput


def make_download(workspace: Workspace, rows: int, workers: int) -> None:
    """Make a finished `download` of so many pairs."""
    stage = begin("download", MadeUp(rows=rows), workspace)
    if stage.done:
        return
    tasks = [
        MakeTask(first=start, rows=min(PART_ROWS, rows - start), output=stage.output(i))
        for i, start in enumerate(range(0, rows, PART_ROWS))
    ]
    with closing(make_executor("local", workers=workers)) as executor:
        stage.finish(stage.map(executor, "download", make_part, tasks))


def make_part(task: MakeTask) -> Outcome:
    """Write one part; runs in a worker."""
    table = downloaded(task.first, task.rows)
    no_drops = schemas.DROPS.empty_table()
    return task.output.write(
        rows_in=len(table), kept=table, schema=schemas.DOWNLOADED, drops=no_drops
    )


def downloaded(first: int, rows: int) -> pa.Table:
    """Return DOWNLOADED of pairs that depend on their number alone."""
    rng = np.random.default_rng(first + 1)
    pairs = made_up_pairs(first, rows)
    digests = rng.integers(0, 2**64, (rows, 4), np.uint64)
    hashes = rng.integers(0, 2**64, (rows, 4), np.uint64)
    some = rng.permutation(rows)[: int((COPIED + NEAR) * rows)]
    copied, near = np.split(some, [int(COPIED * rows)])
    digests[copied] = digests[rng.integers(rows, size=len(copied))]
    hashes[near] = hashes[rng.integers(rows, size=len(near))]
    # Three bits apart.
    hashes[near, 0] ^= np.uint64(0b10101)
    sha256 = hex_strings(digests.tobytes())
    sha256 = pa.array([a + b for a, b in zip(sha256[::2].to_pylist(), sha256[1::2].to_pylist(), strict=True)])  # fmt: skip
    columns = {
        **{name: pairs.column(name) for name in pairs.column_names},
        "selected_by": pairs.column("query_ids"),
        "image_sha256": sha256,
        "image_bytes": np.full(rows, 100_000),
        "image_format": pa.repeat("jpeg", rows),
        "width": rng.integers(200, 2000, rows).astype(np.int32),
        "height": rng.integers(200, 2000, rows).astype(np.int32),
        "pixel_hash": hex_strings(digests[:, :2].tobytes()),
        "pdq": pa.Array.from_buffers(pa.binary(32), rows, [None, pa.py_buffer(hashes.tobytes())]),
        "pdq_quality": np.full(rows, 100, np.int32),
        "image_file": pa.repeat("download/images/00000.tar", rows),
        "image_offset": np.arange(rows),
        "image_length": np.full(rows, 50_000),
    }
    return pa.table(
        [columns.get(field.name, pa.nulls(rows, field.type)) for field in schemas.DOWNLOADED],
        schema=schemas.DOWNLOADED,
    )


def measure_stage(sizes: list[int], folder: Path, workers: int) -> None:
    """Print a line of a table for each size."""
    print("| pairs | kept | read | s | CPU s | peak memory |\n|---:|---:|---:|---:|---:|---:|")
    for rows in sizes:
        workspace = Workspace(root=str(folder / str(rows)))
        make_download(workspace, rows, workers)
        shutil.rmtree(workspace.path("dedup"), ignore_errors=True)
        begun = time.monotonic()
        with closing(make_executor("local", workers=workers)) as executor, peak_memory() as peak:
            done = run(DedupConfig(), workspace, executor)
        seconds = time.monotonic() - begun
        read = part_bytes(workspace.finished("download"))
        print(
            f"| {done.rows_in:,} | {done.rows_out:,} | {read / 1e9:.2f} GB | {seconds:,.0f} "
            f"| {done.cpu_seconds:,.0f} | {peak[0]:.2f} GB |",
            flush=True,
        )
