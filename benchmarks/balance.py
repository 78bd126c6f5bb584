"""Time `balance` on many pairs, and how its memory grows: made-up pairs, real shape.

    python benchmarks/balance.py --rows 1000000 10000000 --added 1000000 --folder /tmp/balance

Pairs are written as finished `match` and `captions` stages: queries by Zipf's law over a list of
500,000, of which a quarter never occurs; columns of usual length; the same bytes every time. Memory
is that of all processes together, as the kernel counts it (PSS, pages that are shared counted once),
sampled; seconds are those of the stage, processor seconds of all its processes. With --added, a
crawl of which a million pairs are known is added to the last.
"""

import argparse
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import balance, schemas
from pipeline.runtime.executor import make_executor
from pipeline.runtime.manifest import Manifest, Outcome
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

QUERIES, UNMATCHED = 500_000, 114_000
EXPONENT = 1.2
PART_ROWS = 1_000_000
DRAWS = 6.5
WORDS = "a the dog red house on beach with green park of city woman and old tree for sale new in"
SAMPLE_S = 0.1


class MadeUp(Settings):
    """What the made-up stages depend on."""

    rows: int = 0
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class MakeTask:
    """Pairs `first` up to `first + rows` to make."""

    first: int
    rows: int
    output: TaskOutput


def make_crawl(workspace: Workspace, first: int, rows: int, workers: int) -> None:
    """Write pairs `first` up to `first + rows` as the finished stages `match` and `captions`."""
    config = MadeUp(rows=rows, first=first)
    match = begin("match", config, workspace)
    if not match.done:
        match.write_table("queries", query_list(), schemas.QUERIES)
        match.finish([])
    stage = begin("captions", config, workspace, reads=["match"])
    if stage.done:
        return
    starts = range(first, first + rows, PART_ROWS)
    tasks = [
        MakeTask(first=start, rows=min(PART_ROWS, first + rows - start), output=stage.output(i))
        for i, start in enumerate(starts)
    ]
    with closing(make_executor("local", workers=workers)) as executor:
        stage.finish(stage.map(executor, "captions", make_part, tasks))


def make_part(task: MakeTask) -> Outcome:
    """Write one part; runs in a worker."""
    table = made_up_pairs(task.first, task.rows)
    no_drops = schemas.DROPS.empty_table()
    return task.output.write(
        rows_in=len(table), kept=table, schema=schemas.CAPTIONS, drops=no_drops
    )


def query_list() -> pa.Table:
    """Return a list of QUERIES entries."""
    columns = {
        "query_id": np.arange(QUERIES, dtype=np.int32),
        "query": [f"query {i}" for i in range(QUERIES)],
        "source": pa.repeat("user", QUERIES),
        "sources": [["user"]] * QUERIES,
    }
    for field in schemas.QUERIES:
        columns.setdefault(field.name, pa.nulls(QUERIES, field.type))
    return pa.table(columns, schema=schemas.QUERIES)


def made_up_pairs(first: int, rows: int) -> pa.Table:
    """Return CAPTIONS of pairs that depend on their number alone."""
    rng = np.random.default_rng(first)
    captions, pages = pools()
    image = rng.bytes(8 * rows).hex()
    urls = pa.array(
        [f"https://cdn.example/{image[i : i + 16]}.jpg" for i in range(0, 16 * rows, 16)]
    )
    return pa.table(
        {
            "pair_id": hex_strings(rng.bytes(16 * rows)),
            "url": urls,
            "caption": captions.take(pa.array(rng.integers(0, len(captions), rows))),
            "caption_source": pa.repeat("alt", rows),
            "page_url": pages.take(pa.array(rng.integers(0, len(pages), rows))),
            "source": pa.repeat(f"crawl-{first:012d}.warc.gz", rows),
            "source_offset": np.arange(rows, dtype=np.int64) * 4096,
            "blur_boxes": pa.nulls(rows, schemas.CAPTIONS.field("blur_boxes").type),
            "query_ids": made_up_matches(rng, rows),
            "language": pa.repeat("en", rows),
            "language_probability": rng.integers(15, 100, rows).astype(np.float32) / 100,
        },
        schema=schemas.CAPTIONS,
    )


@cache
def pools() -> tuple[pa.Array, pa.Array]:
    """Return captions of some 58 bytes, and addresses of pages, to draw from."""
    rng = np.random.default_rng(0)
    words = np.asarray(WORDS.split())
    captions = [" ".join(rng.choice(words, 14)) for _ in range(100_000)]
    pages = [f"https://site-{i % 5000}.example/articles/{i:08x}.html" for i in range(100_000)]
    return pa.array(captions), pa.array(pages)


def hex_strings(data: bytes) -> pa.Array:
    """Return a string of 32 hex digits for every 16 bytes."""
    offsets = np.arange(len(data) // 16 + 1, dtype=np.int32) * 32
    digits = pa.py_buffer(data.hex().encode())
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), digits)


@cache
def query_shares() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return the cumulative shares of the queries that occur, and their ids, most frequent first."""
    weights = np.arange(1, QUERIES - UNMATCHED + 1) ** -EXPONENT
    ids = np.random.default_rng(0).permutation(QUERIES)[: len(weights)]
    return np.cumsum(weights) / weights.sum(), ids.astype(np.int32)


def made_up_matches(rng: np.random.Generator, rows: int) -> pa.Array:
    """Return for each row some distinct queries, ascending."""
    shares, ids = query_shares()
    draws = 1 + rng.poisson(DRAWS - 1, rows)
    row = np.repeat(np.arange(rows), draws)
    query = ids[np.searchsorted(shares, rng.random(len(row)))]
    # Not np.unique, which takes ten times as long.
    keys = np.sort(row * QUERIES + query)
    keys = keys[np.diff(keys, prepend=-1) > 0]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(keys // QUERIES, minlength=rows))])
    values = pa.array((keys % QUERIES).astype(np.int32))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yield a list that holds the largest memory of this process and its children, in GB, at the end."""
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            peak[0] = max(peak[0], sum(map(memory_bytes, processes())) / 1e9)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def processes() -> list[Path]:
    """Return this process and all below it, as folders of /proc."""
    found = [Path("/proc/self").resolve()]
    for process in found:
        try:
            children = (process / "task" / process.name / "children").read_text().split()
        except OSError:
            continue
        found += [Path("/proc", child) for child in children]
    return found


def memory_bytes(process: Path) -> int:
    """Return the process's proportional set size; 0 for one that has ended."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def part_bytes(manifest: Manifest) -> int:
    """Return the bytes of all that a stage wrote."""
    return sum(part.bytes for parts in manifest.tables.values() for part in parts)


def measure(workspace: Workspace, config: balance.BalanceConfig, workers: int) -> str:
    """Balance the workspace and return a line of the table."""
    shutil.rmtree(workspace.path("balance"), ignore_errors=True)
    begun = time.monotonic()
    with closing(make_executor("local", workers=workers)) as executor, peak_memory() as peak:
        done = balance.run(config, workspace, executor)
    seconds = time.monotonic() - begun
    counts = workspace.read_table("balance", "query_counts", schemas.QUERY_COUNTS)
    read = part_bytes(workspace.finished("captions"))
    return (
        f"| {done.rows_in:,} | {pc.sum(counts['matched']).as_py():,} | {done.rows_out:,} "
        f"| {read / 1e9:.2f} GB | {part_bytes(done) / 1e9:.2f} GB | {seconds:,.0f} "
        f"| {done.cpu_seconds:,.0f} | {done.rows_in / seconds:,.0f} | {peak[0]:.2f} GB |"
    )


def main() -> None:
    """Make the crawls, balance each, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[PART_ROWS])
    parser.add_argument("--added", type=int, default=0, help="rows of a crawl to add to the last")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/witmill-balance"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cap", type=int, default=20_000)
    arguments = parser.parse_args()
    lines = [
        "| pairs | matches | kept | captions | written | s | CPU s | pairs/s | peak memory |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    workspace, config = Workspace(root="."), balance.BalanceConfig(cap=arguments.cap)
    for rows in arguments.rows:
        workspace = Workspace(root=str(arguments.folder / str(rows)))
        make_crawl(workspace, 0, rows, arguments.workers)
        lines.append(measure(workspace, config, arguments.workers))
    if arguments.added:
        # The last part of the earlier crawl is met again.
        first = max(0, arguments.rows[-1] - PART_ROWS)
        added = Workspace(root=f"{workspace.root}-added")
        make_crawl(added, first, arguments.added, arguments.workers)
        config = config.model_copy(update={"add": workspace.root})
        lines.append(measure(added, config, arguments.workers))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
