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
    is_table = is_parquet(path)
    table = _read_parquet(path) if is_table else _read_text(path, rules)
    if not table.num_rows:
        raise InputError(f"{path} holds no queries; expected at least one")
    # Tests check the built-in list, which saves each run half a second.
    if is_table and source != "builtin":
        _check_rows(table, path, rules)
    return table


def is_parquet(path: str) -> bool:
    """Return whether the file at `path` begins as a Parquet file does."""
    with storage.open_input(path) as file:
        return bool(file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC)


def read_lines(path: str) -> list[str]:
    """Return the lines of a UTF-8 text file, whichever way it marks their ends.

    Raises:
        InputError: naming the first line that is not UTF-8.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path} line {line} is not UTF-8; expected a query a line") from error
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read_parquet(path: str) -> pa.Table:
    try:
        with storage.open_input(path) as file:
            table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as Parquet: {reason}; fetch or build it again"
        ) from error
    if "score" in table.column_names and "sources" not in table.column_names:
        raise InputError(
            f"{path} is a list of an earlier witmill, with a score in place of each source's figures;"
            " build it again, or give its queries as a text file"
        )
    return schemas.check(table, schemas.QUERIES, source=path).cast(schemas.QUERIES)


def _read_text(path: str, rules: Rules) -> pa.Table:
    lines = read_lines(path)
    queries = dict.fromkeys(normalize(line) if rules == "words" else line for line in lines)
    queries.pop("", None)
    rows = [
        {"query_id": i, "query": query, "source": "user", "sources": ["user"]}
        for i, query in enumerate(queries)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.QUERIES)


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
