"""Read the image references of one input, whatever it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.inputs.captures import Capture
from pipeline.inputs.files import EXPECTED, UNREADABLE, Kind, detect, open_text
from pipeline.inputs.pairs import Reference, Skipped
from pipeline.inputs.tables import (
    ColumnChoice,
    parquet_columns,
    read_delimited,
    read_json_lines,
    read_parquet,
)
from pipeline.inputs.tar_shards import read_tar

PIECE_ROWS = 1_000_000

Row = Reference | Skipped | Capture


@dataclass(frozen=True, kw_only=True)
class RowGroups:
    """A run of row groups of one Parquet file, and the number of its first row."""

    first: int
    after: int
    first_row: int


def split_input(file: BinaryIO, name: str, choice: ColumnChoice) -> list[RowGroups | None]:
    """Return the pieces in which to read an input, None for all of it; look whether it can be read.

    Raises:
        InputError: if the file is nothing that witmill reads, or lacks a column.
    """
    kind = detect(file, name)
    if kind == "warc" or kind == "wat":
        return [None]
    if kind != "parquet":
        # The first row shows whether a table has the columns, before hours of work on others.
        next(read_references(file, name, choice), None)
        return [None]
    with _open_parquet(file, name) as parquet:
        parquet_columns(parquet.schema_arrow, choice, table=name)
        return list(split_row_groups(parquet.metadata))


def split_row_groups(metadata: pq.FileMetaData) -> Iterator[RowGroups]:
    """Yield runs of row groups of at least PIECE_ROWS rows each, but for the last."""
    first, first_row, row = 0, 0, 0
    for group in range(metadata.num_row_groups):
        row += metadata.row_group(group).num_rows
        if row - first_row >= PIECE_ROWS or group == metadata.num_row_groups - 1:
            yield RowGroups(first=first, after=group + 1, first_row=first_row)
            first, first_row = group + 1, row
    if metadata.num_row_groups == 0:
        yield RowGroups(first=0, after=0, first_row=0)


def read_references(
    file: BinaryIO, name: str, choice: ColumnChoice, groups: RowGroups | None = None
) -> Iterator[Row]:
    """Yield the references of any input but a crawl, a drop for each row that has none, and captures.

    Args:
        name: what to call the file in errors.
        groups: the row groups to read, of a Parquet file; all if None.

    Raises:
        InputError: if the file is nothing that witmill reads, or lacks a column.
    """
    kind = detect(file, name)
    if kind == "parquet":
        yield from _read_groups(file, name, choice, groups)
    elif kind == "tar":
        yield from read_tar(file)
    else:
        yield from _read_text(file, kind, name, choice)


def _read_text(
    file: BinaryIO, kind: Kind, name: str, choice: ColumnChoice
) -> Iterator[Reference | Skipped]:
    row = -1
    try:
        for reference in _read_lines(file, kind, name, choice):
            row = reference.offset
            yield reference
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno:
            raise
        yield Skipped("broken_record", row + 1, f"nothing can be read from here on: {error}")


def _read_lines(
    file: BinaryIO, kind: Kind, name: str, choice: ColumnChoice
) -> Iterator[Reference | Skipped]:
    if kind == "jsonl":
        return read_json_lines(open_text(file), choice, table=name)
    delimiter = "," if kind == "csv" else "\t"
    return read_delimited(open_text(file), delimiter, choice, table=name)


def _read_groups(
    file: BinaryIO, name: str, choice: ColumnChoice, groups: RowGroups | None
) -> Iterator[Reference | Skipped]:
    with _open_parquet(file, name) as parquet:
        columns = parquet_columns(parquet.schema_arrow, choice, table=name)
        first, after = (groups.first, groups.after) if groups else (0, parquet.num_row_groups)
        first_row = groups.first_row if groups else 0
        yield from read_parquet(parquet, range(first, after), columns, first_row=first_row)


@contextmanager
def _open_parquet(content: BinaryIO, name: str) -> Iterator[pq.ParquetFile]:
    content.seek(0)
    try:
        parquet = pq.ParquetFile(content)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} is a broken Parquet file: {reason}; {EXPECTED}") from error
    with parquet:
        yield parquet
