"""Only some samples of a source: those that meet a condition in SQL over the columns of its index.

The condition is asked once, shard after shard, and the places of the samples that meet it are kept in
a file, four bytes each; what is read later is looked up there.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import digest
from pipeline.runtime.progress import Progress
from pipeline.shards.condition import check_condition, one_line, sandboxed
from train.indexed import Indexed

ROWS_TOGETHER = 1 << 20
"""Samples asked about in one query: a query costs milliseconds, a list it may read much more."""

_NUMBER = "witmill_row"


def chosen(source: Indexed, where: str, cache: str) -> Indexed:
    """Return the samples of `source` that meet the condition `where`, in DuckDB's SQL.

    Args:
        cache: local folder for their places.

    Raises:
        ConfigError: if the condition is wrong, would choose others another time, or asks of all samples together.
        InputError: if no sample meets it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="witmill-") as folder,
        sandboxed(folder) as connection,
    ):
        connection.register("samples", source.columns.empty_table())
        tree = check_condition(connection, where)
        if sum(1 for _ in _nodes(tree, "table_name", "samples")) > 1:
            raise ConfigError(
                "the condition asks of all samples together; expected one that each sample meets or not "
                "by itself: make such a subset with `witmill reshard`"
            )
        about = digest([source.identity, source.rows.tolist(), where])
        base = storage.join(cache, "chosen", about)
        # What another file says may change.
        is_fresh = any(_nodes(tree, "class", "SUBQUERY"))
        if is_fresh or not storage.exists(f"{base}.counts"):
            _choose(source, where, _columns(tree, source.columns), connection, base)
    counts = np.frombuffer(storage.read_bytes(f"{base}.counts"), np.int64)
    if not counts.sum():
        raise InputError(f"no sample meets the condition {where!r}")
    places: npt.NDArray[np.int32] = np.memmap(f"{base}.rows", np.int32, "r")
    edges = np.concatenate([[0], np.cumsum(counts)])
    return replace(
        source,
        rows=counts,
        identity=digest([source.identity, where, digest(counts.tolist()) if is_fresh else ""]),
        read=partial(_read, source, places, edges),
    )


def _choose(
    source: Indexed,
    where: str,
    columns: Sequence[str],
    connection: duckdb.DuckDBPyConnection,
    base: str,
) -> None:
    counts = np.zeros(len(source.rows), np.int64)
    with (
        Progress("where", len(source.rows), unit="shards") as progress,
        storage.atomic_output(f"{base}.rows") as file,
    ):
        for shards in _together(source.rows):
            tables = [source.read(s, 0, int(source.rows[s]), columns) for s in shards]
            ends = np.cumsum([table.num_rows for table in tables])
            found = _ask(connection, pa.concat_tables(tables), where)
            of_shard = np.searchsorted(ends, found, side="right")
            counts[shards] = np.bincount(of_shard, minlength=len(shards))
            begins = ends - [table.num_rows for table in tables]
            file.write((found - begins[of_shard]).astype(np.int32).tobytes())
            progress.advance(len(shards), rows=int(ends[-1]), drops=int(ends[-1]) - len(found))
    # Last: with it, both are whole.
    storage.write_bytes(f"{base}.counts", counts.tobytes())


def _ask(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, where: str
) -> npt.NDArray[np.int64]:
    connection.register(
        "samples", table.append_column(_NUMBER, pa.array(np.arange(table.num_rows)))
    )
    try:
        answer = connection.execute(f"SELECT {_NUMBER} FROM samples WHERE (\n{where}\n)")
        found = answer.fetchnumpy()[_NUMBER]
    except duckdb.Error as error:
        raise ConfigError(f"the condition failed: {one_line(error)}") from error
    return np.sort(np.asarray(found, np.int64))


def _together(rows: npt.NDArray[np.int64]) -> Iterator[list[int]]:
    shards: list[int] = []
    count = 0
    for shard in range(len(rows)):
        shards.append(shard)
        count += int(rows[shard])
        if count >= ROWS_TOGETHER:
            yield shards
            shards, count = [], 0
    if shards:
        yield shards


def _columns(tree: dict[str, Any], schema: pa.Schema) -> list[str]:
    """Return the columns of `schema` that a condition may look at."""
    named = {str(step).lower() for names in _values(tree, "column_names") for step in names}
    if any(_nodes(tree, "class", "STAR")) or named <= {"samples"}:
        return list(schema.names)
    return [name for name in schema.names if name.lower() in named]


def _values(tree: object, key: str) -> Iterator[Any]:
    if isinstance(tree, dict) and tree.get(key) is not None:
        yield tree[key]
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for branch in branches:
        yield from _values(branch, key)


def _nodes(tree: object, key: str, value: str) -> Iterator[Any]:
    return (found for found in _values(tree, key) if str(found).lower() == value.lower())


def _read(
    source: Indexed,
    places: npt.NDArray[np.int32],
    edges: npt.NDArray[np.int64],
    shard: int,
    first: int,
    last: int,
    columns: Sequence[str],
) -> pa.Table:
    rows = places[edges[shard] + first : edges[shard] + last].astype(np.int64)
    begin, end = int(rows[0]), int(rows[-1]) + 1
    return source.read(shard, begin, end, columns).take(pa.array(rows - begin))
