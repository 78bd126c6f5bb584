"""Thin out near-duplicates block by block, in order of preference.

A picture is dropped if one that stays, and is preferred to it, lies within the radius; of several
it is dropped for the most preferred. So what stays is further apart than the radius, what is dropped
is within the radius of the pair named as its stead, and a chain of pictures each a little different
from the last does not end as one: it breaks where the radius does. Blocks bound memory and change
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.buckets import read_bucket, write_buckets, write_whole
from dedup.exact import PICTURES, PREFERENCE, Distinct, by_preference
from dedup.links import LINKS, METHODS, link_table, write_links
from dedup.perceptual import as_words, find_near, keep_first
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.stage import StageRun

# Pictures in one block, which one task holds: 88 bytes each, and twice that to compare them.
BLOCK_ROWS: Final = 1 << 21
# Of a block's worth of pictures so many are looked at to find where blocks end.
SAMPLED: Final = 1000

_NEAR: Final = METHODS.index("near_duplicate")


@dataclass(frozen=True, kw_only=True)
class RouteTask:
    """One file of pictures to route into blocks, whose bounds every `every`-th of all decides."""

    pictures: tuple[str, ...]
    index: int
    every: int
    blocks: int
    routed: str


@dataclass(frozen=True, kw_only=True)
class EarlierTask:
    """One block to compare with what stays of an earlier one."""

    pictures: tuple[str, ...]
    block: int
    kept: str
    radius: int
    links: str


@dataclass(frozen=True, kw_only=True)
class BlockTask:
    """One block to thin out; `earlier` are the links to what stays of the blocks before it."""

    pictures: tuple[str, ...]
    block: int
    earlier: tuple[str, ...]
    radius: int
    buckets: int
    kept: str
    links: str


def thin_out(
    stage: StageRun, executor: Executor, distinct: Distinct, *, radius: int, buckets: int
) -> list[str]:
    """Drop what is near a preferred picture that stays; return the files of links."""
    blocks = 1 + distinct.count // BLOCK_ROWS
    pictures = distinct.pictures
    if blocks > 1:
        pictures = _route(stage, executor, pictures, blocks)
    folder = stage.scratch("near")
    tasks = [
        BlockTask(
            pictures=pictures,
            block=block,
            earlier=tuple(_earlier(folder, block, i) for i in range(block)),
            radius=radius,
            buckets=buckets,
            kept=storage.join(folder, f"{block:05d}.kept"),
            links=storage.join(folder, f"{block:05d}.links"),
        )
        for block in range(blocks)
    ]
    for task in tasks:
        stage.map(executor, f"near {task.block + 1} of {blocks}", thin_block, [task])
        if others := _others(tasks, task):
            stage.map(executor, f"near {task.block + 1} to others", compare_block, others)
    return [task.links for task in tasks]


def _others(tasks: Sequence[BlockTask], task: BlockTask) -> list[EarlierTask]:
    """Return the comparisons of what stays of one block with each block after it."""
    return [
        EarlierTask(
            pictures=later.pictures,
            block=later.block,
            kept=task.kept,
            radius=task.radius,
            links=later.earlier[task.block],
        )
        for later in tasks[task.block + 1 :]
    ]


def _earlier(folder: str, block: int, earlier: int) -> str:
    return storage.join(folder, f"{block:05d}-{earlier:05d}.links")


def _route(
    stage: StageRun, executor: Executor, pictures: tuple[str, ...], blocks: int
) -> tuple[str, ...]:
    folder = stage.scratch("blocks")
    tasks = [
        RouteTask(
            pictures=pictures,
            index=i,
            every=max(1, BLOCK_ROWS // SAMPLED),
            blocks=blocks,
            routed=storage.join(folder, f"{i:05d}.pictures"),
        )
        for i in range(len(pictures))
    ]
    stage.map(executor, "blocks", route_pictures, tasks)
    return tuple(task.routed for task in tasks)


def route_pictures(task: RouteTask) -> Outcome:
    """Route one file of pictures into blocks; runs in a worker."""
    sample = [PICTURES.empty_table()]
    for path in task.pictures:
        found = read_bucket([path], 0, PICTURES)
        sample.append(found.take(pa.array(np.arange(0, found.num_rows, task.every))))
    pictures = read_bucket([task.pictures[task.index]], 0, PICTURES)
    block = block_of(pictures, pa.concat_tables(sample), task.blocks)
    write_buckets(task.routed, pictures, block, task.blocks)
    return Outcome(rows_in=pictures.num_rows)


def compare_block(task: EarlierTask) -> Outcome:
    """Link the pictures of a block to what stays of an earlier one; runs in a worker."""
    pictures = read_bucket(task.pictures, task.block, PICTURES)
    kept = read_bucket([task.kept], 0, PICTURES)
    write_whole(task.links, find_preferred(pictures, kept, task.radius))
    return Outcome(rows_in=pictures.num_rows)


def thin_block(task: BlockTask) -> Outcome:
    """Thin out one block; runs in a worker."""
    pictures = read_bucket(task.pictures, task.block, PICTURES)
    earlier = read_bucket(task.earlier, 0, LINKS)
    kept, links = keep_apart(pictures, earlier, task.radius)
    write_whole(task.kept, kept)
    write_links(task.links, links, task.buckets)
    return Outcome(rows_in=pictures.num_rows)


def block_of(pictures: pa.Table, sample: pa.Table, blocks: int) -> npt.NDArray[np.int64]:
    """Return for each picture one of `blocks` blocks, ascending with preference.

    Args:
        sample: PICTURES of the whole corpus whose quantiles bound the blocks.
    """
    quantiles = np.arange(1, blocks) * sample.num_rows // blocks
    bounds = by_preference(sample).take(pa.array(quantiles))
    order = pc.sort_indices(pa.concat_tables([bounds, pictures]), PREFERENCE).to_numpy()
    is_picture = order >= bounds.num_rows
    block = np.empty(pictures.num_rows, np.int64)
    block[order[is_picture] - bounds.num_rows] = np.cumsum(~is_picture)[is_picture]
    return block


def find_preferred(pictures: pa.Table, kept: pa.Table, radius: int) -> pa.Table:
    """Return LINKS from each picture to the most preferred of `kept` within `radius`, if any.

    Args:
        kept: pictures of an earlier block that stay, by preference.
    """
    near = find_near(as_words(pictures.column("pdq")), as_words(kept.column("pdq")), radius)
    query, first = np.unique(near.query, return_index=True)
    return link_table(
        pictures, query, kept, near.target[first], method=_NEAR, distance=near.distance[first]
    )


def keep_apart(pictures: pa.Table, earlier: pa.Table, radius: int) -> tuple[pa.Table, pa.Table]:
    """Thin out one block.

    Args:
        pictures: PICTURES of the block, in any order.
        earlier: LINKS to what stays of earlier blocks, in the order of the blocks.

    Returns:
        PICTURES that stay, by preference; LINKS of the others.
    """
    _, first = np.unique(earlier.column("place").to_numpy(), return_index=True)
    earlier = earlier.take(pa.array(first))
    is_dropped = pc.is_in(pictures.column("place"), earlier.column("place").combine_chunks())
    rest = by_preference(pictures.filter(pc.invert(is_dropped)))
    leaders = keep_first(as_words(rest.column("pdq")), radius)
    dropped = np.flatnonzero(leaders.leader >= 0)
    links = link_table(
        rest,
        dropped,
        rest,
        leaders.leader[dropped],
        method=_NEAR,
        distance=leaders.distance[dropped],
    )
    return rest.filter(pa.array(leaders.leader < 0)), pa.concat_tables([earlier, links])
