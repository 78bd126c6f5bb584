"""Which samples of a corpus meet an SQL condition or stand on a list of ids; asked of the indexes alone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.shards.corpus import Corpus
from pipeline.shards.listed import read_chunks

MEMORY = "4GB"
"""What DuckDB may hold; beyond that it writes to `folder`."""

_ID = pa.schema([("id", pa.string())])

# DuckDB takes these for columns until it looks for such columns.
_TIMES = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
_SQL_IN_SQL = {"query", "query_table"}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Shard and key of the samples meant, in the Parquet file at `path`; `digest` tells them from others."""

    path: str
    rows: int
    digest: str


def choose(corpus: Corpus, where: str | None, uids: str | None, folder: str) -> Chosen:
    """Write down in the local `folder` which samples are meant.

    Args:
        where: a condition in DuckDB's SQL over the columns of SHARD_INDEX, which is also the view
            `samples`.
        uids: a file that lists ids; a sample is meant if its uid or pair_id is among them.

    Raises:
        ConfigError: if the condition is wrong, or would choose others another time.
        InputError: if the file of ids cannot be read, or no sample is meant.
    """
    chosen = f"{folder}/chosen.parquet"
    with _opened(corpus, folder) as connection:
        conditions = []
        if where is not None:
            _check_condition(connection, where)
            conditions.append(f"(\n{where}\n)")
        if uids is not None:
            ids = f"{folder}/ids.parquet"
            _write_ids(uids, ids)
            connection.read_parquet(ids).create_view("ids")
            conditions.append("(uid IN (SELECT id FROM ids) OR pair_id IN (SELECT id FROM ids))")
        query = (
            "SELECT parse_filename(shard) AS shard, key FROM samples "
            f"WHERE {' AND '.join(conditions)} ORDER BY ALL"
        )
        try:
            connection.sql(query).write_parquet(chosen)
        except duckdb.Error as error:
            raise ConfigError(f"the condition failed: {_one_line(error)}") from error
        summary = "SELECT count(*), bit_xor(md5_number(shard || ' ' || key)) FROM read_parquet(?)"
        ((rows, digest),) = connection.execute(summary, [chosen]).fetchall()
    if not rows:
        raise InputError("no sample is meant; nothing was written")
    return Chosen(path=chosen, rows=rows, digest=f"{digest:032x}")


@contextmanager
def _opened(corpus: Corpus, folder: str) -> Iterator[duckdb.DuckDBPyConnection]:
    system, _ = storage.filesystem(corpus.folder)
    files = [storage.filesystem(shard.index)[1] for shard in corpus.shards]
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": f"{folder}/duckdb",
        # Nothing is fetched from the network because a condition names it.
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "lock_configuration": True,
    }
    with duckdb.connect(config=settings) as connection:
        with storage.storage_errors("read the indexes of", corpus.folder):
            connection.register("samples", ds.dataset(files, filesystem=system, format="parquet"))
        yield connection


def _check_condition(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    query = f"SELECT key FROM samples WHERE (\n{where}\n)"
    try:
        statements = len(duckdb.extract_statements(query))
        if statements != 1:
            raise ConfigError(
                f"the condition holds {statements} statements, expected one condition"
            )
        connection.execute(f"EXPLAIN {query}")
        rows = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        volatile = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
        ).fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"the condition failed: {_one_line(error)}") from error
    unsteady = {name for (name,) in volatile} | _SQL_IN_SQL
    if found := sorted(set(_unsteady(json.loads(rows[0][0]), unsteady))):
        raise ConfigError(
            f"the condition uses {', '.join(found)}, which may answer otherwise another time; "
            "for a share of the samples, take hash(pair_id) % 100 < 5"
        )


def _unsteady(tree: object, functions: set[str]) -> Iterator[str]:
    if isinstance(tree, dict):
        name = str(tree.get("function_name")).lower()
        if name in functions:
            yield f"{name}()"
        yield from _TIMES & {str(c).lower() for c in tree.get("column_names") or []}
        if tree.get("sample"):
            yield "SAMPLE"
        if str(tree.get("type")).startswith("LIMIT"):
            yield "LIMIT"
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for branch in branches:
        yield from _unsteady(branch, functions)


def _write_ids(path: str, target: str) -> None:
    with pq.ParquetWriter(target, _ID, compression="zstd") as writer:
        for ids in read_chunks(path, ("uid", "pair_id")):
            # Hex digits are hex digits, in whatever case.
            both = [*ids, *map(str.lower, ids)]
            writer.write_table(pa.table([pa.array(both, pa.string())], schema=_ID))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
