"""Read crawls and tables into pairs of an image URL and a caption, each pair once."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import ConfigError, InputError
from pipeline.inputs import (
    EXPECTED,
    UNREADABLE,
    Input,
    Kind,
    detect,
    expand,
    open_text,
)
from pipeline.pairs import Reference, Skipped, pair_ids
from pipeline.repeats import (
    count_partitions,
    find_repeats,
    read_repeats,
    write_keys,
    write_repeats,
)
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import MANIFEST, Workspace
from pipeline.tables import (
    ColumnChoice,
    parquet_columns,
    read_delimited,
    read_json_lines,
    read_parquet,
)
from pipeline.warc import read_pages
from pipeline.wat import read_metadata

REASONS = {
    "no_url": "the image or row names no address",
    "data_url": "the address is the image itself, as data:",
    "bad_scheme": "the address has another scheme than http or https",
    "bad_url": "the address is no URL, or longer than 2,048 characters",
    "no_caption": "the image has no alternative text, or the row no caption",
    "caption_too_large": "the caption is longer than 4,096 characters",
    "http_error": "the server answered with another status than 200",
    "not_html": "the record of a crawl is no HTML page",
    "broken_record": "the record, page or row cannot be read",
    "duplicate_pair": "the same URL with the same caption occurred before",
}

CHUNK_ROWS = 262_144
PIECE_ROWS = 1_000_000
_DETAIL_CHARACTERS = 400


class IngestConfig(Settings):
    """Read crawls and tables into pairs of an image URL and a caption, each pair once."""

    inputs: tuple[str, ...] = ()
    """files, folders, patterns, s3:// paths or http(s) URLs: WARC, WAT, Parquet, CSV, TSV or JSON lines"""
    url_column: str | None = None
    """column of image URLs in tables; by default the first of url, image_url, uri, ... found"""
    caption_column: str | None = None
    """column of captions in tables; by default the first of caption, text, alt, ... found"""


@dataclass(frozen=True, kw_only=True)
class RowGroups:
    """A run of row groups of one Parquet file, and the number of its first row."""

    first: int
    after: int
    first_row: int


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """One input, or a run of row groups of one, to be read into chunks below `folder`."""

    input: Input
    groups: RowGroups | None
    config: IngestConfig
    folder: str
    output: TaskOutput


@dataclass(frozen=True, kw_only=True)
class RepeatsTask:
    """One range of pair ids to look for repeats in."""

    keys: tuple[str, ...]
    partition: int
    partitions: int
    path: str


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One chunk to be written as a part without its repeats."""

    pairs: Part
    drops: Part
    chunk: int
    repeats: tuple[str, ...]
    output: TaskOutput


def run(config: IngestConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Read every input and return the manifest.

    Raises:
        ConfigError: if no input is given.
        InputError: if a local file is nothing that witmill reads, lacks a column, or was written by
            a stage of this workspace.
        StorageError: if an input is not there.
        TaskFailed: if an input cannot be read.
    """
    if not config.inputs:
        raise ConfigError(
            "ingest.inputs is empty, expected files, folders, patterns or URLs of crawls or tables"
        )
    inputs = expand(config.inputs)
    # Before `begin`, which deletes what an earlier run with other settings made.
    _check_places(inputs, workspace)
    pieces = [(file, groups) for file in inputs for groups in _split(file, _choice(config))]
    files = {file.source: file.path for file in inputs}
    stage = begin("ingest", config, workspace, files=files)
    if stage.done:
        return stage.done
    chunks = stage.map(executor, "read", read_input, _read_tasks(stage, config, pieces))
    pairs, drops, keys = (
        [part for outcome in chunks for part in outcome.parts[table]]
        for table in ("pairs", "drops", "keys")
    )
    found = stage.map(executor, "repeats", find_partition, _repeats_tasks(stage, keys))
    repeats = tuple(outcome.parts["repeats"][0].path for outcome in found)
    tasks = [
        WriteTask(pairs=kept, drops=lost, chunk=i, repeats=repeats, output=stage.output(i))
        for i, (kept, lost) in enumerate(zip(pairs, drops, strict=True))
    ]
    return stage.finish(stage.map(executor, "write", write_part, tasks))


def _check_places(inputs: Sequence[Input], workspace: Workspace) -> None:
    root = f"{_place(workspace.root)}/"
    own: dict[str, str] = {}
    for file in inputs:
        folder, below, _ = _place(file.path).removeprefix(root).partition("/")
        if below and _place(file.path).startswith(root):
            own.setdefault(folder, file.path)
    for folder, path in own.items():
        if folder == "ingest" or storage.exists(workspace.path(folder, MANIFEST)):
            raise InputError(
                f"{path} belongs to the stage {folder} of this workspace, which replaces its files; "
                "expected inputs from elsewhere, or another workspace"
            )


def _place(path: str) -> str:
    return path.rstrip("/") if storage.is_url(path) else os.path.realpath(storage.local_path(path))


def _read_tasks(
    stage: StageRun, config: IngestConfig, pieces: Sequence[tuple[Input, RowGroups | None]]
) -> list[ReadTask]:
    folder = stage.scratch("read")
    return [
        ReadTask(input=file, groups=groups, config=config, folder=folder, output=stage.output(i))
        for i, (file, groups) in enumerate(pieces)
    ]


def _repeats_tasks(stage: StageRun, keys: Sequence[Part]) -> list[RepeatsTask]:
    partitions = count_partitions(sum(part.rows for part in keys))
    folder = stage.scratch("repeats")
    return [
        RepeatsTask(
            keys=tuple(part.path for part in keys),
            partition=i,
            partitions=partitions,
            path=f"{folder}/{i:05d}.parquet",
        )
        for i in range(partitions)
    ]


def _choice(config: IngestConfig) -> ColumnChoice:
    return ColumnChoice(url=config.url_column, caption=config.caption_column)


def _split(file: Input, choice: ColumnChoice) -> list[RowGroups | None]:
    # A remote file is copied whole by the task that reads it, so it stays in one piece.
    if storage.is_url(file.path):
        return [None]
    with Path(file.path).open("rb") as content:
        kind = detect(content, file.path)
        if kind != "parquet":
            # The first row shows whether a table has the columns, before hours of work on others.
            next(read_references(content, file.path, choice), None)
            return [None]
        with _open_parquet(content, file.path) as parquet:
            parquet_columns(parquet.schema_arrow, choice, table=file.path)
            return list(split_row_groups(parquet.metadata))


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


def read_input(task: ReadTask) -> Outcome:
    """Read one input into chunks of pairs, drops and keys; runs in a worker."""
    tables: dict[str, list[Part]] = {"pairs": [], "drops": [], "keys": []}
    rows_in = 0
    with storage.local_copy(task.input.path) as path, Path(path).open("rb") as file:
        rows = read_references(file, task.input.path, _choice(task.config), task.groups)
        while (batch := list(islice(rows, CHUNK_ROWS))) or not tables["pairs"]:
            rows_in += len(batch)
            for table, part in _write_chunk(task, len(tables["pairs"]), batch).items():
                tables[table].append(part)
    kept = sum(part.rows for part in tables["pairs"])
    return Outcome(rows_in=rows_in, rows_out=kept, parts=tables)


def _write_chunk(
    task: ReadTask, number: int, rows: Sequence[Reference | Skipped]
) -> dict[str, Part]:
    pairs, drops = tabulate(rows, task.input.source)
    name = f"{task.folder}/{task.output.index:05d}-{number:05d}"
    write = task.output.workspace.write
    return {
        "pairs": write(f"{name}-pairs.parquet", pairs, schemas.PAIRS),
        "drops": write(f"{name}-drops.parquet", drops, schemas.DROPS),
        "keys": write_keys(f"{name}-keys.parquet", pairs.column("pair_id")),
    }


def read_references(
    file: BinaryIO, name: str, choice: ColumnChoice, groups: RowGroups | None = None
) -> Iterator[Reference | Skipped]:
    """Yield the image references of any input, and a drop for each record, image or row that has none.

    Args:
        name: what to call the file in errors.
        groups: the row groups to read, of a Parquet file; all if None.

    Raises:
        InputError: if the file is nothing that witmill reads, or lacks a column.
    """
    kind = detect(file, name)
    if kind == "parquet":
        yield from _read_groups(file, name, choice, groups)
    elif kind in ("warc", "wat"):
        yield from read_pages(file) if kind == "warc" else read_metadata(file)
    else:
        row = -1
        try:
            for reference in _read_lines(file, kind, name, choice):
                row = reference.offset
                yield reference
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno:
                raise
            yield Skipped("broken_record", row + 1, f"nothing can be read from here on: {error}")


def _read_groups(
    file: BinaryIO, name: str, choice: ColumnChoice, groups: RowGroups | None
) -> Iterator[Reference | Skipped]:
    with _open_parquet(file, name) as parquet:
        columns = parquet_columns(parquet.schema_arrow, choice, table=name)
        first, after = (groups.first, groups.after) if groups else (0, parquet.num_row_groups)
        first_row = groups.first_row if groups else 0
        yield from read_parquet(parquet, range(first, after), columns, first_row=first_row)


def _read_lines(
    file: BinaryIO, kind: Kind, name: str, choice: ColumnChoice
) -> Iterator[Reference | Skipped]:
    if kind == "jsonl":
        return read_json_lines(open_text(file), choice, table=name)
    delimiter = "," if kind == "csv" else "\t"
    return read_delimited(open_text(file), delimiter, choice, table=name)


def tabulate(rows: Sequence[Reference | Skipped], source: str) -> tuple[pa.Table, pa.Table]:
    """Return the references among `rows` as PAIRS and the others as DROPS, in their order."""
    references = [row for row in rows if isinstance(row, Reference)]
    skipped = [row for row in rows if isinstance(row, Skipped)]
    urls, captions = [r.url for r in references], [r.caption for r in references]
    pairs = pa.table(
        {
            "pair_id": pair_ids(urls, captions),
            "url": urls,
            "caption": captions,
            "caption_source": [r.caption_source for r in references],
            "page_url": [r.page_url for r in references],
            "source": [source] * len(references),
            "source_offset": [r.offset for r in references],
        },
        schema=schemas.PAIRS,
    )
    drops = pa.table(
        {
            "pair_id": [s.pair_id for s in skipped],
            "reason": [s.reason for s in skipped],
            "detail": [f"{source}@{s.offset}: {s.seen}"[:_DETAIL_CHARACTERS] for s in skipped],
        },
        schema=schemas.DROPS,
    )
    return pairs, drops


def find_partition(task: RepeatsTask) -> Outcome:
    """Find the repeats in one range of pair ids; runs in a worker."""
    places = find_repeats(task.keys, task.partition, task.partitions)
    return Outcome(parts={"repeats": [write_repeats(task.path, places)]})


def write_part(task: WriteTask) -> Outcome:
    """Write one chunk's pairs but for the repeats among them; runs in a worker."""
    pairs = task.output.read(task.pairs, schemas.PAIRS)
    dropped = task.output.read(task.drops, schemas.DROPS)
    kept, repeated = split_repeats(pairs, read_repeats(task.repeats, task.chunk))
    return task.output.write(
        rows_in=pairs.num_rows + dropped.num_rows,
        kept=kept,
        schema=schemas.PAIRS,
        drops=pa.concat_tables([dropped, repeated]),
    )


def split_repeats(pairs: pa.Table, rows: pa.Array) -> tuple[pa.Table, pa.Table]:
    """Return `pairs` without the given rows, and those rows as DROPS."""
    numbers = pa.array(range(pairs.num_rows), pa.int32())
    kept = pairs.filter(pc.invert(pc.is_in(numbers, value_set=rows)))
    again = pairs.take(rows)
    places = pc.cast(again.column("source_offset"), pa.string())
    repeated = pa.table(
        {
            "pair_id": again.column("pair_id"),
            "reason": pa.repeat("duplicate_pair", again.num_rows),
            "detail": pc.binary_join_element_wise(again.column("source"), places, "@"),
        },
        schema=schemas.DROPS,
    )
    return kept, repeated
