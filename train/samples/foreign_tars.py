"""WebDataset tars of anybody: find them, find or make their indexes, and read those.

The index of DIR/NAME.tar is DIR/NAME.index.parquet, where `witmill index` puts it, or NAME.index.parquet
in a folder given, or else a file in the cache that is made when the tar is first met.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.errors import InputError
from pipeline.runtime import locks, storage
from pipeline.runtime.manifest import digest
from pipeline.runtime.progress import Progress
from train.samples.indexed import Indexed, parquet_errors, with_column
from train.samples.tar_index import TAR_INDEX, TarSummary, read_summary, write_tar_index
from train.stream import LOCATED

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
INDEX = ".index.parquet"
AT_ONCE = 16
MOST_IN_BRACES = 10_000_000
LISTED_TOGETHER = 8
"""From so many files of a folder on, the folder is listed in place of asking for each."""

COLUMNS = pa.schema([*LOCATED, *(f for f in TAR_INDEX if f.name not in LOCATED.names)])

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, kw_only=True)
class Tar:
    """A tar as it was found, and whether an index lies beside it."""

    path: str
    bytes: int
    modified: int
    has_index: bool

    @property
    def index(self) -> str:
        """Where its index lies if it lies beside it."""
        return _index_of(self.path)


def means_tars(path: str) -> bool:
    """Return whether a path names tars, or a folder with some."""
    first = next(expand(path))
    if first.endswith(SUFFIXES):
        return True
    return any(found.endswith(SUFFIXES) for found in storage.list_files(first))


def find_tars(pattern: str) -> list[Tar]:
    """Return the tars that a path, folder, `*` pattern or `{000..123}` pattern means, in its order.

    Raises:
        StorageError: if nothing is there.
        InputError: if some are missing, or there is no tar.
    """
    paths = [path for part in expand(pattern) for path in _listed(part)]
    if not paths:
        raise InputError(f"{pattern} holds no tars; expected files named *{', *'.join(SUFFIXES)}")
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        folders[storage.parent(path)].append(path)
    known: dict[str, fs.FileInfo] = {}
    for folder, some in folders.items():
        known |= _states(folder, [*some, *map(_index_of, some)])
    if missing := [path for path in paths if path not in known]:
        raise InputError(
            f"{pattern}: {len(missing):,} of {len(paths):,} tars are missing, such as {missing[0]}"
        )
    return [
        Tar(
            path=path,
            bytes=known[path].size,
            modified=known[path].mtime_ns,
            has_index=_index_of(path) in known,
        )
        for path in paths
    ]


def expand(pattern: str) -> Iterator[str]:
    """Yield what a pattern means by `{000..123}`, as webdataset writes it; nothing need be there.

    Raises:
        InputError: if the first number is after the last, or there are far too many.
    """
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + MOST_IN_BRACES:
        raise InputError(f"{pattern}: {found[0]} means no files; expected {{FIRST..LAST}}")
    for number in range(first, last + 1):
        digits = str(number).zfill(len(found[1]))
        yield from expand(f"{pattern[: found.start()]}{digits}{pattern[found.end() :]}")


def of_tars(tars: Sequence[Tar], *, indexes: str, cache: str, with_pictures: bool) -> Indexed:
    """Return the samples of tars; indexes that are nowhere are made, in the folder `cache`.

    Args:
        indexes: folder with indexes that `witmill index --output` wrote; empty: see above.
        with_pictures: leave out samples without a picture.

    Raises:
        InputError: if no sample can be used, or an index is not that of its tar.
    """
    places = [_index_place(tar, indexes, cache) for tar in tars]
    if not indexes:
        _make_missing(tars, places, cache)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        summaries = list(pool.map(_summary, tars, places))
    rows = [s.usable if with_pictures else s.usable + s.without_picture for s in summaries]
    left_out: Counter[str] = Counter()
    for summary in summaries:
        left_out.update(summary.left_out)
    if not with_pictures:
        del left_out["no_picture"]
    named = ((t.path, s.first_left_out) for t, s in zip(tars, summaries, strict=True))
    example = next((f"{path}: {first}" for path, first in named if first), "")
    if not any(rows):
        counts = ", ".join(f"{reason} {count:,}" for reason, count in left_out.items())
        seen = f"{counts}; the first: {example}" if example else "none at all"
        raise InputError(f"{tars[0].path} and what is with it hold no samples to use: {seen}")
    about = zip(summaries, rows, strict=True)
    return Indexed(
        rows=np.array(rows, np.int64),
        identity=digest([[summary.content, count] for summary, count in about]),
        columns=COLUMNS,
        read=partial(_read, [tar.path for tar in tars], places),
        left_out=dict(sorted(left_out.items())),
        example=example,
    )


def _listed(path: str) -> list[str]:
    if storage.is_http(path):
        raise InputError(
            f"{path}: tars are not read over http; expected a local path, s3:// or gs://"
        )
    path = path if storage.is_url(path) else storage.local_path(path)
    if path.endswith(SUFFIXES) and not storage.is_pattern(path):
        return [path]
    return [found for found in storage.list_files(path) if found.endswith(SUFFIXES)]


def _states(folder: str, paths: Sequence[str]) -> dict[str, fs.FileInfo]:
    system, inner = storage.filesystem(folder)
    with storage.storage_errors("look at", folder):
        if len(paths) > LISTED_TOGETHER:
            states = system.get_file_info(fs.FileSelector(inner, allow_not_found=True))
        else:
            states = system.get_file_info([storage.filesystem(path)[1] for path in paths])
    return {storage.join(folder, state.base_name): state for state in states if state.is_file}


def _index_of(tar: str) -> str:
    stem = next(tar.removesuffix(suffix) for suffix in SUFFIXES if tar.endswith(suffix))
    return f"{stem}{INDEX}"


def _index_place(tar: Tar, indexes: str, cache: str) -> str:
    if indexes:
        return storage.join(indexes, tar.index.rpartition("/")[2])
    if tar.has_index:
        return tar.index
    # Not by its size alone: this index is made without being asked for, so it is also renewed so.
    state = digest([tar.path, tar.bytes, tar.modified])
    return storage.join(cache, "indexes", f"{state}{INDEX}")


def _make_missing(tars: Sequence[Tar], places: Sequence[str], cache: str) -> None:
    made_here = [(t.path, p) for t, p in zip(tars, places, strict=True) if not t.has_index]
    if all(storage.exists(place) for _, place in made_here):
        return
    folder = storage.join(cache, "indexes")
    storage.make_folder(folder)
    # Other processes of the machine wait, and find them made.
    with locks.waited_for(folder):
        for left in storage.list_unfinished(folder):
            storage.remove(left)
        missing = [(tar, place) for tar, place in made_here if not storage.exists(place)]
        if not missing:
            return
        with (
            Progress("index", len(missing), unit="tars") as progress,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            for summary in pool.map(lambda both: write_tar_index(*both), missing):
                progress.advance(rows=summary.usable, drops=sum(summary.left_out.values()))


def _summary(tar: Tar, place: str) -> TarSummary:
    if not storage.exists(place):
        raise InputError(f"{tar.path} has no index at {place}; make it with `witmill index`")
    summary = read_summary(place)
    if summary is None:
        raise InputError(f"{place} is no index of a tar; make it anew with `witmill index --again`")
    if summary.bytes != tar.bytes:
        raise InputError(
            f"{place} is the index of a tar of {summary.bytes:,} bytes, {tar.path} has {tar.bytes:,}; "
            "make it anew with `witmill index --again`"
        )
    return summary


def _read(
    tars: Sequence[str],
    places: Sequence[str],
    shard: int,
    first: int,
    last: int,
    columns: Sequence[str],
) -> pa.Table:
    names = ["key" if name == "pair_id" else name for name in columns if name != "shard"]
    with parquet_errors(places[shard]), storage.open_input(places[shard]) as file:
        parquet = pq.ParquetFile(file)
        counts = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        ends = np.cumsum(counts)
        groups = range(
            int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(ends, last)) + 1
        )
        table = parquet.read_row_groups(list(groups), columns=list(dict.fromkeys(names)))
        before = int(ends[groups[0]]) - counts[groups[0]]
        table = table.slice(first - before, last - first)
        if "shard" in columns:
            table = with_column(table, "shard", tars[shard])
        if "pair_id" in columns:
            table = table.append_column("pair_id", table.column("key"))
        return table.select(list(columns))
