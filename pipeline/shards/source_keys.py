"""Bring what the inputs called their rows to the parts whose shards shall say so, in bounded memory.

Keys and pairs are spread over parts in different ways. Each part of either gets a file sorted by
pair_id; a partition, which is a range of ids, joins its range of all files, and lists what it found by
part of pairs. Ids are hashes, so ranges are even.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome, Part
from pipeline.runtime.parquet import read_parquet, write_parquet
from pipeline.runtime.stage import StageRun, TaskOutput

ROWS_PER_PARTITION = 4_000_000
"""Keys and pairs in a partition, of some 100 bytes each."""

_ROW_GROUP = 8192
_ID_BITS = 128
_FOUND = pa.schema([("part", pa.int32()), ("pair_id", pa.string()), ("key", pa.string())])


@dataclass(frozen=True, kw_only=True)
class SortTask:
    """One part to be sorted by pair_id into the file `path`."""

    part: Part
    schema: pa.Schema
    columns: tuple[str, ...]
    path: str
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class JoinTask:
    """One range of ids, from `first` up to but without `last`, to be joined into the file `path`."""

    keys: tuple[str, ...]
    pairs: tuple[str, ...]
    first: str
    last: str
    path: str


def find_keys(
    stage: StageRun, executor: Executor, pairs: Sequence[Part], keys: Sequence[Part]
) -> tuple[str, ...]:
    """Join SOURCE_KEYS to the parts of pairs; return the files for `read_keys`, none without keys."""
    if not keys:
        return ()
    folder = stage.scratch("keys")
    names = tuple(schemas.SOURCE_KEYS.names)
    sorting = [
        *(
            _sort_task(stage, folder, i, part, schemas.SOURCE_KEYS, names)
            for i, part in enumerate(keys)
        ),
        *(
            _sort_task(stage, folder, len(keys) + i, part, schemas.DEDUPLICATED, names[:1])
            for i, part in enumerate(pairs)
        ),
    ]
    stage.map(executor, "sort keys", sort_part, sorting)
    files = [task.path for task in sorting]
    rows = sum(part.rows for part in (*keys, *pairs))
    edges = _edges(-(-rows // ROWS_PER_PARTITION))
    joining = [
        JoinTask(
            keys=tuple(files[: len(keys)]),
            pairs=tuple(files[len(keys) :]),
            first=first,
            last=last,
            path=storage.join(folder, f"joined-{i:05d}.parquet"),
        )
        for i, (first, last) in enumerate(pairwise(edges))
    ]
    stage.map(executor, "join keys", join_range, joining)
    return tuple(task.path for task in joining)


def _sort_task(
    stage: StageRun,
    folder: str,
    index: int,
    part: Part,
    schema: pa.Schema,
    columns: tuple[str, ...],
) -> SortTask:
    path = storage.join(folder, f"sorted-{index:05d}.parquet")
    return SortTask(
        part=part, schema=schema, columns=columns, path=path, output=stage.output(index)
    )


def _edges(partitions: int) -> list[str]:
    """Return the ids that part the range of all into `partitions`, both ends included."""
    count = max(1, partitions)
    inner = [f"{(i << _ID_BITS) // count:032x}" for i in range(1, count)]
    # "g" is behind every hex digit.
    return ["", *inner, "g"]


def sort_part(task: SortTask) -> Outcome:
    """Sort one part by pair_id; runs in a worker."""
    table = task.output.read(task.part, task.schema, task.columns).sort_by("pair_id")
    write_parquet(task.path, table, row_group=_ROW_GROUP)
    return Outcome()


def join_range(task: JoinTask) -> Outcome:
    """Find the keys of the pairs in one range of ids; runs in a worker."""
    keys = pa.concat_tables([_range(path, task) for path in task.keys]).combine_chunks()
    ranges = [_range(path, task) for path in task.pairs]
    pairs = pa.concat_tables(ranges).column("pair_id").combine_chunks()
    parts = np.repeat(np.arange(len(ranges), dtype=np.int32), [len(r) for r in ranges])
    place = pc.index_in(pairs, value_set=keys.column("pair_id").combine_chunks())
    found = pa.table(
        [pa.array(parts), pairs, keys.column("key").combine_chunks().take(place)], schema=_FOUND
    )
    write_parquet(task.path, found.filter(pc.is_valid(place)), row_group=_ROW_GROUP)
    return Outcome()


def _range(path: str, task: JoinTask) -> pa.Table:
    return read_parquet(path, filters=[("pair_id", ">=", task.first), ("pair_id", "<", task.last)])


def read_keys(files: Sequence[str], part: int, pairs: pa.Table) -> pa.Array:
    """Return the key of each of `pairs`, null where there is none.

    Args:
        part: place of the pairs' part among those that `find_keys` was given.
    """
    if not files:
        return pa.nulls(len(pairs), pa.string())
    found = pa.concat_tables([read_parquet(path, filters=[("part", "=", part)]) for path in files])
    ids = pairs.column("pair_id").combine_chunks()
    place = pc.index_in(ids, value_set=found.column("pair_id").combine_chunks())
    return found.column("key").combine_chunks().take(place)
