"""Keep one of each picture, and none that an evaluation set holds.

A pair that overlaps an evaluation set is dropped first and takes no further part. Of the others, of
each address, then each content, then each pixels one pair stays; last, in order of preference, a
picture near one that stays is dropped for it. In bounded memory:

1. evaluation: hash the pictures of each evaluation set;
2. compare: find overlaps per part, and route what deduplication carries of a pair by its address;
3. url, image_sha256, pixel_hash: keep one per value, each bucket by itself, and route by the next;
4. near: blocks in order of preference, each against what stays of those before it, then itself;
5. follow: from each dropped pair to one that stays;
6. dedup: write the parts.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dedup.buckets import read_bucket, write_buckets, write_whole
from dedup.evalsets import files_of, read_evalsets
from dedup.exact import READ, bucket_of, keep_one_of_each, read_rows
from dedup.links import LINKS, METHODS, follow_all
from pipeline import schemas
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import Workspace

REASONS = {
    "evaluation_overlap": "the picture is, or nearly is, one of an evaluation set",
    "same_url": "another pair with the same address was preferred",
    "same_bytes": "a pair whose picture has the same bytes was preferred",
    "same_pixels": "a pair whose picture has the same pixels was preferred",
    "near_duplicate": "a pair whose picture is nearly the same was preferred",
}

COMPARED: Final = [name for name in schemas.DOWNLOADED.names if name in READ]
# Rows that one task of an exact test holds; the stage's processes take 0.9 GB with it.
BUCKET_ROWS: Final = 1 << 20


class DedupConfig(Settings):
    """Keep one of each picture, and none that an evaluation set holds."""

    max_distance: int = Field(31, ge=0, le=31)
    """differing PDQ bits, of 256, up to which two pictures count as the same"""
    min_quality: int = Field(50, ge=0, le=100)
    """PDQ quality below which a picture is compared by address, bytes and pixels alone"""
    evalsets: str = ""
    """TOML file that names evaluation sets; corpus pictures that overlap them are dropped"""


@dataclass(frozen=True, kw_only=True)
class CompareTask:
    """One part to compare with the evaluation sets and to write as rows in buckets."""

    part: Part
    index: int
    output: TaskOutput
    min_quality: int
    evaluation: tuple[str, ...]
    buckets: int
    overlaps: str
    rows: str


@dataclass(frozen=True, kw_only=True)
class ApplyTask:
    """One part to write without what overlaps and what was dropped for another pair."""

    part: Part
    index: int
    output: TaskOutput
    overlaps: str
    links: tuple[str, ...]


def run(config: DedupConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Keep evaluation pictures out of the downloaded pairs, then deduplicate the others.

    Raises:
        ConfigError: if the file of evaluation sets is not as it should be.
        InputError: if a set holds no pictures or cannot be opened.
        MissingInput: if `download` has not finished.
        TaskFailed: if a part cannot be read or a set cannot be hashed.
    """
    # numba takes a second to import, image codecs are an extra: neither is for `witmill --help`.
    from dedup import clusters, decontaminate

    evalsets = read_evalsets(config.evalsets) if config.evalsets else ()
    # Before `begin`, which deletes what an earlier run with other settings made.
    files = files_of(config.evalsets, evalsets) if evalsets else {}
    stage = begin("dedup", config, workspace, reads=["download"], files=files)
    if stage.done:
        return stage.done
    buckets = 1 + sum(part.rows for part in stage.parts("download")) // BUCKET_ROWS
    hashes, hashed = decontaminate.hash_evalsets(
        stage, executor, evalsets, min_quality=config.min_quality
    )
    comparing = _compare_tasks(stage, config, hashes, buckets)
    stage.map(executor, "compare", compare_part, comparing)
    distinct = keep_one_of_each(stage, executor, [task.rows for task in comparing], buckets)
    near = clusters.thin_out(stage, executor, distinct, radius=config.max_distance, buckets=buckets)
    links = follow_all(stage, executor, [*distinct.links, *near], buckets, parts=len(comparing))
    applying = [
        ApplyTask(
            part=task.part,
            index=task.index,
            output=task.output,
            overlaps=task.overlaps,
            links=links,
        )
        for task in comparing
    ]
    return stage.finish([*hashed, *stage.map(executor, "dedup", apply_part, applying)])


def _compare_tasks(
    stage: StageRun, config: DedupConfig, evaluation: list[str], buckets: int
) -> list[CompareTask]:
    overlaps, rows = stage.scratch("overlaps"), stage.scratch("rows")
    return [
        CompareTask(
            part=part,
            index=i,
            output=stage.output(i),
            min_quality=config.min_quality,
            evaluation=tuple(evaluation),
            buckets=buckets,
            overlaps=storage.join(overlaps, f"{i:05d}.arrow"),
            rows=storage.join(rows, f"{i:05d}.arrow"),
        )
        for i, part in enumerate(stage.parts("download"))
    ]


def compare_part(task: CompareTask) -> Outcome:
    """Find one part's overlaps and route the rows of its other pairs; runs in a worker."""
    from dedup.decontaminate import find_overlaps, load_evaluation

    pairs = task.output.read(task.part, schemas.DOWNLOADED, COMPARED)
    overlaps = find_overlaps(pairs, load_evaluation(task.evaluation), min_quality=task.min_quality)
    rows = read_rows(pairs, part=task.index, min_quality=task.min_quality)
    rows = rows.filter(pa.array(~_mark(overlaps.column("row").to_numpy(), pairs.num_rows)))
    write_whole(task.overlaps, overlaps)
    write_buckets(task.rows, rows, bucket_of(rows, "url", task.buckets), task.buckets)
    return Outcome(rows_in=pairs.num_rows, rows_out=rows.num_rows)


def apply_part(task: ApplyTask) -> Outcome:
    """Write one part without what is dropped; runs in a worker."""
    from dedup.decontaminate import FOUND

    pairs = task.output.read(task.part, schemas.DOWNLOADED)
    overlaps = read_bucket([task.overlaps], 0, FOUND)
    links = read_bucket(task.links, task.index, LINKS)
    result = apply_table(pairs, overlaps, links)
    return task.output.write(
        rows_in=pairs.num_rows,
        kept=result.kept,
        schema=schemas.DEDUPLICATED,
        drops=result.drops,
        side={
            "duplicates": (result.duplicates, schemas.DUPLICATES),
            "eval_overlaps": (result.eval_overlaps, schemas.EVAL_OVERLAPS),
        },
    )


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One part's tables: DEDUPLICATED, DROPS, DUPLICATES and EVAL_OVERLAPS."""

    kept: pa.Table
    drops: pa.Table
    duplicates: pa.Table
    eval_overlaps: pa.Table


def apply_table(pairs: pa.Table, overlaps: pa.Table, links: pa.Table) -> Applied:
    """Split one part by what was found of its rows.

    Args:
        overlaps: FOUND, ordered by row.
        links: LINKS of the part, leading to pairs that stay.
    """
    pair_id = pairs.column("pair_id")
    links = links.sort_by("place")
    row = links.column("place").to_numpy() & 0xFFFFFFFF
    duplicates = pa.table(
        {
            "pair_id": pair_id.take(pa.array(row)),
            "duplicate_of": links.column("duplicate_of"),
            "method": pa.array(METHODS).take(links.column("method")),
            "distance": links.column("distance"),
        },
        schemas.DUPLICATES,
    )
    eval_overlaps = pa.table(
        {
            "pair_id": pair_id.take(overlaps.column("row")),
            **{name: overlaps.column(name) for name in schemas.EVAL_OVERLAPS.names[1:]},
        },
        schemas.EVAL_OVERLAPS,
    )
    met, first = np.unique(overlaps.column("row").to_numpy(), return_index=True)
    dropped = np.concatenate([met, row])
    return Applied(
        kept=pairs.filter(pa.array(~_mark(dropped, pairs.num_rows))),
        drops=_drops(eval_overlaps.take(pa.array(first)), duplicates).take(
            pa.array(np.argsort(dropped))
        ),
        duplicates=duplicates,
        eval_overlaps=eval_overlaps,
    )


def _drops(overlaps: pa.Table, duplicates: pa.Table) -> pa.Table:
    """Return DROPS: of each overlapping pair, given once, and of each duplicate."""
    met = pc.binary_join_element_wise(overlaps.column("evalset"), overlaps.column("item"), "/")
    return pa.table(
        {
            "pair_id": _joined(overlaps.column("pair_id"), duplicates.column("pair_id")),
            "reason": _joined(
                pa.chunked_array([pa.repeat("evaluation_overlap", overlaps.num_rows)]),
                duplicates.column("method"),
            ),
            "detail": _joined(met, duplicates.column("duplicate_of")),
        },
        schemas.DROPS,
    )


def _joined(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([*first.chunks, *second.chunks], pa.string())


def _mark(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.bool_]:
    marked = np.zeros(count, np.bool_)
    marked[rows] = True
    return marked
