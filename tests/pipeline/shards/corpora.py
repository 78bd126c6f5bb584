"""Workspaces made up to the point where shards are packed, and what is in the shards."""

import hashlib
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline import schemas, shard
from pipeline.pictures.tar import TarWriter
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from pipeline.shard import ShardConfig

EXTENSIONS = ("jpg", "png", "webp")
_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
TEXTS = [f"query {i}" for i in range(1200)]


def size(number: int) -> tuple[int, int]:
    return 8 + number % 40, 9 + number % 7


@cache
def image(number: int) -> bytes:
    """A picture that no other number gives."""
    file = io.BytesIO()
    colour = (number % 256, number // 256 % 256, 77)
    picture = Image.new("RGB", size(number), colour)
    picture.putpixel((0, 0), (255 - colour[0], number * 7 % 256, 5))
    picture.save(file, _FORMATS[EXTENSIONS[number % 3]], lossless=True, quality=95)
    return file.getvalue()


def pair_id(number: int) -> str:
    return hashlib.md5(b"%d" % number).hexdigest()


def uid(number: int) -> str:
    return hashlib.md5(b"uid %d" % number).hexdigest()


def pair(number: int, place: tuple[str, int, int]) -> dict[str, Any]:
    return {
        "pair_id": pair_id(number),
        "url": f"http://example.com/{number}.jpg",
        "caption": f'  Käse №{number} 𝄞\nsecond line "{"x" * (number % 600)}" ',
        "caption_source": "alt",
        "page_url": None if number % 2 else f"http://example.com/page{number}",
        "source": "a.warc",
        "source_offset": number,
        "query_ids": [1, number + 2],
        "language": "en" if number % 3 else "de",
        "language_probability": 0.9876543,
        "selected_by": [number + 2],
        "image_sha256": hashlib.sha256(image(number)).hexdigest(),
        "image_bytes": len(image(number)),
        "image_format": "jpeg",
        "width": 640 + number,
        "height": 480,
        "pixel_hash": "0" * 32,
        "pdq": hashlib.sha256(b"pdq %d" % number).digest(),
        "pdq_quality": 100,
        "image_file": place[0],
        "image_offset": place[1],
        "image_length": place[2],
    }


def kept(root: Path | str, *sizes: int, keyed: bool = False) -> Workspace:
    """A workspace whose parts have these many pairs, in another order than their images.

    `keyed`: the input had names for every other pair, and lay in other parts.
    """
    workspace = Workspace(root=str(root))
    download, rebalance, match, ingest = (
        begin(name, Settings(), workspace) for name in ("download", "rebalance", "match", "ingest")
    )
    texts = {"query_id": range(len(TEXTS)), "query": TEXTS, "source": ["user"] * len(TEXTS)}
    rows = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
    queries = pa.Table.from_pylist([{**r, "sources": ["user"]} for r in rows], schemas.QUERIES)
    match.write_table("queries", queries, schemas.QUERIES)
    match.finish([])
    if keyed:
        for i in range(3):
            numbers = [n for n in range(sum(sizes)) if n % 2 == 0 and n // 2 % 3 == i]
            known = pa.table([list(map(f, numbers)) for f in (pair_id, uid)], schemas.SOURCE_KEYS)
            name = f"ingest/source_keys/{i:05d}.parquet"
            ingest.add("source_keys", workspace.write(name, known, schemas.SOURCE_KEYS))
    ingest.finish([])
    outcomes = []
    first = 0
    for i, count in enumerate(sizes):
        name = f"download/images/{i:05d}.tar"
        file = io.BytesIO()
        with TarWriter(file) as tar:
            places = [(name, *tar.add(f"{n}.x", image(n))) for n in range(first, first + count)]
        write(workspace.path(name), file.getvalue())
        download.add("images", workspace.describe(name, rows=count))
        table = pa.Table.from_pylist(
            [pair(first + n, place) for n, place in enumerate(places)], schemas.DEDUPLICATED
        )
        outcomes.append(
            rebalance.output(i).write(
                rows_in=count,
                kept=table,
                schema=schemas.DEDUPLICATED,
                drops=schemas.DROPS.empty_table(),
            )
        )
        first += count
    download.finish([])
    rebalance.finish(outcomes)
    return workspace


def write(path: str, data: bytes) -> None:
    from pipeline.runtime import storage

    storage.write_bytes(path, data)


def pack(workspace: Workspace, samples: int = 5, **settings: Any) -> Manifest:
    config = ShardConfig(**settings) if settings else ShardConfig(samples_per_shard=samples)
    return shard.run(config, workspace, InlineExecutor())


def rows(workspace: Workspace, table: str = "main") -> list[dict[str, Any]]:
    """The rows of a table of the shards, in order."""
    manifest = workspace.manifest("shard")
    assert manifest is not None
    paths = [workspace.path(part.path) for part in manifest.tables.get(table, [])]
    return [row for path in paths for row in read(path)]


def read(path: str) -> list[dict[str, Any]]:
    from pipeline.runtime import storage

    return pq.read_table(pa.BufferReader(storage.read_bytes(path))).to_pylist()


def contents(workspace: Workspace) -> dict[str, tuple[bytes, bytes, bytes]]:
    """The bytes of image, caption and metadata of every sample, by pair_id, as the index finds them."""
    from pipeline.runtime import storage

    tars: dict[str, bytes] = {}
    found = {}
    for row in rows(workspace):
        if row["shard"] not in tars:
            tars[row["shard"]] = storage.read_bytes(workspace.path(row["shard"]))
        found[row["pair_id"]] = tuple(
            tars[row["shard"]][row[f"{kind}_offset"] :][: row[f"{kind}_length"]]
            for kind in ("image", "caption", "metadata")
        )
    return found


def files(
    workspace: Workspace, suffixes: Sequence[str] = (".tar", ".parquet", ".json")
) -> dict[str, bytes]:
    """Every file of the shards but the manifest, which has times in it."""
    folder = Path(workspace.path("shard"))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes and path.name != "manifest.json"
    }
