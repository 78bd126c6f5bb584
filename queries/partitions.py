"""Bring together, from many files, the rows that belong together: what a shuffle is elsewhere.

Each file holds its rows by the number of their partition, so that a partition's rows are read out of
every file without the others.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipeline.runtime.parquet import read_parquet, write_parquet

Partitions = npt.NDArray[np.int32]

_ROW_GROUP = 16_384
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_U32 = np.uint64(32)


def partitions_of_words(words: Sequence[str], partitions: int) -> Partitions:
    """Return the partition of each word, by its hash."""
    numbers = (xxhash.xxh3_64_intdigest(word.encode()) % partitions for word in words)
    return np.fromiter(numbers, np.int32, len(words))


def partitions_of_keys(keys: npt.NDArray[np.int64], partitions: int) -> Partitions:
    """Return the partition of each number, by its hash."""
    high = keys.astype(np.uint64) * _SPREAD >> _U32
    return (high * np.uint64(partitions) >> _U32).astype(np.int32)


def write_partitioned(path: str, rows: pa.Table, partition: Partitions) -> None:
    """Write `rows` by partition, in each in the order given."""
    order = np.argsort(partition, kind="stable")
    ordered = rows.take(pa.array(order)).append_column("partition", pa.array(partition[order]))
    write_parquet(path, ordered, row_group=_ROW_GROUP)


def read_partition(paths: Sequence[str], partition: int, columns: list[str]) -> pa.Table:
    """Return the rows of one partition, from all of `paths` in their order."""
    chosen = [("partition", "=", partition)]
    return pa.concat_tables(read_parquet(path, columns=columns, filters=chosen) for path in paths)
