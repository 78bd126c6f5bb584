"""The command that makes indexes of tars, `witmill index`."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.executor import make_executor
from pipeline.runtime.progress import Progress

if TYPE_CHECKING:
    from train.samples.tar_index import TarSummary

SHOWN = 20
"""Tars of which an example of what is left out is printed."""


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """One tar, and where its index is to be."""

    tar: str
    bytes: int
    target: str
    again: bool


def index(
    *tars: str,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    again: Annotated[bool, Parameter(negative=())] = False,
    executor: Annotated[
        Literal["local", "ray"],
        Parameter(help="processes on this machine (the default), or a Ray cluster"),
    ] = "local",
    workers: Annotated[
        int | None, Parameter(help="processes; default: one per core; 0: in this process")
    ] = None,
) -> int:
    """Index WebDataset tars of anybody, so that training reads their samples in any order.

    Each tar is read once, by its headers and texts; pictures are stepped over. What cannot be used is
    counted by reason, and a row of the index.

    Example: `witmill index "cc12m/{00000..01242}.tar"`

    Example: `witmill index s3://bucket/laion/ --output indexes`

    Args:
        tars: tars, folders of tars, or patterns such as 'cc12m/{00000..01242}.tar'; or their URLs.
        output: folder for the indexes; default: each beside its tar, as NAME.index.parquet.
        again: make those anew that are there.
    """
    tasks = _tasks(tars, output, again)
    reasons: Counter[str] = Counter()
    usable = shown = 0
    with (
        closing(make_executor(executor, workers=workers)) as chosen,
        Progress("index", len(tasks), unit="tars") as progress,
    ):
        for tar, found in chosen.map(index_tar, tasks):
            usable += found.usable
            reasons.update(found.left_out)
            dropped = sum(found.left_out.values())
            progress.advance(rows=found.usable + dropped, drops=dropped)
            if found.first_left_out and shown < SHOWN:
                print(f"{tar}: {found.first_left_out}")
                shown += 1
    for reason, count in sorted(reasons.items()):
        print(f"{reason:<16} {count:>12,}")
    print(f"{len(tasks):,} tars, {usable:,} samples, {sum(reasons.values()):,} left out")
    return 0


def index_tar(task: IndexTask) -> tuple[str, "TarSummary"]:
    """Index one tar, and return it with what was found; runs in a worker."""
    from train.samples.tar_index import read_summary, write_tar_index

    summary = None
    if not task.again and storage.exists(task.target):
        summary = read_summary(task.target)
    if summary is None or summary.bytes != task.bytes:
        summary = write_tar_index(task.tar, task.target)
    return task.tar, summary


def _tasks(patterns: tuple[str, ...], output: str | None, again: bool) -> list[IndexTask]:
    from train.samples.foreign_tars import find_tars

    if not patterns:
        raise ConfigError("no tars are given; expected such as 'cc12m/{00000..01242}.tar'")
    tars = [tar for pattern in patterns for tar in find_tars(pattern)]
    names = Counter(tar.index.rpartition("/")[2] for tar in tars)
    if output is not None and (twice := [name for name, count in names.items() if count > 1]):
        raise ConfigError(
            f"{twice[0]} would be the index of {names[twice[0]]} tars in {output}; "
            "give tars of the same name an --output each"
        )
    targets = [
        storage.join(output, tar.index.rpartition("/")[2]) if output is not None else tar.index
        for tar in tars
    ]
    return [
        IndexTask(tar=tar.path, bytes=tar.bytes, target=target, again=again)
        for tar, target in zip(tars, targets, strict=True)
    ]
