"""Pack the kept pairs into WebDataset tars, with an index of every sample beside each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from pipeline import schemas
from pipeline.errors import ConfigError, CorruptWorkspace
from pipeline.pictures.headers import read_header
from pipeline.pictures.tar import BrokenTar, read_members
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.parquet import read_parquet, write_parquet
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import Workspace
from pipeline.shards import removals
from pipeline.shards.corpus import check_whole, writing
from pipeline.shards.cut import MOST_SAMPLES, Limits, parse_bytes
from pipeline.shards.hashed import HashedInput
from pipeline.shards.metadata import describe
from pipeline.shards.pack import pack, write_prepared
from pipeline.shards.source_keys import find_keys, read_keys

REASONS = {removals.REASON: "a list that was given to `witmill remove` names it"}

_AGAIN = "delete download/manifest.json and run `witmill download` again"

_SIZES = pa.schema([("image_offset", pa.int64()), ("width", pa.int32()), ("height", pa.int32())])


class ShardLimits(Settings):
    """How large a shard may be."""

    samples_per_shard: int = Field(10_000, ge=1, le=MOST_SAMPLES)
    """samples in each tar; the last may have fewer"""
    shard_bytes: str | None = None
    """most bytes of a tar, such as 1GB or 500MiB, in place of a number of samples"""

    @field_validator("shard_bytes")
    @classmethod
    def _is_a_size(cls, text: str | None) -> str | None:
        if text is not None and parse_bytes(text) < 1:
            raise ValueError("a size such as 1GB or 500MiB")
        return text

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.shard_bytes is not None and "samples_per_shard" in self.model_fields_set:
            raise ConfigError(
                f"samples_per_shard is {self.samples_per_shard} and shard_bytes is {self.shard_bytes}; "
                "expected one of them"
            )
        return self

    @property
    def limits(self) -> Limits:
        """When a shard is full."""
        if self.shard_bytes is None:
            return Limits(samples=self.samples_per_shard)
        return Limits(bytes=parse_bytes(self.shard_bytes))


class ShardConfig(ShardLimits):
    """Pack images, captions and metadata into WebDataset shards."""


@dataclass(frozen=True, kw_only=True)
class MeasureTask:
    """One tar of stored images to hash and measure; `path` is where the sizes go."""

    images: Part
    path: str
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class PrepareTask:
    """One part to be made ready for packing.

    Attributes:
        sizes: what `measure_images` wrote, by tar.
        queries: the query list, by whose texts the ids are replaced.
        keys: what `find_keys` wrote.
        lists: of what must not be packed.
    """

    part: Part
    sizes: Mapping[str, str]
    queries: Part
    keys: tuple[str, ...]
    lists: tuple[str, ...]
    path: str
    output: TaskOutput


def run(config: ShardConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Write the pairs that "rebalance" kept as tars, without those that must not be there.

    Raises:
        MissingInput: if `rebalance` has not finished.
        InputError: if a removal from the shards was cut off, or another witmill reads them.
        TaskFailed: if a tar of stored images is not what `download` wrote.
    """
    check_whole(workspace.root)
    with writing(workspace):
        return _pack(config, workspace, executor)


def _pack(config: ShardConfig, workspace: Workspace, executor: Executor) -> Manifest:
    lists = removals.list_files(workspace)
    reads = ["rebalance", "download", "match", "ingest"]
    stage = begin("shard", config, workspace, reads=reads, files=lists)
    if stage.done:
        return stage.done
    sizes = _measure(stage, executor)
    keys = find_keys(
        stage, executor, stage.parts("rebalance"), stage.parts("ingest", "source_keys")
    )
    folder = stage.scratch("prepared")
    (queries,) = stage.parts("match", "queries")
    tasks = [
        PrepareTask(
            part=part,
            sizes=sizes,
            queries=queries,
            keys=keys,
            lists=tuple(lists.values()),
            path=storage.join(folder, f"{i:05d}.parquet"),
            output=stage.output(i),
        )
        for i, part in enumerate(stage.parts("rebalance"))
    ]
    ready = stage.map(executor, "prepare", prepare_part, tasks)
    prepared = [outcome.parts["prepared"][0] for outcome in ready]
    packed = pack(stage, executor, prepared, config.limits)
    return stage.finish([*(_without_scratch(outcome) for outcome in ready), *packed])


def _without_scratch(outcome: Outcome) -> Outcome:
    parts = {name: files for name, files in outcome.parts.items() if name != "prepared"}
    return replace(outcome, parts=parts)


def _measure(stage: StageRun, executor: Executor) -> dict[str, str]:
    folder = stage.scratch("sizes")
    tasks = [
        MeasureTask(
            images=part, path=storage.join(folder, f"{i:05d}.parquet"), output=stage.output(i)
        )
        for i, part in enumerate(stage.parts("download", "images"))
    ]
    stage.map(executor, "measure", measure_images, tasks)
    return {task.images.path: task.path for task in tasks}


def measure_images(task: MeasureTask) -> Outcome:
    """Hash one tar of stored images, and note the size of each picture; runs in a worker."""
    path = task.output.workspace.path(task.images.path)
    rows = []
    with HashedInput(path) as file:
        try:
            for member in read_members(file):
                seen = read_header(member.data)
                if seen is not None:
                    rows.append((member.offset, seen.width, seen.height))
        except BrokenTar as error:
            raise CorruptWorkspace(f"{path} is corrupted: {error}; {_AGAIN}") from error
        if file.sha256 != task.images.sha256:
            raise CorruptWorkspace(f"{path} is corrupted: its sha256 differs; {_AGAIN}")
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    sizes = pa.table([pa.array(c, f.type) for c, f in zip(columns, _SIZES, strict=True)], _SIZES)
    write_parquet(task.path, sizes)
    return Outcome()


def prepare_part(task: PrepareTask) -> Outcome:
    """Turn one part into what shards say of their samples, in the order of pair_id; runs in a worker."""
    output = task.output
    # pair_id is a hash: its order is that of nothing else, and mixes the hosts.
    pairs = output.read(task.part, schemas.DEDUPLICATED).sort_by("pair_id").combine_chunks()
    texts = _query_texts(output.workspace, task.queries)
    samples = sample_table(
        pairs, texts, _stored_sizes(pairs, task.sizes), read_keys(task.keys, output.index, pairs)
    )
    kept, removed = removals.split(samples, task.lists)
    prepared = write_prepared(task.path, kept, describe(kept))
    parts = {"prepared": [prepared]}
    if removed.num_rows:
        parts |= removals.write_record(output.workspace, f"{output.index:05d}", removed)
    return Outcome(
        rows_in=len(removed),
        drops={removals.REASON: len(removed)} if len(removed) else {},
        parts=parts,
    )


def sample_table(
    pairs: pa.Table, texts: pa.Array, sizes: tuple[pa.Array, pa.Array], keys: pa.Array
) -> pa.Table:
    """Return SAMPLE and where the images lie, for rows of DEDUPLICATED.

    Args:
        texts: of the queries, by id.
        sizes: width and height of the stored pictures.
        keys: what the input called the rows.
    """
    columns: dict[str, Any] = {name: pairs.column(name) for name in pairs.column_names}
    for name in ("width", "height"):
        columns[f"original_{name}"] = columns[name]
    columns["width"], columns["height"] = sizes
    columns["sha256"] = columns["image_sha256"]
    columns["queries"] = _in_words(columns["query_ids"], texts)
    columns["selected_by"] = _in_words(columns["selected_by"], texts)
    hashes = columns["pdq"].to_pylist()
    columns["pdq"] = pa.array([h and h.hex() for h in hashes], pa.string())
    columns["uid"] = keys
    places = [f"image_{name}" for name in ("file", "offset", "length")]
    return pa.table({name: columns[name] for name in [*schemas.SAMPLE.names, *places]})


def _in_words(ids: pa.ChunkedArray, texts: pa.Array) -> pa.Array:
    lists = ids.combine_chunks()
    starts = pc.subtract(lists.offsets, lists.offsets[0])
    return pa.ListArray.from_arrays(starts, texts.take(lists.flatten()))


@lru_cache(maxsize=1)
def _query_texts(workspace: Workspace, part: Part) -> pa.Array:
    return workspace.read(part, schemas.QUERIES, ["query"]).column(0).combine_chunks()


def _stored_sizes(pairs: pa.Table, sizes: Mapping[str, str]) -> tuple[pa.Array, pa.Array]:
    files = pairs.column("image_file").combine_chunks()
    offsets = pairs.column("image_offset").to_numpy()
    found = np.zeros((len(_SIZES) - 1, len(pairs)), np.int32)
    for name in pc.unique(files).to_pylist():
        rows = np.flatnonzero(pc.equal(files, name).to_numpy(zero_copy_only=False))
        seen = read_parquet(sizes[name])
        known = seen.column("image_offset").to_numpy()
        place = np.searchsorted(known, offsets[rows])
        is_there = place < len(known)
        is_there[is_there] = known[place[is_there]] == offsets[rows][is_there]
        if not is_there.all():
            raise CorruptWorkspace(
                f"{name} holds no JPEG, PNG or WebP at byte {offsets[rows][~is_there][0]:,}; {_AGAIN}"
            )
        for i, side in enumerate(("width", "height")):
            found[i, rows] = seen.column(side).to_numpy()[place]
    return pa.array(found[0]), pa.array(found[1])
