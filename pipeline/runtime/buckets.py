"""Files cut into buckets: what one task writes for many, and one task reads from many.

An Arrow IPC file with one record batch per bucket; a reader fetches its own batch of every file.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.runtime import storage

Places = npt.NDArray[np.int64]
PLACES: Final = pa.schema([("place", pa.int64())])
"""Pairs by part and row, as `part << 32 | row`."""


def write_buckets(path: str, rows: pa.Table, bucket: npt.NDArray[np.int64], count: int) -> None:
    """Write each row into its bucket, 0 to `count` - 1; order within a bucket stays."""
    order = np.argsort(bucket, kind="stable")
    starts = np.searchsorted(bucket[order], np.arange(count + 1))
    ordered = rows.take(pa.array(order)).combine_chunks()
    with storage.atomic_output(path) as file, pa.ipc.new_file(file, rows.schema) as writer:
        for first, end in pairwise(starts.tolist()):
            chunk = ordered.slice(first, end - first)
            writer.write_batch(_one_batch(chunk))


def read_bucket(paths: Sequence[str], bucket: int, schema: pa.Schema | None) -> pa.Table:
    """Return the rows of one bucket of all files, in their order.

    Args:
        schema: of the rows; None for that of the files, of which there must be one.
    """
    batches = []
    for path in paths:
        with storage.open_input(path) as file:
            batches.append(pa.ipc.open_file(file).get_batch(bucket))
    return pa.Table.from_batches(batches, schema)


def read_all(path: str) -> pa.Table:
    """Return the rows of all buckets of a file."""
    with storage.open_input(path) as file:
        return pa.ipc.open_file(file).read_all()


def write_whole(path: str, rows: pa.Table) -> None:
    """Write all rows as the only bucket, 0."""
    write_buckets(path, rows, np.zeros(rows.num_rows, np.int64), 1)


def part_of(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return for each row with a `place` the part that it is of."""
    part: npt.NDArray[np.int64] = rows.column("place").to_numpy() >> 32
    return part


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema)
