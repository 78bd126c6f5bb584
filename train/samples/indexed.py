"""Samples that an index tells of, shard by shard, whatever wrote the index."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import StorageError
from train.samples.order import Numbers
from train.stream import LOCATED

ReadRows = Callable[[int, int, int, Sequence[str]], pa.Table]


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """Samples of one source before weights.

    Attributes:
        rows: samples in each shard.
        identity: tells them, in this order, from any others; where they lie does not count.
        columns: what a condition may speak of; all of LOCATED is among them.
        read: returns columns of some samples, by number of the shard, first and last.
        prompts: templates for captions, if the captions of the index are labels.
        left_out: samples that cannot be used, by reason.
        example: what was seen of the first of them.
    """

    rows: Numbers
    identity: str
    columns: pa.Schema
    read: ReadRows
    prompts: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    example: str = ""

    def located(self, shard: int, first: int, last: int) -> pa.Table:
        """Return LOCATED of some samples."""
        return self.read(shard, first, last, LOCATED.names).select(LOCATED.names).cast(LOCATED)


@contextmanager
def parquet_errors(path: str) -> Iterator[None]:
    """Turn what pyarrow says of an index into a StorageError; a passing failure and damage look alike."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(
            f"cannot read {path}: {reason}; if the storage is in order, the index is damaged or lacks a column: "
            "make it anew or bring a whole copy"
        ) from error


def with_column(table: pa.Table, name: str, value: str | int) -> pa.Table:
    """Return `table` with the same value in every row of a column, in place of what it was."""
    column = pa.repeat(pa.scalar(value), table.num_rows)
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)
