"""Read a query list: the built-in one, a Parquet file, or plain text."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.text import Rules, normalize

BUILTIN = Path(__file__).with_name("builtin.parquet")

_PARQUET_MAGIC = b"PAR1"


def read_queries(source: str, *, rules: Rules = "words") -> pa.Table:
    """Return a query list with the columns of QUERIES.

    Args:
        source: "builtin", a Parquet file with the columns of QUERIES, or a UTF-8 text file with a query
            a line; blank lines and repetitions in a text file are passed over.
        rules: with "words", lines of text are normalised and rows of Parquet must be; with "metaclip"
            both stay as they are.

    Raises:
        InputError: if it is not a list of distinct, non-empty queries with ids from 0.
    """
    path = str(BUILTIN) if source == "builtin" else source
    with storage.open_input(path) as file:
        is_parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    table = _read_parquet(path) if is_parquet else _read_text(path, rules)
    if not table.num_rows:
        raise InputError(f"{path} holds no queries; expected at least one")
    if is_parquet:
        _check_rows(table, path, rules)
    return table


def _read_parquet(path: str) -> pa.Table:
    try:
        with storage.open_input(path) as file:
            table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as Parquet: {reason}; fetch or build it again"
        ) from error
    return schemas.check(table, schemas.QUERIES, source=path).cast(schemas.QUERIES)


def _read_text(path: str, rules: Rules) -> pa.Table:
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path} line {line} is not UTF-8; expected a query a line") from error
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    queries = dict.fromkeys(normalize(line) if rules == "words" else line for line in lines)
    queries.pop("", None)
    rows = len(queries)
    return pa.table(
        [
            pa.array(range(rows), pa.int32()),
            pa.array(queries, pa.string()),
            pa.array(["user"] * rows, pa.string()),
            pa.nulls(rows, pa.int64()),
            pa.nulls(rows, pa.float64()),
        ],
        schema=schemas.QUERIES,
    )


def _check_rows(table: pa.Table, path: str, rules: Rules) -> None:
    if not table["query_id"].combine_chunks().equals(pa.array(range(len(table)), pa.int32())):
        raise InputError(
            f"{path}: query_id is not the position in the list; number the rows from 0"
        )
    if pc.count_distinct(table["query"]).as_py() != len(table):
        raise InputError(f"{path} holds a query twice; expected distinct queries")
    for query in table["query"].to_pylist():
        if not query or (rules == "words" and normalize(query) != query):
            raise InputError(
                f"{path}: query {query[:60]!r} is not normalised or empty, expected {normalize(query)[:60]!r};"
                " normalise it, or give a text file"
            )
