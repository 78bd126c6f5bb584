"""Join the candidates of all sources to one list (CLIP, section 2.2).

A query that several sources give stands once, under the first of them, and carries the names of all
and the first figure of each kind. All sources but titles come whole; titles fill the list up to its
size, best first, since theirs is the floor that the paper leaves open ("a certain search volume").
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.presets import Source

FILLER: Source = "title"
RECORD_KEY = b"witmill"

_GROUP_ROWS = 64 * 1024
_ROWS_TO_SORT = 1_000_000
_FIGURES = ("count", "pmi", "views", "redirects")
_RECORD = (
    f"SELECT {', '.join(schemas.QUERY_CANDIDATES.names)}, query_id FROM candidates "
    "LEFT JOIN (SELECT query, query_id FROM listed) USING (query) "
    "WHERE ($low IS NULL OR query >= $low) AND ($high IS NULL OR query < $high) "
    "ORDER BY query, priority"
)


def register_candidates(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[pa.Table | ds.Dataset]
) -> None:
    """Make the view `candidates` of tables like QUERY_CANDIDATES, given by priority."""
    selects = []
    for place, source in enumerate(sources):
        connection.register(f"source_{place}", source)
        selects.append(f"SELECT *, {place} AS priority FROM source_{place}")
    connection.execute(f"CREATE TEMP VIEW candidates AS {' UNION ALL '.join(selects)}")


def make_list(connection: duckdb.DuckDBPyConnection, *, size: int) -> pa.Table:
    """Return the first `size` distinct queries of the view `candidates`, with the columns of QUERIES.

    Leaves the table `listed` with rank beside those columns.

    Raises:
        InputError: if there are fewer.
    """
    # arg_min passes over rows whose figure is null: the first source that has one.
    figures = ", ".join(f"arg_min({name}, priority) AS {name}" for name in _FIGURES)
    connection.execute(
        "CREATE TEMP TABLE merged AS SELECT query, min(priority) AS priority, arg_min(rank, priority) AS rank, "
        f"list(source ORDER BY priority) AS sources, {figures} "
        "FROM candidates WHERE rank IS NOT NULL GROUP BY query"
    )
    order = "priority, rank LIMIT"
    others = f"(SELECT * FROM merged WHERE sources <> ['{FILLER}'] ORDER BY {order} {size})"
    room = f"(SELECT greatest({size} - count(*), 0) FROM {others})"
    connection.execute(
        f"CREATE TEMP TABLE listed AS WITH chosen AS ({others} UNION ALL "
        f"(SELECT * FROM merged WHERE sources = ['{FILLER}'] ORDER BY {order} {room})) "
        "SELECT CAST(row_number() OVER (ORDER BY priority, rank) - 1 AS INTEGER) AS query_id, query, "
        f"sources[1] AS source, sources, {', '.join(_FIGURES)}, rank FROM chosen"
    )
    table = connection.sql(
        f"SELECT {', '.join(schemas.QUERIES.names)} FROM listed ORDER BY query_id"
    ).to_arrow_table()
    if len(table) < size:
        raise InputError(
            f"the sources give {len(table)} queries, expected {size}; "
            "set a lower size, or lower a floor"
        )
    return schemas.check(table, schemas.QUERIES, source="the list").cast(schemas.QUERIES)


def write_record(
    connection: duckdb.DuckDBPyConnection, path: str, about: Mapping[str, Any]
) -> None:
    """Write QUERY_RECORD, a row per query and source that knows it, sorted by query.

    Args:
        about: what the file says of itself beside, such as the settings; JSON under RECORD_KEY.
    """
    last = dict(
        connection.execute(
            "SELECT source, max(rank) FROM listed GROUP BY source ORDER BY source"
        ).fetchall()
    )
    described = json.dumps({**about, "last_rank": last}, sort_keys=True).encode()
    schema = schemas.QUERY_RECORD.with_metadata({RECORD_KEY: described})
    with ExitStack() as stack:
        file = stack.enter_context(storage.atomic_output(path))
        writer = stack.enter_context(pq.ParquetWriter(file, schema, compression="zstd"))
        for low, high in _ranges(connection):
            rows = connection.sql(_RECORD, params={"low": low, "high": high}).to_arrow_table()
            writer.write_table(rows.cast(schema), row_group_size=_GROUP_ROWS)


def _ranges(
    connection: duckdb.DuckDBPyConnection,
) -> list[tuple[str | None, str | None]]:
    """Return ranges of queries that hold about _ROWS_TO_SORT candidates each, in order."""
    ((rows,),) = connection.execute("SELECT count(*) FROM candidates").fetchall()
    firsts = connection.execute(
        "SELECT min(query) AS first FROM (SELECT query, ntile(?) OVER (ORDER BY query) AS piece FROM listed) "
        "GROUP BY piece ORDER BY first",
        [rows // _ROWS_TO_SORT + 1],
    ).fetchall()
    bounds = [None, *(first for (first,) in firsts[1:]), None]
    return list(pairwise(bounds))
