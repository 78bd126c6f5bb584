"""DuckDB for tables that may be larger than memory."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.runtime import storage

MEMORY_LIMIT = "2GB"
# Each needs memory of its own to sort in.
MOST_THREADS = 4


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection that keeps within MEMORY_LIMIT and spills to the temporary folder.

    Rows come in no order but the one that a query asks for.
    """
    with tempfile.TemporaryDirectory(prefix="witmill-") as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY_LIMIT,
            "preserve_insertion_order": False,
            "threads": min(MOST_THREADS, len(os.sched_getaffinity(0))),
            "temp_directory": folder,
        }
        with duckdb.connect(config=config) as connection:
            yield connection


def register_files(
    connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[str], schema: pa.Schema
) -> None:
    """Make Parquet files, by path or URL, the view `name`; they are read as it is, a piece at a time."""
    if not paths:
        connection.register(name, schema.empty_table())
        return
    system, _ = storage.filesystem(paths[0])
    files = [storage.filesystem(path)[1] for path in paths]
    connection.register(name, ds.dataset(files, schema=schema, filesystem=system, format="parquet"))
