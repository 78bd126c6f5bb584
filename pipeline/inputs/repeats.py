"""Find pairs that occur again, over all parts, in bounded memory.

Each chunk of pairs gets a file of keys, sorted by pair id. A partition is a range of ids; ids are
hashes, so ranges are even. A partition reads its range of every file and lists the occurrences to
drop: all but the first, in the order of chunks and of rows within them.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.inputs.pairs import pair_id_halves
from pipeline.runtime import storage
from pipeline.runtime.manifest import Part

# A partition holds 16 bytes of key and 8 of place per pair, and as much again while it sorts.
KEYS_PER_PARTITION = 8_000_000

_ROW_GROUP = 8192
_KEYS = pa.schema([("high", pa.uint64()), ("low", pa.uint64()), ("row", pa.int32())])
_PLACES = pa.schema([("chunk", pa.int32()), ("row", pa.int32())])


def count_partitions(keys: int) -> int:
    """Return how many partitions `keys` pairs need."""
    return max(1, -(-keys // KEYS_PER_PARTITION))


def write_keys(path: str, pair_ids: pa.ChunkedArray) -> Part:
    """Write the keys of one chunk of pairs."""
    high, low = pair_id_halves(pair_ids)
    order = np.lexsort((low, high))
    columns = [high[order], low[order], order.astype(np.int32)]
    return _write(path, pa.table(columns, schema=_KEYS))


def find_repeats(files: Sequence[str], partition: int, partitions: int) -> pa.Table:
    """Return chunk and row of every occurrence but the first of the pairs in one partition.

    Args:
        files: one of keys per chunk, in the order of chunks.
    """
    low_end = -(-(partition << 64) // partitions)
    high_end = -(-((partition + 1) << 64) // partitions) - 1
    tables = []
    for chunk, path in enumerate(files):
        with storage.open_input(path) as file:
            found = _read_range(file, "high", low_end, high_end)
        tables.append(
            found.append_column("chunk", pa.repeat(pa.scalar(chunk, pa.int32()), len(found)))
        )
    keys = pa.concat_tables(tables)
    high, low = keys.column("high").to_numpy(), keys.column("low").to_numpy()
    # Stable: equal keys stay in the order of chunks and rows.
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    again = np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1])) + 1
    return keys.select(["chunk", "row"]).take(np.sort(order[again]))


def write_repeats(path: str, places: pa.Table) -> Part:
    """Write what `find_repeats` found."""
    return _write(path, places.cast(_PLACES))


def read_repeats(files: Sequence[str], chunk: int) -> pa.Array:
    """Return the rows of `chunk` that the partitions' `files` list, ascending."""
    rows = []
    for path in files:
        with storage.open_input(path) as file:
            rows.append(_read_range(file, "chunk", chunk, chunk).column("row").to_numpy())
    return pa.array(np.sort(np.concatenate(rows)), pa.int32())


def _read_range(file: pa.NativeFile, column: str, first: int, last: int) -> pa.Table:
    parquet = pq.ParquetFile(file)
    groups = list(_overlapping(parquet, column, first, last))
    table = parquet.read_row_groups(groups)
    values = table.column(column).to_numpy()
    return table.filter(pa.array((values >= first) & (values <= last)))


def _overlapping(parquet: pq.ParquetFile, column: str, first: int, last: int) -> Iterator[int]:
    place = parquet.schema_arrow.get_field_index(column)
    for group in range(parquet.num_row_groups):
        bounds = parquet.metadata.row_group(group).column(place).statistics
        if bounds is None or not bounds.has_min_max or (bounds.max >= first and bounds.min <= last):
            yield group


def _write(path: str, table: pa.Table) -> Part:
    with storage.atomic_output(path) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)
    return Part(path=path, rows=table.num_rows, bytes=file.size, sha256=file.sha256)
