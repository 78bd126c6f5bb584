"""Thin out near-duplicates block by block, in order of preference.

What stays is not alike to anything else that stays, what is dropped is alike to the pair named as its
stead, and a chain of pictures each a little different from the last does not end as one: it breaks
where likeness does. Blocks bound memory and change nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.alike import Alike, find_preferred, keep_apart, with_vectors
from dedup.exact import PICTURES, PREFERENCE, Distinct, by_preference, sample_of
from dedup.links import LINKS, write_links
from pipeline.runtime import storage
from pipeline.runtime.buckets import read_all, read_bucket, write_buckets, write_whole
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome, Part
from pipeline.runtime.stage import StageRun
from pipeline.runtime.workspace import Workspace

# Pictures in one block: a process takes 1.9 GB with it. Half of it would make twice as many comparisons
# of blocks, each at the price of more than half.
BLOCK_ROWS: Final = 1 << 22
# With embeddings, some 2.6 KB each; also how many rows of a part are routed at once.
VECTOR_BLOCK_ROWS: Final = 1 << 15
# Of a block's worth of pictures so many are looked at to find where blocks end.
SAMPLED: Final = 1000


@dataclass(frozen=True, kw_only=True)
class RouteTask:
    """The pictures of one file to route into blocks, whose bounds the samples of all decide."""

    pictures: tuple[str, ...]
    index: int
    blocks: int
    routed: str


@dataclass(frozen=True, kw_only=True)
class VectorsTask:
    """The pictures of one part to route into blocks with their embeddings, one file for `rows` rows."""

    pictures: tuple[str, ...]
    part: int
    workspace: Workspace
    embeddings: Part
    rows: int
    blocks: int
    routed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EarlierTask:
    """One block to compare with what stays of an earlier one."""

    pictures: tuple[str, ...]
    block: int
    kept: str
    alike: Alike
    links: str


@dataclass(frozen=True, kw_only=True)
class BlockTask:
    """One block to thin out; `earlier` are the links to what stays of the blocks before it."""

    pictures: tuple[str, ...]
    block: int
    earlier: tuple[str, ...]
    alike: Alike
    buckets: int
    kept: str
    links: str


def sample_every(alike: Alike) -> int:
    """Return of how many pictures one is to be in the sample that bounds blocks."""
    return max(1, _block_rows(alike) // SAMPLED)


def _block_rows(alike: Alike) -> int:
    return VECTOR_BLOCK_ROWS if alike.needs_vectors else BLOCK_ROWS


def thin_out(
    stage: StageRun,
    executor: Executor,
    distinct: Distinct,
    alike: Alike,
    *,
    embeddings: Sequence[Part],
    buckets: int,
) -> list[str]:
    """Drop what is alike to a preferred picture that stays; return the files of links.

    Args:
        embeddings: of each part, where `alike` needs them.
    """
    if not distinct.count:
        return []
    blocks = 1 + distinct.count // _block_rows(alike)
    if alike.needs_vectors:
        pictures = _route_vectors(stage, executor, distinct.pictures, embeddings, blocks)
    else:
        pictures = _route(stage, executor, distinct.pictures, blocks)
    folder = stage.scratch("near")
    tasks = [
        BlockTask(
            pictures=pictures,
            block=block,
            earlier=tuple(_earlier(folder, block, i) for i in range(block)),
            alike=alike,
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
            alike=task.alike,
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
            blocks=blocks,
            routed=storage.join(folder, f"{i:05d}.pictures"),
        )
        for i in range(len(pictures))
    ]
    stage.map(executor, "blocks", route_pictures, tasks)
    return tuple(task.routed for task in tasks)


def _route_vectors(
    stage: StageRun,
    executor: Executor,
    pictures: tuple[str, ...],
    embeddings: Sequence[Part],
    blocks: int,
) -> tuple[str, ...]:
    folder = stage.scratch("blocks")
    tasks = [
        VectorsTask(
            pictures=pictures,
            part=i,
            workspace=stage.workspace,
            embeddings=part,
            rows=VECTOR_BLOCK_ROWS,
            blocks=blocks,
            routed=tuple(
                storage.join(folder, f"{i:05d}-{start // VECTOR_BLOCK_ROWS:05d}.pictures")
                for start in range(0, part.rows, VECTOR_BLOCK_ROWS)
            ),
        )
        for i, part in enumerate(embeddings)
    ]
    stage.map(executor, "blocks", route_vectors, tasks)
    return tuple(path for task in tasks for path in task.routed)


def route_pictures(task: RouteTask) -> Outcome:
    """Route one file of pictures into blocks; runs in a worker."""
    pictures = read_all(task.pictures[task.index])
    block = block_of(pictures, _sample(task.pictures), task.blocks)
    write_buckets(task.routed, pictures, block, task.blocks)
    return Outcome(rows_in=pictures.num_rows)


def route_vectors(task: VectorsTask) -> Outcome:
    """Route the pictures of one part with their embeddings into blocks; runs in a worker."""
    pictures = read_bucket(task.pictures, task.part, PICTURES).sort_by("place")
    row = pictures.column("place").to_numpy() & 0xFFFFFFFF
    sample = _sample(task.pictures)
    for number, vectors in enumerate(_embeddings(task)):
        start = number * task.rows
        first, end = np.searchsorted(row, [start, start + len(vectors)]).tolist()
        some = pictures.slice(first, end - first)
        block = block_of(some, sample, task.blocks)
        some = with_vectors(some, vectors[row[first:end] - start])
        write_buckets(task.routed[number], some, block, task.blocks)
    return Outcome(rows_in=pictures.num_rows)


def _embeddings(task: VectorsTask) -> Iterator[npt.NDArray[np.float16]]:
    """Yield the vectors of as many rows of a part as go into one file, from its first row on."""
    # Image codecs and Parquet of vectors: only where embeddings are asked for.
    from dedup.embedding.embeddings import read_embeddings

    held: list[npt.NDArray[np.float16]] = []
    for vectors in read_embeddings(task.workspace, task.embeddings):
        held.append(vectors)
        while sum(map(len, held)) >= task.rows:
            whole = np.concatenate(held)
            yield whole[: task.rows]
            held = [whole[task.rows :]]
    if sum(map(len, held)):
        yield np.concatenate(held)


def _sample(pictures: Sequence[str]) -> pa.Table:
    return read_bucket([sample_of(path) for path in pictures], 0, PICTURES)


def compare_block(task: EarlierTask) -> Outcome:
    """Link the pictures of a block to what stays of an earlier one; runs in a worker."""
    pictures = read_bucket(task.pictures, task.block, None)
    kept = read_bucket([task.kept], 0, None)
    write_whole(task.links, find_preferred(pictures, kept, task.alike))
    return Outcome(rows_in=pictures.num_rows)


def thin_block(task: BlockTask) -> Outcome:
    """Thin out one block; runs in a worker."""
    pictures = read_bucket(task.pictures, task.block, None)
    kept, links = thin_table(pictures, read_bucket(task.earlier, 0, LINKS), task.alike)
    write_whole(task.kept, kept)
    write_links(task.links, links, task.buckets)
    return Outcome(rows_in=pictures.num_rows)


def thin_table(pictures: pa.Table, earlier: pa.Table, alike: Alike) -> tuple[pa.Table, pa.Table]:
    """Thin out the pictures of one block.

    Args:
        pictures: in any order.
        earlier: LINKS to what stays of earlier blocks, in the order of the blocks.

    Returns:
        The pictures that stay, by preference; LINKS of the others.
    """
    _, first = np.unique(earlier.column("place").to_numpy(), return_index=True)
    earlier = earlier.take(pa.array(first))
    is_dropped = pc.is_in(pictures.column("place"), earlier.column("place").combine_chunks())
    kept, links = keep_apart(pictures.filter(pc.invert(is_dropped)), alike)
    return kept, pa.concat_tables([earlier, links])


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
