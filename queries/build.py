"""Build a query list, and beside it the record of every candidate and what became of it."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.runtime import storage
from pipeline.runtime.parquet import write_parquet
from queries.config import BuildConfig, SourceConfig
from queries.floors import FLOORS
from queries.presets import Source
from queries.sources import Inputs, give


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build wrote; of each source how many queries were its own, were given, were candidates."""

    output: str
    record: str
    rows: int
    bytes: int
    sha256: str
    sources: dict[str, int]
    given: dict[str, int]
    candidates: dict[str, int]


def build(config: BuildConfig) -> BuildReport:
    """Build the list, write it and its record, and return how many queries each source gave.

    The same inputs and settings give the same bytes (with one version of pyarrow, whose name is in the file).

    Raises:
        InputError: if an input is not what it should be, or all sources together give too few queries.
    """
    # Imported here: DuckDB takes a tenth of a second, which the command line need not wait for.
    from queries.database import database
    from queries.union import make_list, register_candidates, write_record

    record = record_path(config.output)
    with tempfile.TemporaryDirectory(prefix="witmill-") as folder, database() as connection:
        files = _spool(config, folder)
        sources = [ds.dataset(path, format="parquet") for path in files]
        register_candidates(connection, sources)
        table = make_list(connection, size=config.size)
        with storage.atomic_output(config.output) as file:
            write_queries(table, file)
        write_record(connection, record, {"list": file.sha256, **_about(config)})
        given = [source.count_rows(filter=pc.is_valid(pc.field("rank"))) for source in sources]
        known = [source.count_rows() for source in sources]
    first = pc.value_counts(table["source"]).to_pylist()
    return BuildReport(
        output=config.output,
        record=record,
        rows=table.num_rows,
        bytes=file.size,
        sha256=file.sha256,
        sources={row["values"]: row["counts"] for row in first},
        given=_counts(config.priority, given),
        candidates=_counts(config.priority, known),
    )


def _spool(config: BuildConfig, folder: str) -> list[str]:
    """Write the candidates of each source to a file in `folder`, so that memory holds one at a time."""
    inputs = Inputs(config)
    files = []
    for source in config.priority:
        files.append(storage.join(folder, f"{source}.parquet"))
        write_parquet(files[-1], give(source, inputs))
    return files


def write_source(source: Source, config: SourceConfig, output: str) -> pa.Table:
    """Write the candidates of one source to `output`, with the columns of QUERY_CANDIDATES; return them.

    Raises:
        InputError: if an input is not what it should be.
    """
    table = give(source, Inputs(config))
    write_parquet(output, table)
    return table


def write_queries(table: pa.Table, file: storage.OutputFile) -> None:
    """Write a query list as Parquet; the same rows give the same bytes."""
    pq.write_table(table, file, compression="zstd", compression_level=19, row_group_size=len(table))


def record_path(output: str) -> str:
    """Return where the record of a list lies: `mine.candidates.parquet` for `mine.parquet`."""
    return f"{output.removesuffix('.parquet')}.candidates.parquet"


def _about(config: BuildConfig) -> dict[str, object]:
    floors = {floor.setting for floor in FLOORS.values() if floor.setting}
    return {
        "size": config.size,
        "priority": list(config.priority),
        "floors": {name: getattr(config, name) for name in sorted(floors)},
    }


def _counts(priority: Sequence[Source], rows: Sequence[int]) -> dict[str, int]:
    return {source: count for source, count in zip(priority, rows, strict=True) if count}
