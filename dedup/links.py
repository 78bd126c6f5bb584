"""Links from dropped pairs to the pairs they were dropped for, and how chains of them end.

A pair is dropped once, for one that was preferred and that may itself be dropped by a later test:
address, bytes, pixels, then nearness. A chain is therefore at most four links long, and following
each link's target's own link twice leads every one to a pair that stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.runtime import storage
from pipeline.runtime.buckets import part_of, read_bucket, write_buckets
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.stage import StageRun

# From the closest relation to the loosest: a chain is what its loosest link is.
METHODS: Final = ("same_bytes", "same_pixels", "near_duplicate", "similar", "same_url")
ROUNDS: Final = 2

LINKS: Final = pa.schema(
    [
        ("place", pa.int64()),
        ("target", pa.int64()),
        ("duplicate_of", pa.string()),
        ("method", pa.int8()),
        ("distance", pa.float64()),
    ]
)
"""One row per dropped pair: its place, the place and id of its target, index into METHODS, and how far
they are apart: differing bits, 1 - cosine, or 0."""


def link_table(
    rows: pa.Table,
    dropped: npt.NDArray[np.int64],
    targets: pa.Table,
    target: npt.NDArray[np.int64],
    *,
    method: int | npt.NDArray[np.int8],
    distance: npt.NDArray[Any],
) -> pa.Table:
    """Return LINKS from positions in `rows` to positions in `targets`, which have place and pair_id."""
    at = pa.array(target)
    columns = {
        "place": rows.column("place").take(pa.array(dropped)),
        "target": targets.column("place").take(at),
        "duplicate_of": targets.column("pair_id").take(at),
        "method": pa.array(np.broadcast_to(method, len(dropped)), pa.int8()),
        "distance": pa.array(distance, pa.float64()),
    }
    return pa.table(columns, LINKS)


def follow(links: pa.Table, lookup: pa.Table) -> pa.Table:
    """Move each link on to where its target's own link leads, if `lookup` has one.

    The method becomes the looser of the two, the distance their sum, or 0 once the address is the
    only thing in common.
    """
    at = pc.index_in(links.column("target"), lookup.column("place").combine_chunks())
    onward = lookup.take(at)
    method = pc.max_element_wise(links.column("method"), onward.column("method"))
    distance = pc.add(links.column("distance"), pc.fill_null(onward.column("distance"), 0.0))
    by_address = pc.equal(method, METHODS.index("same_url"))
    columns = {
        "place": links.column("place"),
        "target": pc.coalesce(onward.column("target"), links.column("target")),
        "duplicate_of": pc.coalesce(onward.column("duplicate_of"), links.column("duplicate_of")),
        "method": method,
        "distance": pc.if_else(by_address, pa.scalar(0.0), distance),
    }
    return pa.table(columns, LINKS)


def write_links(path: str, links: pa.Table, buckets: int) -> None:
    """Write `links` twice: into buckets by target, to be followed, and by place, to be looked up."""
    for column in ("target", "place"):
        bucket = links.column(column).to_numpy() % buckets
        write_buckets(f"{path}.{column}", links, bucket, buckets)


@dataclass(frozen=True, kw_only=True)
class FollowTask:
    """One bucket of links to follow once; the last time they are written by part, of `parts`."""

    links: tuple[str, ...]
    bucket: int
    buckets: int
    parts: int | None
    followed: str


def follow_all(
    stage: StageRun, executor: Executor, links: Sequence[str], buckets: int, *, parts: int
) -> tuple[str, ...]:
    """Lead every link to a pair that stays; return files of LINKS in buckets by part."""
    for number in range(1, ROUNDS + 1):
        folder = stage.scratch(f"follow-{number}")
        tasks = [
            FollowTask(
                links=tuple(links),
                bucket=bucket,
                buckets=buckets,
                parts=parts if number == ROUNDS else None,
                followed=storage.join(folder, f"{bucket:05d}.links"),
            )
            for bucket in range(buckets)
        ]
        stage.map(executor, f"follow {number}", follow_bucket, tasks)
        links = [task.followed for task in tasks]
    return tuple(links)


def follow_bucket(task: FollowTask) -> Outcome:
    """Follow the links of one bucket; runs in a worker."""
    links = read_bucket([f"{path}.target" for path in task.links], task.bucket, LINKS)
    lookup = read_bucket([f"{path}.place" for path in task.links], task.bucket, LINKS)
    followed = follow(links, lookup)
    if task.parts is None:
        write_links(task.followed, followed, task.buckets)
    else:
        write_buckets(task.followed, followed, part_of(followed), task.parts)
    return Outcome(rows_in=links.num_rows)
