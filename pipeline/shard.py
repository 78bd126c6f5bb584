"""Pack the kept pairs into WebDataset tars, with an index of every member beside each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import orjson
import pyarrow as pa
from pydantic import Field

from pipeline import schemas
from pipeline.errors import CorruptWorkspace
from pipeline.pictures.tar import TarWriter
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

READ_BYTES = 1 << 23
"""Read at a time from the stored images; they lie almost in the order they are needed."""

_PLACE = ("image_file", "image_offset", "image_length")
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}


class ShardConfig(Settings):
    """Pack images, captions and metadata into WebDataset shards."""

    samples_per_shard: int = Field(10_000, ge=1, le=1_000_000)
    """samples in each tar; the last may have fewer"""


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` of a part, counted in the order of pair_id."""

    part: Part
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Write one shard from slices of one or more parts."""

    slices: tuple[Slice, ...]
    config: ShardConfig
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class VerifyTask:
    """One tar of stored images to hash."""

    images: Part
    output: TaskOutput


def run(config: ShardConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Write the pairs that "rebalance" kept as tars of equal size.

    Raises:
        MissingInput: if `rebalance` has not finished.
        TaskFailed: if a tar of stored images is not what `download` wrote.
    """
    stage = begin("shard", config, workspace, reads=["rebalance", "download"])
    if stage.done:
        return stage.done
    tasks = [
        ShardTask(slices=slices, config=config, output=stage.output(i))
        for i, slices in enumerate(cut(stage.parts("rebalance"), config.samples_per_shard))
    ]
    verifying = [
        VerifyTask(images=part, output=stage.output(i))
        for i, part in enumerate(stage.parts("download", "images"))
    ]
    stage.map(executor, "verify", verify_images, verifying)
    return stage.finish(stage.map(executor, "shard", write_shard, tasks))


def verify_images(task: VerifyTask) -> Outcome:
    """Hash one tar of stored images, which are then read piece by piece."""
    task.output.workspace.verify(task.images)
    return Outcome()


def cut(parts: list[Part], samples: int) -> list[tuple[Slice, ...]]:
    """Return the slices of each shard: the parts' rows one after another, without gaps."""
    shards: list[tuple[Slice, ...]] = []
    current: list[Slice] = []
    room = samples
    for part in parts:
        start = 0
        while start < part.rows:
            stop = min(part.rows, start + room)
            current.append(Slice(part, start, stop))
            room -= stop - start
            start = stop
            if not room:
                shards.append(tuple(current))
                current, room = [], samples
    return [*shards, tuple(current)] if current else shards


def write_shard(task: ShardTask) -> Outcome:
    """Write one tar, then its index."""
    output = task.output
    pairs = pa.concat_tables([_rows(output, piece) for piece in task.slices])
    tar = output.name("tar")
    prefix = f"{output.index:05d}"
    digits = max(4, len(str(task.config.samples_per_shard - 1)))
    with (
        _StoredImages(output.workspace) as stored,
        storage.atomic_output(output.workspace.path(tar)) as file,
        TarWriter(file) as writer,
    ):
        index = [
            {
                "pair_id": pair["pair_id"],
                "shard": tar,
                "caption": pair["caption"],
                **add_sample(writer, f"{prefix}{number:0{digits}d}", pair, stored.read(pair)),
            }
            for number, pair in enumerate(_one_by_one(pairs))
        ]
    written = Part(path=tar, rows=len(index), bytes=file.size, sha256=file.sha256)
    summary = {"shard": tar, "samples": written.rows, "bytes": file.size, "sha256": file.sha256}
    return output.write(
        rows_in=pairs.num_rows,
        kept=pa.Table.from_pylist(index, schema=schemas.SHARD_INDEX),
        schema=schemas.SHARD_INDEX,
        drops=schemas.DROPS.empty_table(),
        side={"shards": (pa.Table.from_pylist([summary], schema=schemas.SHARDS), schemas.SHARDS)},
        files={"tars": [written]},
    )


def _rows(output: TaskOutput, piece: Slice) -> pa.Table:
    return _sorted_part(output.workspace, piece.part).slice(piece.start, piece.stop - piece.start)


@lru_cache(maxsize=1)
def _sorted_part(workspace: Workspace, part: Part) -> pa.Table:
    # Shards that follow each other come from the same part. pair_id is a hash: its order is that of
    # nothing else, and mixes the hosts.
    return workspace.read(part, schemas.DEDUPLICATED).sort_by("pair_id")


def _one_by_one(pairs: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in pairs.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


def add_sample(
    tar: TarWriter, key: str, pair: Mapping[str, Any], image: bytes
) -> dict[str, str | int]:
    """Append KEY.jpg (or png, webp), KEY.txt and KEY.json; return their columns of SHARD_INDEX."""
    image_member = f"{key}.{extension_of(image)}"
    image_offset, image_length = tar.add(image_member, image)
    caption_offset, caption_length = tar.add(f"{key}.txt", pair["caption"].encode())
    metadata_offset, metadata_length = tar.add(f"{key}.json", metadata_of(pair))
    return {
        "key": key,
        "image_member": image_member,
        "image_offset": image_offset,
        "image_length": image_length,
        "caption_offset": caption_offset,
        "caption_length": caption_length,
        "metadata_offset": metadata_offset,
        "metadata_length": metadata_length,
    }


def extension_of(image: bytes) -> str:
    """Return the extension of stored image bytes: jpg, png or webp."""
    for magic, extension in _MAGIC.items():
        if image.startswith(magic):
            return extension
    raise CorruptWorkspace(
        f"a stored image begins with {image[:8].hex(' ')}, expected JPEG, PNG or WebP; "
        "delete download/manifest.json and run `witmill download` again"
    )


def metadata_of(pair: Mapping[str, Any]) -> bytes:
    """Return KEY.json: what is known of the pair, by column, keys sorted; the PDQ hash in hex."""
    known = {name: value for name, value in pair.items() if name not in _PLACE}
    known["pdq"] = known["pdq"].hex() if known["pdq"] is not None else None
    known["language_probability"] = round(known["language_probability"], 6)
    return orjson.dumps(known, option=orjson.OPT_SORT_KEYS)


class _StoredImages:
    """Reads the images that "download" stored, a block at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._path = ""
        self._file: pa.NativeFile | None = None
        self._start = 0
        self._block = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, pair: Mapping[str, Any]) -> bytes:
        path, offset, length = (pair[name] for name in _PLACE)
        if path != self._path:
            if self._file is not None:
                self._file.close()
            self._file = storage.open_input(self._workspace.path(path))
            self._path, self._block = path, b""
        at = offset - self._start
        if at < 0 or at + length > len(self._block):
            assert self._file is not None
            self._block = self._file.read_at(max(length, READ_BYTES), offset)
            self._start, at = offset, 0
        image = self._block[at : at + length]
        if len(image) != length:
            raise CorruptWorkspace(
                f"{self._workspace.path(path)} ends within the image at byte {offset:,}; "
                "delete download/manifest.json and run `witmill download` again"
            )
        return image
