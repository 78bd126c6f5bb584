"""Queries of the user's own, from text files and tables."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.candidates import candidates
from queries.query_list import is_parquet, read_lines
from queries.text import normalize


def user_queries(paths: Sequence[str]) -> pa.Table:
    """Return the queries in files, normalised, in the order in which they stand there.

    Args:
        paths: UTF-8 text files with a query a line, or Parquet files with a column `query`.

    Raises:
        InputError: if a file is neither, or holds no query.
    """
    found: dict[str, None] = {}
    for path in paths:
        texts = _column(path) if is_parquet(path) else iter(read_lines(path))
        queries = dict.fromkeys(filter(None, (normalize(text) for text in texts)))
        if not queries:
            raise InputError(f"{path} holds no queries; expected at least one")
        found |= queries
    rows = {"query": pa.array(found, pa.string()), "place": range(len(found))}
    return candidates("user", rows, order=[("place", "ascending")])


def _column(path: str) -> Iterator[str]:
    try:
        with storage.open_input(path) as file:
            table = pq.ParquetFile(file).read(columns=["query"])
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as Parquet: {reason}") from error
    kinds = [field.type for field in table.schema]
    if not kinds or not (pa.types.is_string(kinds[0]) or pa.types.is_large_string(kinds[0])):
        raise InputError(f"{path} has no column `query` of strings; expected one, or a text file")
    return (text for text in table["query"].to_pylist() if text)
