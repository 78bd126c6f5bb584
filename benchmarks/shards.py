"""Time packing, verifying, resharding and removing on real photographs, in one process.

    python benchmarks/shards.py ../shared/data/images/imagenet_sample_600.tar --samples 20000

Processor time and MB/s of tar by one core; the most memory held, each measured in a process of its own.
"""

import argparse
import io
import multiprocessing
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import schemas, shard
from pipeline.inputs.pairs import pair_ids
from pipeline.pictures.tar import TarWriter
from pipeline.runtime import storage
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.manifest import Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from pipeline.shards import removals
from pipeline.shards.remove import remove
from pipeline.shards.reshard import ReshardConfig, reshard
from pipeline.shards.verify import verify

SIDE = 256
QUALITY = 95


def photographs(path: str) -> list[bytes]:
    """Return the pictures of a tar as download would store them."""
    stored = []
    with tarfile.open(path) as tar:
        for member in tar:
            if content := tar.extractfile(member):
                picture = Image.open(io.BytesIO(content.read())).convert("RGB")
                scale = SIDE / min(picture.size)
                sides = [round(side * scale) for side in picture.size]
                file = io.BytesIO()
                picture.resize((sides[0], sides[1])).save(file, "JPEG", quality=QUALITY)
                stored.append(file.getvalue())
    return stored


def build(root: str, pictures: list[bytes], samples: int) -> None:
    """Make a workspace whose shards are to be packed."""
    workspace = Workspace(root=root)
    stages = {
        name: begin(name, Settings(), workspace)
        for name in ("ingest", "match", "download", "rebalance")
    }
    texts = [f"word {i}" for i in range(1000)]
    queries = {"query_id": range(1000), "query": texts, "source": ["user"] * 1000}
    table = pa.table({**queries, "sources": [["user"]] * 1000})
    for name in ("count", "pmi", "views", "redirects"):
        table = table.append_column(name, pa.nulls(1000, schemas.QUERIES.field(name).type))
    stages["match"].write_table("queries", table.cast(schemas.QUERIES), schemas.QUERIES)
    tar = "download/images/00000.tar"
    with storage.atomic_output(workspace.path(tar)) as file, TarWriter(file) as writer:
        places = [writer.add(f"{i:09d}.jpg", pictures[i % len(pictures)]) for i in range(samples)]
    part = Part(path=tar, rows=samples, bytes=file.size, sha256=file.sha256)
    stages["download"].add("images", part)
    rows = _rows(samples, tar, places)
    output = stages["rebalance"].output(0)
    schema = schemas.DEDUPLICATED
    no_drops = schemas.DROPS.empty_table()
    kept = output.write(rows_in=samples, kept=rows, schema=schema, drops=no_drops)
    for name, stage in stages.items():
        stage.finish([kept] if name == "rebalance" else [])


def _rows(samples: int, tar: str, places: list[tuple[int, int]]) -> pa.Table:
    urls = [f"https://images.example.com/photographs/{i}/large.jpg" for i in range(samples)]
    captions = [
        f"a photograph of something, number {i}, as people describe it" for i in range(samples)
    ]
    known: dict[str, object] = {
        # Images lie in the order of pair_id, as download puts them.
        "pair_id": sorted(pair_ids(urls, captions).to_pylist()),
        "url": urls,
        "caption": captions,
        "page_url": [f"https://www.example.com/page/{i}.html" for i in range(samples)],
        "source_offset": range(samples),
        "query_ids": [[i % 1000, (i * 7) % 1000, 3, 5, 9, 11, 13, 17] for i in range(samples)],
        "language_probability": np.full(samples, 0.93, np.float32),
        "selected_by": [[i % 1000] for i in range(samples)],
        "image_file": [tar] * samples,
        "image_offset": [offset for offset, _ in places],
        "image_length": [length for _, length in places],
    }
    columns = []
    for field in schemas.DEDUPLICATED:
        value = (
            bytes(32)
            if field.type == pa.binary(32)
            else "a" * 32
            if field.type == pa.string()
            else 640
        )
        values = known.get(field.name, [None if field.nullable else value] * samples)
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schemas.DEDUPLICATED)


def _pack(root: str) -> None:
    shard.run(shard.ShardConfig(), Workspace(root=f"{root}/W"), InlineExecutor())


def _verify(root: str) -> None:
    assert not any(report.count for report in verify(f"{root}/W", InlineExecutor()))


def _decode(root: str) -> None:
    assert not any(report.count for report in verify(f"{root}/W", InlineExecutor(), decode=True))


def _reshard(root: str) -> None:
    config = ReshardConfig(where="original_width > 0")
    reshard(config, f"{root}/W", Workspace(root=f"{root}/N"), InlineExecutor())


def _remove(root: str) -> None:
    workspace = Workspace(root=f"{root}/W")
    urls = workspace.read(workspace.finished("shard").parts[0], schemas.SHARD_INDEX, ["url"])
    Path(root, "urls").write_text("\n".join(urls.column(0).to_pylist()[:10]))
    remove(workspace, [removals.read_list(f"{root}/urls", "url")], InlineExecutor())


def measured(work: Callable[[str], None], root: str) -> tuple[float, float]:
    """Run `work`; return its processor time and the most memory held, in MB, imports included."""
    begun = time.process_time()
    work(root)
    return time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Build, run everything once, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs")
    parser.add_argument("--samples", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        build(f"{root}/W", photographs(arguments.photographs), arguments.samples)
        print("| step | processor s | µs a sample | MB/s | memory, MB |\n|---|---:|---:|---:|---:|")
        for step in (_pack, _verify, _decode, _reshard, _remove):
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context) as process:
                seconds, memory = process.submit(measured, step, root).result()
            size = sum(path.stat().st_size for path in Path(f"{root}/W/shard").glob("*.tar"))
            print(
                f"| {step.__name__[1:]} | {seconds:.2f} | {seconds / arguments.samples * 1e6:.0f} "
                f"| {size / seconds / 1e6:,.0f} | {memory:.0f} |"
            )


if __name__ == "__main__":
    main()
