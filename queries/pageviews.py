"""Count how often each article of English Wikipedia is looked for.

Reads Wikimedia's hourly files `pageviews-YYYYMMDD-HH0000.gz`, one line a page and site:

    en.m Golden_Retriever 112 0

Each file becomes a part of titles and views, several files at once; the parts are added up, and the
views of redirects go to the articles that they lead to.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.parquet import write_parquet
from pipeline.runtime.progress import Progress
from pipeline.runtime.settings import Settings
from queries.page_names import article_title

DOMAINS = ("en", "en.m", "en.zero")

_CHUNK_BYTES = 8 << 20
_LONGEST_LINE = 64 << 10
_ROWS_TO_ADD_UP = 4_000_000
# A page with more views in an hour than there are people is a broken line.
_LONGEST_COUNT = 10
_GZIP_MAGIC = b"\x1f\x8b"
_COUNTERS = b"witmill"


class PageviewsConfig(Settings):
    """Count the page views of English Wikipedia's articles in Wikimedia's hourly files."""

    files: tuple[str, ...] = ()
    """files, folders or patterns: pageviews-*.gz, or the same lines uncompressed"""
    output: str = "views.parquet"
    """Parquet file to write: title, views"""
    wikipedia: str = ""
    """workspace of `witmill queries wikipedia`: its pages say where redirects lead, what is an article"""
    domains: tuple[str, ...] = DOMAINS
    """sites counted, as the lines name them: the desktop site, the mobile one, the one without charges"""
    minimum_hourly_views: int = Field(1, ge=1)
    """views that a page needs in an hour for the hour to count; MetaCLIP's 50 is for `--domains en`"""

    @field_validator("domains")
    @classmethod
    def _no_spaces(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        if not domains or any(not domain or " " in domain for domain in domains):
            raise ValueError("names of sites as the lines give them, such as en en.m")
        return domains


@dataclass(frozen=True, kw_only=True)
class HourTask:
    """One file to count into one part."""

    path: str
    part: str
    domains: tuple[str, ...]
    minimum: int


@dataclass(frozen=True, kw_only=True)
class ViewsReport:
    """What a count wrote and what it passed over."""

    output: str
    titles: int
    views: int
    files: int
    counters: dict[str, int] = field(default_factory=dict)


def count_views(config: PageviewsConfig, executor: Executor) -> ViewsReport:
    """Count the files and write PAGE_VIEWS to `config.output`, most viewed first.

    What an interrupted run has counted lies beside the output and is not counted again.

    Raises:
        InputError: if there are no files, or no article was viewed.
        TaskFailed: naming the files that cannot be read, after the others are counted.
    """
    found = (path for given in config.files for path in storage.list_files(given))
    paths = [path if storage.is_url(path) else storage.local_path(path) for path in found]
    if not paths:
        raise InputError("no files were given; expected some such as 'pageviews/pageviews-*.gz'")
    from queries.viewed_articles import known_pages, write_views

    pages = known_pages(config.wikipedia) if config.wikipedia else None
    folder = f"{config.output}.parts"
    tasks = [_task(path, folder, config) for path in dict.fromkeys(paths)]
    waiting = [task for task in tasks if not storage.exists(task.part)]
    with Progress("pageviews", len(tasks), done=len(tasks) - len(waiting), unit="files") as shown:
        for lines in executor.map(count_hour, waiting):
            shown.advance(rows=lines)
    counters: Counter[str] = Counter()
    for task in tasks:
        counters.update(_counters(task.part))
    titles, views = write_views([task.part for task in tasks], pages, config.output, counters)
    storage.remove(folder)
    return ViewsReport(
        output=config.output,
        titles=titles,
        views=views,
        files=len(tasks),
        counters=dict(counters),
    )


def count_hour(task: HourTask) -> int:
    """Count one file, write its part and return how many lines of the sites it has; runs in a worker.

    Raises:
        InputError: if the file is cut short or is no such file.
    """
    counters: Counter[str] = Counter()
    with storage.local_copy(task.path) as local, storage.open_input(local) as file:
        table = _add_up(_tables(_pieces(file, task.path), task.domains, counters))
    if not counters["lines"]:
        raise InputError(
            f"{task.path} has no line of {' or '.join(task.domains)}; "
            "expected Wikimedia's hourly page views: `en Golden_Retriever 112 0`"
        )
    table = table.filter(pc.greater_equal(table["views"], task.minimum)).sort_by("title")
    described = table.replace_schema_metadata({_COUNTERS: json.dumps(counters).encode()})
    write_parquet(task.part, described)
    return counters["lines"]


def _task(path: str, folder: str, config: PageviewsConfig) -> HourTask:
    # Named by what it was counted from and how: parts of other files or settings are never taken for it.
    stamp = storage.stamp(path)
    basis = [path, stamp.bytes, stamp.state, config.domains, config.minimum_hourly_views]
    name = hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:24]
    part = storage.join(folder, f"{name}.parquet")
    return HourTask(
        path=path, part=part, domains=config.domains, minimum=config.minimum_hourly_views
    )


def _counters(part: str) -> dict[str, int]:
    with storage.open_input(part) as file:
        metadata = pq.read_schema(file).metadata
    counters: dict[str, int] = json.loads(metadata[_COUNTERS])
    return counters


def _pieces(file: pa.NativeFile, path: str) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked if it is gzip."""
    packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    source = gzip.GzipFile(fileobj=cast(IO[bytes], file)) if packed else file
    try:
        while piece := source.read(_CHUNK_BYTES):
            yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is cut short or broken: {str(error).splitlines()[0]}; fetch it again"
        ) from error


def _tables(
    pieces: Iterator[bytes], domains: tuple[str, ...], counters: Counter[str]
) -> Iterator[pa.Table]:
    """Yield the titles and views of each piece, in which a title may stand several times."""
    prefixes = tuple(f"{domain} ".encode() for domain in domains)
    for lines in _lines(pieces):
        titles, views = [], []
        for line in lines:
            if not line.startswith(prefixes):
                continue
            counters["lines"] += 1
            fields = line.split(b" ")
            count = fields[2] if len(fields) == 4 else b""
            if not (count.isdigit() and len(count) <= _LONGEST_COUNT):
                counters["broken"] += 1
                continue
            title, reason = article_title(fields[1])
            if title is None:
                counters[str(reason)] += 1
                continue
            titles.append(title)
            views.append(int(count))
        columns = [pa.array(titles, pa.string()), pa.array(views, pa.int64())]
        yield pa.table(columns, schema=schemas.PAGE_VIEWS)


def _lines(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        # No page's line is as long: what comes of the rest is counted as broken.
        rest = rest[:_LONGEST_LINE]
        yield lines
    yield [rest]


def _add_up(tables: Iterator[pa.Table]) -> pa.Table:
    waiting = [schemas.PAGE_VIEWS.empty_table()]
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) > _ROWS_TO_ADD_UP:
            waiting = [_by_title(waiting)]
    return _by_title(waiting)


def _by_title(tables: list[pa.Table]) -> pa.Table:
    added = pa.concat_tables(tables).group_by("title").aggregate([("views", "sum")])
    return pa.table([added["title"], added["views_sum"]], schema=schemas.PAGE_VIEWS)
