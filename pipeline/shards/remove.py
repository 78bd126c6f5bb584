"""Take pairs out of finished shards for good, and keep a record.

Only the shards concerned are written anew. All that is new is first written beside, with the manifest
last; then it is put in place, with the manifest last again. Killed before the first manifest, nothing
has happened; killed after it, the workspace has no finished shards until the same command, or one
without a list, has put the rest in place.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from pipeline import schemas
from pipeline.pictures.tar import Member
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import (
    DROPS,
    Manifest,
    Outcome,
    Part,
    describe_schema,
    fingerprint_of,
)
from pipeline.runtime.progress import Progress
from pipeline.runtime.stage import TaskOutput
from pipeline.runtime.workspace import MANIFEST, Workspace
from pipeline.shards import removals
from pipeline.shards.corpus import REMOVING, STAGE, Shard, open_corpus
from pipeline.shards.pack import Sample, write_files
from pipeline.shards.verify import read_index, read_sound_tar

_MEMBERS = 3


@dataclass(frozen=True, kw_only=True)
class RemoveTask:
    """One shard to take out of it what `lists` name; `name` is that of the records."""

    shard: Shard
    lists: tuple[str, ...]
    name: str
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a removal did: pairs taken out, shards written anew, and whether there were any."""

    pairs: int
    shards: int
    has_shards: bool


def finish_removal(workspace: Workspace) -> bool:
    """Put in place what a removal that was cut off had ready; return whether there was one."""
    staging = workspace.path(REMOVING)
    last = storage.join(staging, STAGE, MANIFEST)
    is_ready = storage.exists(last)
    if is_ready:
        # Until all is in place, there are no finished shards.
        storage.remove(workspace.path(STAGE, MANIFEST))
        for path in storage.list_inside(staging):
            if path != last:
                storage.move(path, workspace.path(path[len(staging) :].lstrip("/")))
        storage.move(last, workspace.path(STAGE, MANIFEST))
    storage.remove(staging)
    return is_ready


def remove(workspace: Workspace, lists: Sequence[pa.Table], executor: Executor) -> Removal:
    """Take the pairs that `lists`, of REMOVALS, name out of the shards, now and whenever they are packed.

    Raises:
        CorruptWorkspace: if the shards are not what was written.
        TaskFailed: if one of them cannot be written anew.
    """
    staging = Workspace(root=workspace.path(REMOVING))
    manifest = workspace.manifest(STAGE)
    number = _next_number(workspace, manifest)
    names = _write_lists(staging, lists, number)
    if manifest is None:
        for name in names:
            storage.move(staging.path(name), workspace.path(name))
        return Removal(pairs=0, shards=0, has_shards=False)
    workspace.check_sizes(manifest)
    paths = tuple(staging.path(name) for name in names)
    tasks = [
        RemoveTask(
            shard=shard,
            lists=paths,
            name=f"{number:05d}-{i:05d}",
            output=TaskOutput(workspace=staging, stage=STAGE, index=i),
        )
        for i, shard in enumerate(open_corpus(workspace.root).shards)
    ]
    outcomes = []
    with Progress("remove", len(tasks), unit="shards") as progress:
        for outcome in executor.map(remove_from_shard, tasks):
            progress.advance(rows=outcome.rows_in, drops=outcome.rows_in - outcome.rows_out)
            if outcome.drops:
                outcomes.append(outcome)
    files = {name: asdict(storage.stamp(staging.path(name))) for name in names}
    changed = _without(manifest, outcomes, files)
    storage.write_bytes(staging.path(STAGE, MANIFEST), changed.to_json().encode())
    finish_removal(workspace)
    return Removal(
        pairs=manifest.rows_out - changed.rows_out, shards=len(outcomes), has_shards=True
    )


def _next_number(workspace: Workspace, manifest: Manifest | None) -> int:
    """Return a number that no list and no record of a removal has, also if others were deleted."""
    records = [part.path for part in manifest.tables.get("removed", [])] if manifest else []
    names = [*removals.list_files(workspace), *(path for path in records if "-" in path)]
    numbers = (re.match(r"\d+", name.rpartition("/")[2]) for name in names)
    return max((int(found[0]) + 1 for found in numbers if found), default=0)


def _write_lists(staging: Workspace, lists: Sequence[pa.Table], number: int) -> list[str]:
    table = pa.concat_tables([schemas.REMOVALS.empty_table(), *lists])
    names: list[str] = []
    for start in range(0, len(table), removals.ROWS_PER_FILE):
        name = f"{removals.FOLDER}/{number + len(names):05d}.parquet"
        staging.write(name, table.slice(start, removals.ROWS_PER_FILE), schemas.REMOVALS)
        names.append(name)
    return names


def remove_from_shard(task: RemoveTask) -> Outcome:
    """Write one shard anew without what the lists name, if they name anything; runs in a worker."""
    index = read_index(task.shard)
    kept, removed = removals.split(index, task.lists)
    if not len(removed):
        return Outcome(rows_in=len(index), rows_out=len(index))
    samples = _kept_samples(task.shard, index, set(kept.column("key").to_pylist()))
    parts = write_files(task.output, kept.select(schemas.SAMPLE.names), samples)
    parts |= removals.write_record(task.output.workspace, task.name, removed)
    return Outcome(
        rows_in=len(index),
        rows_out=len(kept),
        drops={removals.REASON: len(removed)},
        parts=parts,
    )


def _kept_samples(shard: Shard, index: pa.Table, keys: set[str]) -> Iterator[Sample]:
    """Yield the samples of a tar that are among `keys`; all of it is checked on the way."""
    members: list[Member] = []
    for member in read_sound_tar(shard, index):
        members.append(member)
        if len(members) == _MEMBERS:
            key = member.name.partition(".")[0]
            if key in keys:
                image, caption, metadata = (m.data for m in members)
                yield Sample(key=key, image=image, caption=caption, metadata=metadata)
            members.clear()


def _without(
    manifest: Manifest, outcomes: Sequence[Outcome], files: Mapping[str, object]
) -> Manifest:
    """Return the manifest of the shards after the removal."""
    tables = {name: list(parts) for name, parts in manifest.tables.items()}
    for outcome in outcomes:
        for name, parts in outcome.parts.items():
            tables[name] = _replaced(tables.get(name, []), parts)
    removed = sum(outcome.rows_in - outcome.rows_out for outcome in outcomes)
    known = dict(manifest.schemas)
    if removed:
        known["removed"] = describe_schema(schemas.REMOVED)
        known[DROPS] = describe_schema(schemas.DROPS)
    all_files = {**manifest.files, **files}
    drops = {**manifest.drops}
    if removed:
        drops[removals.REASON] = drops.get(removals.REASON, 0) + removed
    return replace(
        manifest,
        fingerprint=fingerprint_of(STAGE, manifest.settings, manifest.inputs, all_files),
        files=all_files,
        rows_out=manifest.rows_out - removed,
        drops=drops,
        tables=tables,
        schemas=known,
    )


def _replaced(parts: Sequence[Part], new: Sequence[Part]) -> list[Part]:
    by_path = {part.path: part for part in (*parts, *new)}
    return sorted(by_path.values(), key=lambda part: (len(part.path), part.path))
