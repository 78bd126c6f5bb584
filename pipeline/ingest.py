"""Read crawls and tables into pairs of an image URL and a caption, each pair once."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import field_validator

from pipeline import schemas
from pipeline.errors import ConfigError, InputError, TaskFailed, WitmillError
from pipeline.inputs.chunks import read_chunks, split_repeats, write_chunk
from pipeline.inputs.common_crawl import COMMON_CRAWL, CrawlKind, list_crawl, parse_choices
from pipeline.inputs.files import Input, UnknownKind, detect, expand
from pipeline.inputs.pairs import Skipped
from pipeline.inputs.references import RowGroups, split_input
from pipeline.inputs.repeats import (
    count_partitions,
    find_repeats,
    read_repeats,
    write_repeats,
)
from pipeline.inputs.tables import ColumnChoice
from pipeline.pages.row_tables import KEYED_PAIRS, Chunk, tabulate
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.progress import say
from pipeline.runtime.settings import Settings, pace
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import MANIFEST, Workspace

REASONS = {
    "no_url": "the image or row names no address",
    "data_url": "the address is the image itself, as data:",
    "bad_scheme": "the address has another scheme than http or https",
    "bad_url": "the address is no URL, or longer than 2,048 characters",
    "no_caption": "the image has no text, or the row no caption",
    "caption_too_large": "the caption is longer than 4,096 characters",
    "http_error": "the server answered with another status than 200",
    "not_html": "the record of a crawl is no HTML page",
    "broken_record": "the record, page or row cannot be read",
    "broken_box": "the boxes to blur cannot be read, so the image must not be stored",
    "duplicate_pair": "the same URL with the same caption occurred before",
    "unknown_file": "the file, found in a folder or by a pattern, is nothing that witmill reads",
    "missing_file": "the file could not be read, and max_failed_files lets the others go on",
}


class IngestConfig(Settings):
    """Read crawls and tables into pairs of an image URL and a caption, each pair once."""

    inputs: tuple[str, ...] = ()
    """files, folders, patterns, s3:// paths or http(s) URLs: WARC, WAT, Parquet, CSV, TSV, JSON lines or tars of pictures"""
    crawl: str | None = None
    """crawl of Common Crawl to read in place of inputs, such as CC-MAIN-2024-22"""
    kind: CrawlKind = "wat"
    """which files of the crawl: wat, the images that its pages list, or warc, the pages themselves"""
    files: tuple[str, ...] = ()
    """which of these files, by their places in the crawl's list, such as 0:100, 5 or 0:100:10"""
    mirror: str = pace(COMMON_CRAWL)
    """folder or URL below which the crawl's crawl-data/ lies, such as s3://commoncrawl"""
    max_failed_files: int = pace(0, ge=0)
    """inputs that may fail for good, such as missing ones, without stopping the stage"""
    url_column: str | None = None
    """column of image URLs in tables; by default the first of url, image_url, uri, ... found"""
    caption_column: str | None = None
    """column of captions in tables; by default the first of caption, text, alt, ... found"""
    key_column: str | None = None
    """column of the rows' own keys in tables, kept in source_keys; by default uid, if there is one"""
    boxes_column: str | None = None
    """column of boxes to blur in tables, such as faces; by default face_bboxes, if there is one"""

    @field_validator("crawl")
    @classmethod
    def _is_a_crawl(cls, crawl: str | None) -> str | None:
        if crawl is not None and not re.fullmatch(r"CC-[A-Z]+[-/][0-9][0-9/-]*", crawl):
            raise ValueError("a crawl such as CC-MAIN-2024-22 or CC-NEWS/2024/05")
        return crawl

    @field_validator("files")
    @classmethod
    def _are_places(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        parse_choices(files)
        return files


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """One input, or a run of row groups of one, to be read into chunks below `folder`."""

    input: Input
    groups: RowGroups | None
    config: IngestConfig
    folder: str
    output: TaskOutput
    is_missing: bool = False


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
    kind: str
    repeats: tuple[str, ...]
    output: TaskOutput


def run(config: IngestConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Read every input and return the manifest.

    Raises:
        ConfigError: if no input is given, or a crawl without files.
        InputError: if a local file is nothing that witmill reads, lacks a column, or was written by
            a stage of this workspace.
        StorageError: if an input is not there.
        TaskFailed: if more inputs cannot be read than may fail.
    """
    inputs = list_inputs(config)
    # Before `begin`, which deletes what an earlier run with other settings made.
    _check_places(inputs, workspace)
    pieces = [(file, groups) for file in inputs for groups in _split(file, config)]
    stage = begin("ingest", config, workspace, files=_identities(inputs, config))
    if stage.done:
        return stage.done
    chunks = _read_all(stage, executor, config, pieces)
    tasks = _write_tasks(stage, executor, chunks)
    outcomes = stage.map(executor, "write", write_part, tasks)
    for outcome in chunks:
        for part in outcome.parts.get("captures", []):
            stage.add("captures", part)
    manifest = stage.finish(outcomes)
    _say_what_came([file for file, _ in pieces], chunks, tasks, outcomes)
    return manifest


def list_inputs(config: IngestConfig) -> list[Input]:
    """Return the files that the settings mean, in the order in which they are read.

    Raises:
        ConfigError: if there are none, or both inputs and a crawl are given.
        InputError, StorageError: see `expand` and `list_crawl`.
    """
    if config.crawl is None:
        if config.files:
            raise ConfigError("ingest.files chooses files of a crawl; name one with --crawl")
        if not config.inputs:
            raise ConfigError(
                "ingest.inputs is empty, expected files, folders, patterns or URLs of crawls or "
                "tables; or name a crawl with --crawl and --files"
            )
        return expand(config.inputs)
    if config.inputs:
        raise ConfigError("both ingest.inputs and ingest.crawl are given, expected one of them")
    if not config.files:
        raise ConfigError(
            f"ingest.crawl is {config.crawl} and ingest.files is empty; a crawl has up to 100,000 files "
            "of each kind, expected places in its list such as 0:100, or : for all"
        )
    return list_crawl(config.crawl, config.kind, config.files, mirror=config.mirror)


def find_root(config: IngestConfig) -> str:
    """Return the folder or URL that sources are relative to, empty where inputs share none."""
    if config.crawl is not None:
        return config.mirror
    first = list_inputs(config)[0]
    return first.path[: -len(first.source)]


def _identities(inputs: Sequence[Input], config: IngestConfig) -> dict[str, str]:
    # A crawl's files never change and are the same in every mirror: their addresses say all.
    if config.crawl is not None:
        return {file.source: f"{COMMON_CRAWL}/{file.source}" for file in inputs}
    return {file.source: file.path for file in inputs}


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


def _split(file: Input, config: IngestConfig) -> list[RowGroups | None]:
    # A remote file is copied whole by the task that reads it, so it stays in one piece; so does a
    # crawl's, of which one that is missing is no reason to stop before the others.
    if storage.is_url(file.path) or config.crawl is not None:
        return [None]
    try:
        with Path(file.path).open("rb") as content:
            return split_input(content, file.path, _choice(config))
    except UnknownKind:
        if file.is_named:
            raise
        return [None]


def _read_all(
    stage: StageRun,
    executor: Executor,
    config: IngestConfig,
    pieces: Sequence[tuple[Input, RowGroups | None]],
) -> list[Outcome]:
    folder = stage.scratch("read")
    tasks = [
        ReadTask(input=file, groups=groups, config=config, folder=folder, output=stage.output(i))
        for i, (file, groups) in enumerate(pieces)
    ]
    try:
        return stage.map(executor, "read", read_input, tasks)
    except TaskFailed as error:
        done = stage.outcomes("read")
        failed = {task.input.source for task in tasks if task.output.index not in done}
        seen = _name_failed(sorted(failed), error)
        if len(failed) > config.max_failed_files:
            raise TaskFailed(
                f"{seen}; run the same command to try these again, the others are kept; or "
                f"--max-failed-files {len(failed)} to go on without them"
            ) from error.__cause__
        say(f"ingest goes on without some inputs: {seen}")
    # With receipts of their own, so that a run killed from here on goes on without them, too.
    without = [replace(task, is_missing=task.output.index not in done) for task in tasks]
    return stage.map(executor, "read", read_input, without)


def _name_failed(sources: Sequence[str], error: TaskFailed) -> str:
    names = ", ".join(sources[:5]) + (f" and {len(sources) - 5} more" if sources[5:] else "")
    cause = error.__cause__
    reason = str(cause) if isinstance(cause, WitmillError) else repr(cause)
    return f"{len(sources)} inputs failed ({names}): {reason}"


def _write_tasks(stage: StageRun, executor: Executor, chunks: Sequence[Outcome]) -> list[WriteTask]:
    pairs, drops, keys = (
        [part for outcome in chunks for part in outcome.parts[table]]
        for table in ("pairs", "drops", "keys")
    )
    kinds = [_kind(outcome) for outcome in chunks for _ in outcome.parts["pairs"]]
    found = stage.map(executor, "repeats", find_partition, _repeats_tasks(stage, keys))
    repeats = tuple(outcome.parts["repeats"][0].path for outcome in found)
    return [
        WriteTask(
            pairs=kept, drops=lost, chunk=i, kind=kind, repeats=repeats, output=stage.output(i)
        )
        for i, (kept, lost, kind) in enumerate(zip(pairs, drops, kinds, strict=True))
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
    return ColumnChoice(
        url=config.url_column,
        caption=config.caption_column,
        key=config.key_column,
        boxes=config.boxes_column,
    )


def read_input(task: ReadTask) -> Outcome:
    """Read one input into chunks of pairs, drops, keys and captures; runs in a worker."""
    if task.is_missing:
        return _leave_out(task, "missing_file", "could not be read")
    with storage.local_copy(task.input.path) as path, Path(path).open("rb") as file:
        try:
            kind = detect(file, task.input.path)
        except UnknownKind as error:
            if task.input.is_named:
                raise
            return _leave_out(task, "unknown_file", str(error))
        return _read_chunks(task, file, kind)


def _read_chunks(task: ReadTask, file: BinaryIO, kind: str) -> Outcome:
    chunks = read_chunks(file, task.input, _choice(task.config), task.groups)
    tables: dict[str, list[Part]] = {"pairs": [], "drops": [], "keys": [], "captures": []}
    for chunk in chunks:
        _write(task, chunk, tables)
    if not tables["pairs"]:
        _write(task, tabulate([], task.input.source), tables)
    return _outcome(tables, kind)


def _leave_out(task: ReadTask, reason: str, seen: str) -> Outcome:
    """Return the outcome of an input that gives nothing but one drop."""
    tables: dict[str, list[Part]] = {"pairs": [], "drops": [], "keys": []}
    _write(task, tabulate([Skipped(reason, 0, seen)], task.input.source), tables)
    return _outcome(tables, reason)


def _write(task: ReadTask, chunk: Chunk, tables: dict[str, list[Part]]) -> None:
    parts = write_chunk(
        chunk,
        task.input.source,
        workspace=task.output.workspace,
        folder=task.folder,
        name=f"{task.output.index:05d}-{len(tables['pairs']):05d}",
    )
    for table, part in parts.items():
        tables[table].append(part)


def _outcome(tables: dict[str, list[Part]], kind: str) -> Outcome:
    kept, dropped = (sum(part.rows for part in tables[table]) for table in ("pairs", "drops"))
    return Outcome(rows_in=kept + dropped, rows_out=kept, parts=tables, counters={kind: 1})


def _kind(outcome: Outcome) -> str:
    return next(iter(outcome.counters))


def find_partition(task: RepeatsTask) -> Outcome:
    """Find the repeats in one range of pair ids; runs in a worker."""
    places = find_repeats(task.keys, task.partition, task.partitions)
    return Outcome(parts={"repeats": [write_repeats(task.path, places)]})


def write_part(task: WriteTask) -> Outcome:
    """Write one chunk's pairs but for the repeats among them; runs in a worker."""
    pairs = task.output.read(task.pairs, KEYED_PAIRS)
    dropped = task.output.read(task.drops, schemas.DROPS)
    kept, repeated = split_repeats(pairs, read_repeats(task.repeats, task.chunk))
    keys = kept.filter(pc.is_valid(kept.column("key"))).select(schemas.SOURCE_KEYS.names)
    return task.output.write(
        rows_in=pairs.num_rows + dropped.num_rows,
        kept=kept.select(schemas.PAIRS.names),
        schema=schemas.PAIRS,
        drops=pa.concat_tables([dropped, repeated]),
        side={"source_keys": (keys, schemas.SOURCE_KEYS)},
    )


def _say_what_came(
    inputs: Sequence[Input],
    read: Sequence[Outcome],
    tasks: Sequence[WriteTask],
    written: Sequence[Outcome],
) -> None:
    kinds = {file.path: _kind(chunk) for file, chunk in zip(inputs, read, strict=True)}
    files = Counter(kinds.values())
    if "wat" in files:
        say(
            "WAT files list src, alt, title and Open Graph; addresses of late loading, srcset, pictures' "
            "sources and figures' captions are in the WARC files alone"
        )
    say(f"{'kind':<14}{'files':>9}{'rows':>15}{'pairs':>15}  dropped")
    for kind in sorted(files):
        some = [o for task, o in zip(tasks, written, strict=True) if task.kind == kind]
        drops: Counter[str] = Counter()
        for outcome in some:
            drops.update(outcome.drops)
        rows, pairs = (sum(getattr(o, name) for o in some) for name in ("rows_in", "rows_out"))
        ordered = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in ordered)
        say(f"{kind:<14}{files[kind]:>9,}{rows:>15,}{pairs:>15,}  {reasons}".rstrip())
