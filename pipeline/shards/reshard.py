"""Write some samples of finished shards, or all, as a corpus of their own; nothing is fetched again."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from pipeline import schemas
from pipeline.errors import CorruptWorkspace, InputError
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome
from pipeline.runtime.parquet import read_parquet
from pipeline.runtime.stage import StageRun, begin
from pipeline.runtime.workspace import PROPERTIES, Workspace
from pipeline.shard import ShardLimits
from pipeline.shards import removals
from pipeline.shards.corpus import (
    STAGE,
    Corpus,
    Shard,
    check_whole,
    reading,
    real_path,
    writing,
)
from pipeline.shards.pack import pack, write_prepared
from pipeline.shards.verify import read_index, read_sound_tar

if TYPE_CHECKING:
    from pipeline.shards.choose import Chosen

_OWN = {STAGE, removals.FOLDER, "train", "evaluate", "features", PROPERTIES, "catalog.duckdb"}


class ReshardConfig(ShardLimits):
    """Write some samples of finished shards, or all, as a corpus of their own."""

    where: str | None = None
    """condition that a sample must meet, in DuckDB's SQL over the columns of the index"""
    uids: str | None = None
    """file of the uids or pair_ids to take: text, Parquet, or DataComp's .npy"""


class ReshardRecord(ReshardConfig):
    """What the manifest of such a corpus says of its making."""

    source: str
    """workspace or folder of the shards that were read"""
    source_content: str
    """what tells that corpus from any other"""
    chosen: str | None = None
    """what tells the samples that were meant from any others, None if all were"""


@dataclass(frozen=True, kw_only=True)
class TakeTask:
    """One shard to take samples from, into the prepared rows at `path`.

    Attributes:
        chosen: which samples are meant, empty for all.
        lists: of what must not be taken.
    """

    shard: Shard
    chosen: str
    lists: tuple[str, ...]
    path: str


def reshard(
    config: ReshardConfig, source: str, workspace: Workspace, executor: Executor
) -> Manifest:
    """Write the samples meant as the stage "shard" of `workspace`, in their order, under new keys.

    Raises:
        ConfigError: if the condition is wrong.
        InputError: if there are no shards at `source`, no sample is meant, or other work goes on there.
        TaskFailed: if a shard is not what was written.
    """
    with reading(source) as corpus, writing(workspace):
        return _reshard(config, source, corpus, workspace, executor)


def _reshard(
    config: ReshardConfig, source: str, corpus: Corpus, workspace: Workspace, executor: Executor
) -> Manifest:
    files: Mapping[str, str] = removals.list_files(workspace)
    if config.uids is not None:
        files = {**files, "uids": config.uids}
    # Not in the workspace, whose shards `begin` may delete, before it is known that some are meant.
    with tempfile.TemporaryDirectory(prefix="witmill-") as folder:
        chosen = None
        if config.where is not None or config.uids is not None:
            # DuckDB takes a while to import, and the command line begins with this module.
            from pipeline.shards.choose import choose

            chosen = choose(corpus, config.where, config.uids, folder)
        record = ReshardRecord(
            **config.model_dump(exclude_unset=True),
            source=source,
            source_content=corpus.content,
            chosen=chosen and chosen.digest,
        )
        stage = begin(STAGE, record, workspace, files=files)
        if stage.done:
            return stage.done
        return _write(stage, executor, corpus, chosen, config)


def check_output(source: str, workspace: Workspace) -> None:
    """Make sure that shards of `source` may be written to `workspace`.

    Raises:
        InputError: if it is the source itself, or holds something else than such shards.
    """
    if real_path(source) in (real_path(workspace.root), real_path(workspace.path(STAGE))):
        raise InputError(f"{workspace.root} is what is read; choose another --output")
    check_whole(workspace.root)
    manifest = workspace.manifest(STAGE)
    system, inner = storage.filesystem(workspace.root)
    with storage.storage_errors("look at", workspace.root):
        inside = system.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    others = {info.base_name for info in inside} - _OWN
    if (manifest is not None and "source_content" not in manifest.settings) or others:
        raise InputError(
            f"{workspace.root} holds {min(others, default='shards of a run')}, expected nothing or a "
            "corpus that reshard wrote; choose another --output"
        )


def _write(
    stage: StageRun,
    executor: Executor,
    corpus: Corpus,
    chosen: "Chosen | None",
    config: ReshardConfig,
) -> Manifest:
    folder = stage.scratch("taken")
    kept = ""
    if chosen:
        kept = storage.join(folder, "chosen.parquet")
        with storage.atomic_output(kept) as target, Path(chosen.path).open("rb") as given:
            shutil.copyfileobj(given, target, storage.COPY_BYTES)
    lists = tuple(removals.list_files(stage.workspace).values())
    tasks = [
        TakeTask(
            shard=shard,
            chosen=kept,
            lists=lists,
            path=storage.join(folder, f"{i:05d}.parquet"),
        )
        for i, shard in enumerate(corpus.shards)
    ]
    taken = stage.map(executor, "take", take_samples, tasks)
    found = sum(outcome.rows_in for outcome in taken)
    if chosen and found != chosen.rows:
        raise CorruptWorkspace(
            f"{chosen.rows:,} samples of {corpus.folder} are meant, {found:,} of them are in the shards that "
            "the indexes name; run `witmill verify` to see what is wrong"
        )
    prepared = [outcome.parts["prepared"][0] for outcome in taken]
    return stage.finish(pack(stage, executor, prepared, config.limits))


def take_samples(task: TakeTask) -> Outcome:
    """Check one shard, and note which of its samples to pack; runs in a worker."""
    whole = index = read_index(task.shard)
    if task.chosen:
        file_name = task.shard.name.rpartition("/")[2]
        meant = read_parquet(task.chosen, filters=[("shard", "=", file_name)])
        keys = meant.column("key").combine_chunks()
        index = index.filter(pc.is_in(index.column("key"), value_set=keys))
    rows_in = len(index)
    index, _ = removals.split(index, task.lists)
    missing = [name for name in schemas.SAMPLE.names if name not in index.column_names]
    if missing:
        raise InputError(f"{task.shard.index} lacks the columns {', '.join(missing)}")
    metadata = _read_metadata(task.shard, whole, index) if len(index) else []
    places = {"image_file": pa.array([task.shard.tar] * len(index), pa.string())}
    places |= {name: index.column(name) for name in ("image_offset", "image_length")}
    samples = index.select(schemas.SAMPLE.names)
    for name, column in places.items():
        samples = samples.append_column(name, column)
    return Outcome(
        rows_in=rows_in, parts={"prepared": [write_prepared(task.path, samples, metadata)]}
    )


def _read_metadata(shard: Shard, whole: pa.Table, index: pa.Table) -> list[bytes]:
    """Return the KEY.json of each row of `index` as it is, from a tar that is checked on the way."""
    wanted = {f"{key}.json" for key in index.column("key").to_pylist()}
    # As the members stand in the order of the index.
    return [m.data for m in read_sound_tar(shard, whole) if m.name in wanted]
