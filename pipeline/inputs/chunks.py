"""A run of rows of one input as tables: pairs, drops and captures, and the pairs' repeats taken out."""

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.inputs.captures import tabulate_captures
from pipeline.inputs.files import Input, detect
from pipeline.inputs.references import RowGroups, read_references
from pipeline.inputs.repeats import write_keys
from pipeline.inputs.tables import ColumnChoice
from pipeline.pages.row_tables import KEYED_PAIRS, Chunk, tabulate
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.manifest import Part
from pipeline.runtime.workspace import Workspace

CHUNK_ROWS = 262_144


def read_chunks(
    file: BinaryIO, input: Input, choice: ColumnChoice, groups: RowGroups | None
) -> Iterator[Chunk]:
    """Yield what stands in an input in chunks of CHUNK_ROWS; see `read_references`."""
    kind = detect(file, input.path)
    if kind == "warc" or kind == "wat":
        # Compiled loops, which the command line needs not load.
        from pipeline.inputs.crawls import read_crawl

        yield from read_crawl(file, kind, input.source, CHUNK_ROWS)
        return
    rows = read_references(file, input.path, choice, groups)
    while batch := list(islice(rows, CHUNK_ROWS)):
        yield tabulate(batch, input.source)


def write_chunk(
    chunk: Chunk, source: str, *, workspace: Workspace, folder: str, name: str
) -> dict[str, Part]:
    """Write "pairs", "drops" and "keys" of one chunk into `folder`, and "captures" for good, if any."""
    pairs, drops, captures = chunk
    parts = {
        "pairs": workspace.write(f"{folder}/{name}-pairs.parquet", pairs, KEYED_PAIRS),
        "drops": workspace.write(f"{folder}/{name}-drops.parquet", drops, schemas.DROPS),
        "keys": write_keys(f"{folder}/{name}-keys.parquet", pairs.column("pair_id")),
    }
    if captures:
        table = tabulate_captures(captures, source)
        path = f"ingest/captures/{name}.parquet"
        parts["captures"] = workspace.write(path, table, schemas.CAPTURES)
    return parts


def split_repeats(pairs: pa.Table, rows: pa.Array) -> tuple[pa.Table, pa.Table]:
    """Return `pairs` without the given rows, and those rows as DROPS."""
    numbers = pa.array(range(pairs.num_rows), pa.int32())
    kept = pairs.filter(pc.invert(pc.is_in(numbers, value_set=rows)))
    again = pairs.take(rows)
    places = pc.cast(again.column("source_offset"), pa.string())
    seen = pc.binary_join_element_wise(again.column("source"), places, "@")
    return kept, drop_rows(again.column("pair_id"), "duplicate_pair", seen)
