"""Read the robots.txt of every origin once, before any part is downloaded.

The origins of each part are dealt into buckets by their hosts. Those of one bucket, of all parts
together, are one task. A part then looks its own origins up in what the buckets gave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.download import DownloadConfig
from pipeline.downloading.outage import Watch
from pipeline.downloading.sources import limits_of, list_origins
from pipeline.fetching.blocklist import load_blocklist
from pipeline.fetching.exchange import Answer
from pipeline.fetching.fetch import Fetcher
from pipeline.fetching.robots_files import bucket_of, read_robots
from pipeline.fetching.robots_tag import agents_of
from pipeline.runtime import storage
from pipeline.runtime.buckets import read_bucket, write_buckets
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.parquet import write_parquet
from pipeline.runtime.stage import StageRun

Task = TypeVar("Task")

MAX_BUCKETS = 1024

_ORIGINS = pa.schema([("origin", pa.string())])


@dataclass(frozen=True, kw_only=True)
class OriginsTask:
    """List the origins of the URLs that `urls` returns for `of`."""

    urls: Callable[[Any], pa.ChunkedArray]
    of: object
    path: str
    buckets: int


@dataclass(frozen=True, kw_only=True)
class RobotsTask:
    """Ask the origins of one bucket, listed in the files of a folder, for their robots.txt."""

    origins: str
    bucket: int
    path: str
    config: DownloadConfig


def read_all_robots(
    stage: StageRun,
    executor: Executor,
    config: DownloadConfig,
    urls: Callable[[Task], pa.ChunkedArray],
    tasks: Sequence[Task],
) -> list[Outcome]:
    """Write files of ROBOTS for the URLs of all `tasks` into the folder of `robots_folder`.

    Args:
        urls: a module-level function that returns those of a task.
    """
    if config.robots == "ignore" or config.images_from == "captures":
        return []
    found = stage.scratch(f"origins-{stage.revision}")
    buckets = max(1, min(MAX_BUCKETS, len(tasks)))
    listing = [
        OriginsTask(urls=urls, of=task, path=storage.join(found, f"{i:05d}.arrow"), buckets=buckets)
        for i, task in enumerate(tasks)
    ]
    stage.map(executor, "origins", write_origins, listing)
    folder = robots_folder(stage)
    asking = [
        RobotsTask(
            origins=found,
            bucket=i,
            path=storage.join(folder, f"{i:05d}.parquet"),
            config=config,
        )
        for i in range(buckets)
    ]
    return stage.map(executor, "robots", ask_bucket, asking)


def robots_folder(stage: StageRun) -> str:
    """Return where the stage keeps what robots.txt files say while it runs."""
    return stage.scratch(f"robots-{stage.revision}")


def write_origins(task: OriginsTask) -> Outcome:
    """Write a part's origins into buckets; those of one host go into the same."""
    origins = pa.array(list_origins(task.urls(task.of)), pa.string())
    dealt = [bucket_of(origin, task.buckets) for origin in origins.to_pylist()]
    bucket = np.array(dealt, np.int64)
    write_buckets(task.path, pa.table([origins], schema=_ORIGINS), bucket, task.buckets)
    return Outcome()


def ask_bucket(task: RobotsTask) -> Outcome:
    """Ask the origins of one bucket, each once, and write ROBOTS."""
    config = task.config
    blocklist = load_blocklist(config.blocklist) if config.blocklist else None
    fetcher = Fetcher(limits_of(config), blocklist=blocklist)
    watch = Watch(config.max_unreachable)
    listed = read_bucket(storage.list_inside(task.origins), task.bucket, _ORIGINS)
    origins = pc.unique(listed.column("origin"))
    asker = _Watched(watch.watched(fetcher.fetch_robots))
    table = read_robots(
        sorted(origins.to_pylist()), asker, agents_of(config.user_agent), threads=config.threads
    )
    write_parquet(task.path, table)
    return Outcome(counters={"robots_read": table.num_rows, "requests": fetcher.asked})


@dataclass(frozen=True)
class _Watched:
    fetch_robots: Callable[[str], Answer]
