"""Files cut into buckets: what one task writes for many, and one task reads from many.

An Arrow IPC file with one record batch per bucket; a reader fetches its own batch of every file.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.runtime import storage


def write_buckets(path: str, rows: pa.Table, bucket: npt.NDArray[np.int64], count: int) -> None:
    """Write each row into its bucket, 0 to `count` - 1; order within a bucket stays."""
    order = np.argsort(bucket, kind="stable")
    starts = np.searchsorted(bucket[order], np.arange(count + 1))
    ordered = rows.take(pa.array(order)).combine_chunks()
    with storage.atomic_output(path) as file, pa.ipc.new_file(file, rows.schema) as writer:
        for first, end in pairwise(starts.tolist()):
            chunk = ordered.slice(first, end - first)
            writer.write_batch(_one_batch(chunk))


def read_bucket(paths: Sequence[str], bucket: int, schema: pa.Schema) -> pa.Table:
    """Return the rows of one bucket of all files, in their order."""
    batches = []
    for path in paths:
        with storage.open_input(path) as file:
            batches.append(pa.ipc.open_file(file).get_batch(bucket))
    return pa.Table.from_batches(batches, schema)


def write_whole(path: str, rows: pa.Table) -> None:
    """Write all rows as the only bucket, 0."""
    write_buckets(path, rows, np.zeros(rows.num_rows, np.int64), 1)


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema)
