"""Write shards from prepared rows: each a tar, its index, its stats and its line in the list of shards."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import CorruptWorkspace
from pipeline.pictures.headers import read_header
from pipeline.pictures.tar import TarWriter
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import MAIN, Outcome, Part
from pipeline.runtime.parquet import read_parquet
from pipeline.runtime.stage import StageRun, TaskOutput
from pipeline.runtime.workspace import Workspace
from pipeline.shards.cut import I64, Limits, Slice, cut
from pipeline.shards.metadata import tar_bytes

READ_BYTES = 1 << 23
"""Read at a time from where images lie; they lie almost in the order they are needed."""

PREPARED = pa.schema(
    [
        *schemas.SAMPLE,
        *(schemas.DOWNLOADED.field(f"image_{name}") for name in ("file", "offset", "length")),
        pa.field("metadata", pa.binary(), nullable=False),
        pa.field("tar_bytes", pa.int64(), nullable=False),
    ]
)
"""A row per sample to be packed; `metadata` is its KEY.json, `tar_bytes` what it takes in a tar."""

_OPEN_FILES = 8
_ROW_GROUP = 4096
_AT_ONCE = 1024
_SUCCESS = "success"


@dataclass(frozen=True, kw_only=True)
class PackTask:
    """Write one shard from slices of prepared parts; its keys end in `digits` digits."""

    slices: tuple[Slice, ...]
    digits: int
    output: TaskOutput


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample to be written under `key`."""

    key: str
    image: bytes
    caption: bytes
    metadata: bytes


def write_prepared(path: str, samples: pa.Table, metadata: Iterable[bytes]) -> Part:
    """Write rows of SAMPLE and of where their images lie, with their KEY.json, for `pack`."""
    given = iter(metadata)
    with (
        storage.atomic_output(path) as file,
        pq.ParquetWriter(file, PREPARED, compression="zstd") as writer,
    ):
        for start in range(0, len(samples), _ROW_GROUP):
            rows = samples.slice(start, _ROW_GROUP)
            writer.write_table(_prepared(rows, list(islice(given, len(rows)))))
    return Part(path=path, rows=len(samples), bytes=file.size, sha256=file.sha256)


def _prepared(rows: pa.Table, metadata: Sequence[bytes]) -> pa.Table:
    captions = pc.binary_length(rows.column("caption")).to_pylist()
    images = rows.column("image_length").to_pylist()
    lengths = zip(images, captions, map(len, metadata), strict=True)
    columns = {"metadata": metadata, "tar_bytes": [tar_bytes(*each) for each in lengths]}
    for name, values in columns.items():
        column = PREPARED.field(name)
        rows = rows.append_column(column, pa.array(values, column.type))
    return rows.select(PREPARED.names).cast(PREPARED)


def pack(
    stage: StageRun, executor: Executor, prepared: Sequence[Part], limits: Limits
) -> list[Outcome]:
    """Write the rows of the prepared parts, one after another, as the shards of `stage`."""
    shards = cut(prepared, limits, _sizes)
    largest = max((sum(piece.rows for piece in slices) for slices in shards), default=0)
    most = limits.samples if limits.bytes is None else largest
    digits = max(4, len(str(most - 1)))
    tasks = [
        PackTask(slices=slices, digits=digits, output=stage.output(i))
        for i, slices in enumerate(shards)
    ]
    return stage.map(executor, "shard", write_shard, tasks)


def _sizes(part: Part) -> I64:
    column = read_parquet(part.path, columns=["tar_bytes"]).column(0)
    return np.asarray(column.to_numpy(), np.int64)


def write_shard(task: PackTask) -> Outcome:
    """Write one shard; runs in a worker."""
    rows = pa.concat_tables([_read_rows(piece) for piece in task.slices])
    with _Images(task.output.workspace) as images:
        samples = _samples(rows, images, task.output.index, task.digits)
        parts = write_files(task.output, rows.select(schemas.SAMPLE.names), samples)
    return Outcome(rows_in=len(rows), rows_out=len(rows), parts=parts)


def _samples(rows: pa.Table, images: "_Images", shard: int, digits: int) -> Iterator[Sample]:
    names = ["image_file", "image_offset", "image_length", "caption", "metadata"]
    number = 0
    for batch in rows.select(names).to_batches(max_chunksize=_AT_ONCE):
        columns = [column.to_pylist() for column in batch.columns]
        for file, offset, length, caption, metadata in zip(*columns, strict=True):
            yield Sample(
                key=f"{shard:05d}{number:0{digits}d}",
                image=images.read(file, offset, length),
                caption=caption.encode(),
                metadata=metadata,
            )
            number += 1


def write_files(
    output: TaskOutput, about: pa.Table, samples: Iterable[Sample]
) -> dict[str, list[Part]]:
    """Write the tar of `samples`, then what lies beside it; return the files by table.

    Args:
        about: SAMPLE, a row for each of `samples`, in their order.
    """
    workspace = output.workspace
    tar = output.name("tar")
    with storage.atomic_output(workspace.path(tar)) as file, TarWriter(file) as writer:
        places = [_add(writer, sample) for sample in samples]
    written = Part(path=tar, rows=len(places), bytes=file.size, sha256=file.sha256)
    index = _index(about, places, tar)
    summary = {"shard": tar, "samples": written.rows, "bytes": file.size, "sha256": file.sha256}
    shards = pa.Table.from_pylist([summary], schema=schemas.SHARDS)
    return {
        MAIN: [workspace.write(output.name("parquet"), index, schemas.SHARD_INDEX)],
        "tars": [written],
        "stats": [_write_stats(output, about, written)],
        "shards": [workspace.write(output.name("parquet", "shards"), shards, schemas.SHARDS)],
    }


def _add(writer: TarWriter, sample: Sample) -> tuple[str | int, ...]:
    seen = read_header(sample.image)
    if seen is None:
        raise CorruptWorkspace(
            f"the image of sample {sample.key} begins with {sample.image[:8].hex(' ')}, "
            "expected JPEG, PNG or WebP"
        )
    member = f"{sample.key}.{seen.extension}"
    return (
        sample.key,
        member,
        *writer.add(member, sample.image),
        *writer.add(f"{sample.key}.txt", sample.caption),
        *writer.add(f"{sample.key}.json", sample.metadata),
    )


_PLACES = (
    "key",
    "image_member",
    "image_offset",
    "image_length",
    "caption_offset",
    "caption_length",
    "metadata_offset",
    "metadata_length",
)


def _index(about: pa.Table, places: Sequence[tuple[str | int, ...]], tar: str) -> pa.Table:
    rows = len(places)
    columns: dict[str, Any] = {
        "shard": [tar] * rows,
        "status": [_SUCCESS] * rows,
        "error_message": pa.nulls(rows, pa.string()),
    }
    for i, name in enumerate(_PLACES):
        columns[name] = [place[i] for place in places]
    for name, values in columns.items():
        field = schemas.SHARD_INDEX.field(name)
        about = about.append_column(field, pa.array(values, field.type))
    return about.select(schemas.SHARD_INDEX.names)


def _write_stats(output: TaskOutput, about: pa.Table, tar: Part) -> Part:
    """Write what img2dataset writes beside a shard, less its times, and how to recognise the tar."""
    stats = {
        "count": tar.rows,
        "successes": tar.rows,
        "failed_to_download": 0,
        "failed_to_resize": 0,
        "bytes_downloaded": pc.sum(about.column("image_bytes")).as_py() or 0,
        "status_dict": {_SUCCESS: tar.rows} if tar.rows else {},
        "tar_bytes": tar.bytes,
        "tar_sha256": tar.sha256,
    }
    path = f"{output.name('tar').removesuffix('.tar')}_stats.json"
    with storage.atomic_output(output.workspace.path(path)) as file:
        file.write(json.dumps(stats, indent=4).encode())
    return Part(path=path, rows=0, bytes=file.size, sha256=file.sha256)


def _read_rows(piece: Slice) -> pa.Table:
    with storage.open_input(piece.part.path) as file:
        parquet = pq.ParquetFile(file)
        groups = range(piece.start // _ROW_GROUP, -(-piece.stop // _ROW_GROUP))
        rows = parquet.read_row_groups(list(groups))
    return rows.slice(piece.start % _ROW_GROUP, piece.rows)


class _Images:
    """Reads images from the few tars they lie in; a context manager."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._files: dict[str, _Forward] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def read(self, path: str, offset: int, length: int) -> bytes:
        if path not in self._files:
            if len(self._files) == _OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            self._files[path] = _Forward(self._workspace.path(path))
        return self._files[path].read(offset, length)


class _Forward:
    """Reads pieces of a file, by large blocks as long as one piece follows another."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = storage.open_input(path)
        self._start = self._next = 0
        self._block = b""

    def close(self) -> None:
        self._file.close()

    def read(self, offset: int, length: int) -> bytes:
        at = offset - self._start
        if at < 0 or at + length > len(self._block):
            follows = self._next <= offset <= self._next + READ_BYTES
            with storage.storage_errors("read", self._path):
                self._block = self._file.read_at(
                    max(length, READ_BYTES) if follows else length, offset
                )
            self._start, at = offset, 0
        self._next = offset + length
        image = self._block[at : at + length]
        if len(image) != length:
            raise CorruptWorkspace(
                f"{self._path} ends within the image at byte {offset:,}; it changed while it was read"
            )
        return image
