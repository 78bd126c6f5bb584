"""Where the images of a part come from: the web under its rules, or archives."""

from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.download import DownloadConfig, DownloadTask
from pipeline.downloading.archives import Archives, find_captures
from pipeline.fetching.blocklist import load_blocklist
from pipeline.fetching.fetch import Fetcher, Limits
from pipeline.fetching.robots_files import RobotRules, bucket_of, origins_of
from pipeline.fetching.robots_tag import agents_of
from pipeline.runtime import storage
from pipeline.runtime.parquet import read_parquet

_BEGINNING = r"^(?P<origin>[A-Za-z]+://[^/?#]*)"


def limits_of(config: DownloadConfig) -> Limits:
    """Return the limits under which to fetch."""
    return Limits(
        user_agent=config.full_user_agent,
        timeout_s=config.timeout_s,
        max_bytes=config.max_bytes,
        per_host=config.per_host,
        per_host_rate=config.per_host_rate,
        max_wait_s=config.max_wait_s,
        allow_addresses=config.allow_addresses,
        allow_downgrade=config.allow_downgrade,
    )


def web_fetcher(task: DownloadTask, urls: pa.ChunkedArray) -> Fetcher:
    """Return what asks the web for `urls`, by the rules of robots.txt that were read before."""
    config = task.config
    rules = None
    if config.robots == "respect" and config.images_from != "captures":
        known = _known_robots(task.robots, urls)
        rules = RobotRules(agents_of(config.user_agent), known, partial(_robots_of, task.robots))
    return Fetcher(
        limits_of(config),
        robots=rules,
        blocklist=load_blocklist(config.blocklist) if config.blocklist else None,
    )


def fetch_function(
    task: DownloadTask, urls: pa.ChunkedArray, ask_web: Callable[[str], bytes]
) -> Callable[[str], bytes]:
    """Return what fetches `urls`, from wherever they are to come."""
    if task.config.images_from == "web":
        return ask_web
    return Archives(
        root=task.archives,
        places=find_captures(task.captures, urls, task.output),
        max_bytes=task.config.max_bytes,
        agents=agents_of(task.config.user_agent),
        otherwise=ask_web if task.config.images_from == "both" else None,
    ).fetch


def _known_robots(folder: str, urls: pa.ChunkedArray) -> pa.Table:
    """Return those ROBOTS of the files in `folder` that `urls` fall under, one file in memory at a time."""
    origins = pa.array(list_origins(urls), pa.string())
    tables = [schemas.ROBOTS.empty_table()]
    for path in storage.list_inside(folder):
        table = read_parquet(path)
        tables.append(table.filter(pc.is_in(table.column("origin"), origins)))
    return pa.concat_tables(tables)


def _robots_of(folder: str, origin: str) -> pa.Table:
    """Return what the files in `folder` hold of an origin that a redirect leads to, if anything."""
    files = storage.list_inside(folder)
    if not files:
        return schemas.ROBOTS.empty_table()
    table = read_parquet(files[bucket_of(origin, len(files))])
    return table.filter(pc.equal(table.column("origin"), origin))


def list_origins(urls: pa.ChunkedArray) -> list[str]:
    """Return the different origins of `urls`, sorted."""
    # Most hosts have many URLs, and reading one in full takes 10 microseconds.
    beginnings = pc.struct_field(pc.extract_regex(urls, pattern=_BEGINNING), 0)
    return origins_of(filter(None, pc.unique(beginnings).to_pylist()))
