"""Mark what an earlier run kept, so that it is preferred to what came since.

The pair ids that the earlier `dedup` kept and the rows of this run are both routed into buckets by pair
id; in each bucket the rows whose id is there are marked, and all are routed on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dedup.exact import ROWS, bucket_of, digests
from pipeline import schemas
from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.buckets import part_of, read_bucket, write_buckets
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome, Part
from pipeline.runtime.stage import StageRun
from pipeline.runtime.workspace import MANIFEST, Workspace

IDS: Final = pa.schema([("pair_id", pa.string())])


@dataclass(frozen=True, kw_only=True)
class IdsTask:
    """One part of what the earlier run kept, whose ids to route into buckets."""

    workspace: Workspace
    part: Part
    buckets: int
    ids: str


@dataclass(frozen=True, kw_only=True)
class MarkTask:
    """One bucket of rows to mark and to route on by address; the marked places by part."""

    rows: tuple[str, ...]
    ids: tuple[str, ...]
    bucket: int
    buckets: int
    parts: int
    marked: str
    places: str


def open_earlier(path: str, workspace: Workspace) -> Workspace:
    """Return the workspace of the earlier run.

    Raises:
        ConfigError: if it is this very workspace.
        MissingInput: if its `dedup` has not finished.
    """
    earlier = Workspace(root=path)
    if earlier.root == workspace.root:
        raise ConfigError(
            f"dedup.earlier is {path}, this workspace itself; expected that of an earlier run"
        )
    earlier.finished("dedup")
    return earlier


def manifest_of(earlier: Workspace) -> str:
    """Return the file that stands for what the earlier run kept."""
    return earlier.path("dedup", MANIFEST)


def mark_earlier(
    stage: StageRun,
    executor: Executor,
    earlier: Workspace,
    rows: Sequence[str],
    *,
    buckets: int,
    parts: int,
) -> tuple[list[str], list[str]]:
    """Return files of ROWS in buckets by url, marked, and files of marked PLACES by part.

    Args:
        rows: files of ROWS in buckets by pair id.
    """
    folder = stage.scratch("earlier")
    kept = earlier.finished("dedup").tables["main"]
    routing = [
        IdsTask(
            workspace=earlier,
            part=part,
            buckets=buckets,
            ids=storage.join(folder, f"{i:05d}.ids"),
        )
        for i, part in enumerate(kept)
    ]
    stage.map(executor, "earlier ids", route_ids, routing)
    marking = [
        MarkTask(
            rows=tuple(rows),
            ids=tuple(task.ids for task in routing),
            bucket=bucket,
            buckets=buckets,
            parts=parts,
            marked=storage.join(folder, f"{bucket:05d}.rows"),
            places=storage.join(folder, f"{bucket:05d}.places"),
        )
        for bucket in range(buckets)
    ]
    stage.map(executor, "earlier", mark_bucket, marking)
    return [task.marked for task in marking], [task.places for task in marking]


def route_ids(task: IdsTask) -> Outcome:
    """Route the ids of one part; runs in a worker."""
    ids = task.workspace.read(task.part, schemas.DEDUPLICATED, ["pair_id"]).cast(IDS)
    bucket = bucket_of(digests(ids.column("pair_id")), task.buckets)
    write_buckets(task.ids, ids, bucket, task.buckets)
    return Outcome(rows_in=ids.num_rows)


def mark_bucket(task: MarkTask) -> Outcome:
    """Mark the rows of one bucket; runs in a worker."""
    rows = read_bucket(task.rows, task.bucket, ROWS)
    ids = read_bucket(task.ids, task.bucket, IDS)
    known = pc.is_in(rows.column("pair_id"), ids.column("pair_id").combine_chunks())
    at = rows.schema.get_field_index("is_earlier")
    rows = rows.set_column(at, ROWS.field(at), known.cast(pa.int8()))
    write_buckets(task.marked, rows, bucket_of(rows.column("url"), task.buckets), task.buckets)
    places = rows.filter(known).select(["place"])
    write_buckets(task.places, places, part_of(places), task.parts)
    return Outcome(rows_in=rows.num_rows, rows_out=places.num_rows)
