"""Intermediate Parquet files of a stage, by path or URL; what stages promise goes through `Workspace`."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runtime import storage

ROW_GROUP = 128 * 1024


def write_parquet(path: str, table: pa.Table, *, row_group: int = ROW_GROUP) -> storage.OutputFile:
    """Write `table` to `path`, all or nothing, the same bytes every time; return what was written."""
    with storage.atomic_output(path) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=row_group)
    return file


def read_parquet(
    path: str, *, columns: list[str] | None = None, filters: list[Any] | None = None
) -> pa.Table:
    """Return the rows of `path` that pass `filters`, skipping row groups by their statistics."""
    system, inner = storage.filesystem(path)
    with storage.storage_errors("read", path):
        return pq.read_table(
            inner, filesystem=system, columns=columns, filters=filters, partitioning=None
        )
