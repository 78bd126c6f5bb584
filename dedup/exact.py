"""Keep one picture of those that are equal: same address, same bytes or same pixels.

The order of preference is the same everywhere: what an earlier run kept, then the larger picture, then
the longer caption that fits, then the smaller pair id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from dedup.links import METHODS, link_table, write_links
from pipeline.runtime import storage
from pipeline.runtime.buckets import part_of, read_bucket, write_buckets, write_whole
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.stage import StageRun

# Column of DOWNLOADED that is equal, and what its equality is called, in the order of the tests.
KEYS: Final = {"url": "same_url", "image_sha256": "same_bytes", "pixel_hash": "same_pixels"}
READ: Final = [*KEYS, "pair_id", "caption", "width", "height", "pdq", "pdq_quality"]

ROWS: Final = pa.schema(
    [
        ("place", pa.int64()),
        ("pair_id", pa.string()),
        ("is_earlier", pa.int8()),
        ("area", pa.int64()),
        ("caption_fit", pa.int32()),
        ("pdq", pa.binary(32)),
        *((key, pa.binary(16)) for key in KEYS),
    ]
)
"""What deduplication carries of a pair.

`place` is the pair's part and row, as `part << 32 | row`; `is_earlier` is 1 for what an earlier run
kept; `caption_fit` is the caption's length, or, negative, by how much it is too long; keys are 128-bit
digests of the column; `pdq` is null where the picture is compared by exact tests only.
"""

PICTURES: Final = pa.schema([ROWS.field(name) for name in ROWS.names if name not in KEYS])
"""Rows that go on to be compared by PDQ, which is never null here."""

PREFERENCE: Final = [
    ("is_earlier", "descending"),
    ("area", "descending"),
    ("caption_fit", "descending"),
    ("pair_id", "ascending"),
    ("place", "ascending"),
]


@dataclass(frozen=True, kw_only=True)
class Distinct:
    """What the exact tests leave.

    Attributes:
        pictures: files of PICTURES, each in buckets by part; beside each a sample, `FILE.sample`.
        count: how many they hold.
        links: files of links.
    """

    pictures: tuple[str, ...]
    count: int
    links: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExactTask:
    """One bucket of which one row per value of `key` stays; `following` is the next test's key.

    Where none follows, the pictures are written by part, of `parts`, and every `every`-th as a sample.
    """

    key: str
    following: str | None
    rows: tuple[str, ...]
    bucket: int
    buckets: int
    parts: int
    every: int
    kept: str
    links: str


def keep_one_of_each(
    stage: StageRun,
    executor: Executor,
    rows: Sequence[str],
    *,
    buckets: int,
    parts: int,
    every: int,
) -> Distinct:
    """Run the exact tests one after the other over files of ROWS, which are in buckets by url.

    Args:
        every: of so many pictures one is for the sample.
    """
    links: list[str] = []
    count = 0
    for key, following in pairwise([*KEYS, None]):
        folder = stage.scratch(str(key))
        tasks = [
            ExactTask(
                key=str(key),
                following=following,
                rows=tuple(rows),
                bucket=bucket,
                buckets=buckets,
                parts=parts,
                every=every,
                kept=storage.join(folder, f"{bucket:05d}.kept"),
                links=storage.join(folder, f"{bucket:05d}.links"),
            )
            for bucket in range(buckets)
        ]
        outcomes = stage.map(executor, str(key), keep_bucket, tasks)
        rows = [task.kept for task in tasks]
        links += [task.links for task in tasks]
        count = sum(outcome.rows_out for outcome in outcomes)
    return Distinct(pictures=tuple(rows), count=count, links=tuple(links))


def keep_bucket(task: ExactTask) -> Outcome:
    """Keep one row per value of one bucket; runs in a worker."""
    rows = read_bucket(task.rows, task.bucket, ROWS)
    kept, links = keep_one(rows, task.key)
    write_links(task.links, links, task.buckets)
    if task.following:
        bucket = bucket_of(kept.column(task.following), task.buckets)
        write_buckets(task.kept, kept, bucket, task.buckets)
    else:
        kept = kept.select(PICTURES.names).filter(kept.column("pdq").is_valid())
        write_buckets(task.kept, kept, part_of(kept), task.parts)
        write_whole(sample_of(task.kept), kept.take(pa.array(np.arange(0, len(kept), task.every))))
    return Outcome(rows_in=rows.num_rows, rows_out=kept.num_rows)


def sample_of(pictures: str) -> str:
    """Return the file with a sample of a file of PICTURES."""
    return f"{pictures}.sample"


def read_rows(pairs: pa.Table, *, part: int, min_quality: int, caption_characters: int) -> pa.Table:
    """Return the ROWS of one part's pairs, which have the columns `READ`."""
    is_comparable = pc.greater_equal(pairs.column("pdq_quality"), min_quality)
    columns = {
        "place": pa.array(np.arange(pairs.num_rows, dtype=np.int64) + (part << 32)),
        "pair_id": pairs.column("pair_id"),
        "is_earlier": pa.array(np.zeros(pairs.num_rows, np.int8)),
        **preference_of(pairs, caption_characters),
        "pdq": pc.if_else(is_comparable, pairs.column("pdq"), pa.scalar(None, pa.binary(32))),
        **{key: digests(pairs.column(key)) for key in KEYS},
    }
    return pa.table(columns, ROWS)


def preference_of(pairs: pa.Table, caption_characters: int) -> dict[str, pa.ChunkedArray]:
    """Return what preference goes by, of pairs with width, height and caption."""
    width, height = (pairs.column(side).cast(pa.int64()) for side in ("width", "height"))
    length = pc.utf8_length(pairs.column("caption")).cast(pa.int32())
    limit = pa.scalar(caption_characters, pa.int32())
    is_fit = pc.less_equal(length, limit)
    return {
        "area": pc.multiply(width, height),
        "caption_fit": pc.if_else(is_fit, length, pc.subtract(limit, length)),
    }


def by_preference(rows: pa.Table) -> pa.Table:
    """Return `rows` with those first that are to stay."""
    return rows.take(pc.sort_indices(rows, PREFERENCE))


def keep_one(rows: pa.Table, key: str) -> tuple[pa.Table, pa.Table]:
    """Keep the preferred row of each value of `key`.

    Returns:
        The kept ROWS by preference; LINKS from each dropped one to the kept one of its value.
    """
    rows = by_preference(rows)
    codes = rows.column(key).combine_chunks().dictionary_encode().indices.to_numpy()
    _, first, code = np.unique(codes, return_index=True, return_inverse=True)
    winner = first[code]
    dropped = np.flatnonzero(winner != np.arange(len(winner)))
    links = link_table(
        rows,
        dropped,
        rows,
        winner[dropped],
        method=METHODS.index(KEYS[key]),
        distance=np.zeros(len(dropped), np.int64),
    )
    return rows.take(pa.array(np.unique(first))), links


def bucket_of(digests: pa.Array | pa.ChunkedArray, count: int) -> npt.NDArray[np.int64]:
    """Return for each 16-byte digest one of `count` buckets, the same for equal ones."""
    column = pa.chunked_array(digests, pa.binary(16)).combine_chunks()
    halves = np.frombuffer(column.buffers()[1] or b"", "<u8")
    low = halves[2 * column.offset :][: 2 * len(column) : 2]
    return (low % np.uint64(count)).astype(np.int64)


def digests(values: pa.ChunkedArray) -> pa.Array:
    """Return a 16-byte digest of each value."""
    texts = values.cast(pa.binary()).to_pylist()
    return pa.array([xxhash.xxh3_128_digest(text) for text in texts], pa.binary(16))
