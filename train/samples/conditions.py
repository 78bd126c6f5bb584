"""Only some samples of a source: those that meet a condition in SQL over the columns of its index.

The condition is asked once, shard after shard, and the places of the samples that meet it are kept in
a file, four bytes each, with their number in each shard at its end; what is read later is looked up there.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipeline.errors import ConfigError, InputError, StorageError
from pipeline.runtime import storage
from pipeline.runtime.manifest import digest
from pipeline.runtime.progress import Progress
from pipeline.shards.condition import check_condition, one_line, sandboxed
from train.samples.indexed import Indexed

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
        path = storage.join(cache, "chosen", about)
        # What another file says may change.
        is_fresh = any(_nodes(tree, "class", "SUBQUERY"))
        places = None if is_fresh else _kept(path, len(source.rows))
        if places is None:
            _choose(source, where, _columns(tree, source.columns), connection, path)
            places = _kept(path, len(source.rows))
    if places is None:
        raise StorageError(f"{path} is damaged right after it was written; check the disk")
    if not len(places.rows):
        raise InputError(f"no sample meets the condition {where!r}")
    edges = np.concatenate([[0], np.cumsum(places.counts)])
    return replace(
        source,
        rows=places.counts,
        identity=digest([source.identity, where, places.digest() if is_fresh else ""]),
        read=partial(_read, source, places.rows, edges),
    )


class _Places(NamedTuple):
    """Which samples of each shard are chosen, one shard after the other, and how many of each."""

    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]

    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.rows.data) + xxhash.xxh3_128_hexdigest(
            self.counts.data
        )


def _kept(path: str, shards: int) -> _Places | None:
    """Return what `_choose` wrote; None if there is nothing, or not all of it."""
    if (storage.size(path) or 0) < 8 * shards:
        return None
    content = np.memmap(path, np.uint8, "r")
    split = len(content) - 8 * shards
    counts = np.frombuffer(content[split:].tobytes(), np.int64)
    if split != 4 * counts.sum():
        return None
    return _Places(content[:split].view(np.int32), counts)


def _choose(
    source: Indexed,
    where: str,
    columns: Sequence[str],
    connection: duckdb.DuckDBPyConnection,
    path: str,
) -> None:
    counts = np.zeros(len(source.rows), np.int64)
    with (
        Progress("where", len(source.rows), unit="shards") as progress,
        storage.atomic_output(path) as file,
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
        file.write(counts.tobytes())


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
    paths = [[str(step).lower() for step in names] for names in _values(tree, "column_names")]
    named = {step for path in paths for step in path}
    # By their place or as a whole, any column may be meant.
    by_place = {"STAR", "POSITIONAL_REFERENCE"} & set(map(str, _values(tree, "class")))
    if by_place or ["samples"] in paths or not named:
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
