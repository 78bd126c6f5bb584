"""Which host a URL is asked of, and how the hosts answered."""

import tempfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline import schemas
from pipeline.runtime import storage
from pipeline.runtime.manifest import Outcome, Part
from pipeline.runtime.stage import TaskOutput

UNREACHED = ("connection", "dns", "timeout")
"""Reasons that a host which cannot be reached gives."""

NOT_ASKED = ("bad_url", "blocked", "broken_capture", "not_captured", "private_address")
"""Reasons that say nothing of a host, since it was not asked."""

WORST_HOSTS = 100
"""Hosts that lost the most pairs, of which the summary tells."""

_HOST = r"^[A-Za-z]+://(?:[^/?#@]*@)?(?P<host>\[[^\]/?#]*\]|[^:/?#]*)"


def hosts_of(urls: pa.StringArray) -> pa.StringArray:
    """Return the host of each URL in lower case, without a port; empty where there is none."""
    found = pc.struct_field(pc.extract_regex(urls, pattern=_HOST), 0)
    return pc.utf8_lower(pc.fill_null(found, ""))


def count_answers(
    hosts: pa.StringArray,
    reasons: pa.Array | pa.ChunkedArray,
    image_bytes: pa.Array | pa.ChunkedArray,
    pairs: npt.NDArray[np.int64],
) -> pa.Table:
    """Return HOST_ANSWERS of URLs, given of each its host, answer and the pairs that have it."""
    table = pa.table(
        {
            "host": hosts,
            "reason": reasons,
            "urls": pa.array(np.ones(len(hosts), np.int64)),
            "pairs": pa.array(pairs),
            "bytes": pc.fill_null(image_bytes, 0),
        }
    )
    return _added_up(table)


def replace_answers(before: pa.Table, asked_again: pa.Table, now: pa.Table) -> pa.Table:
    """Return HOST_ANSWERS `before` less those of the URLs asked again, plus those they have `now`."""
    taken = asked_again
    for name in ("urls", "pairs", "bytes"):
        place = taken.schema.get_field_index(name)
        taken = taken.set_column(place, taken.field(place), pc.negate(taken.column(name)))
    table = _added_up(pa.concat_tables([before, taken, now]))
    return table.filter(pc.not_equal(table.column("urls"), 0))


def _added_up(table: pa.Table) -> pa.Table:
    sums = [(name, "sum") for name in ("urls", "pairs", "bytes")]
    added = table.group_by(["host", "reason"]).aggregate(sums)
    added = added.rename_columns([name.removesuffix("_sum") for name in added.column_names])
    ordered = added.select(schemas.HOST_ANSWERS.names).sort_by(
        [("host", "ascending"), ("reason", "ascending")]
    )
    return ordered.cast(schemas.HOST_ANSWERS).combine_chunks()


@dataclass(frozen=True, kw_only=True)
class HostsTask:
    """Sum up how the hosts answered over all parts."""

    answers: tuple[Part, ...]
    output: TaskOutput


def by_host(answers: str) -> str:
    """Return the SELECT of one row a host, given one that gives HOST_ANSWERS of all parts."""
    return f"""
        SELECT host, CAST(sum(urls) AS BIGINT) AS urls,
            CAST(coalesce(sum(urls) FILTER (reason IS NULL), 0) AS BIGINT) AS stored_urls,
            CAST(sum(pairs) AS BIGINT) AS pairs,
            CAST(coalesce(sum(pairs) FILTER (reason IS NULL), 0) AS BIGINT) AS stored_pairs,
            (list(reason ORDER BY pairs DESC, reason) FILTER (reason IS NOT NULL))[1] AS main_reason,
            bool_or(coalesce(reason, '') NOT IN {NOT_ASKED + UNREACHED}) AS answered,
            bool_or(coalesce(reason, '') NOT IN {NOT_ASKED}) AS asked,
            CAST(sum(bytes) AS BIGINT) AS bytes
        FROM (SELECT host, reason, sum(urls) AS urls, sum(pairs) AS pairs, sum(bytes) AS bytes
            FROM ({answers}) GROUP BY host, reason)
        GROUP BY host"""


def sum_up_hosts(task: HostsTask) -> Outcome:
    """Count the hosts, and write WORST_HOSTS, over the parts' files of HOST_ANSWERS."""
    # The command line starts faster without it.
    import duckdb

    output = task.output
    paths = [output.workspace.path(part.path) for part in task.answers]
    if not paths:
        return Outcome(counters={"hosts": 0, "hosts_answered": 0})
    system, _ = storage.filesystem(paths[0])
    files = ds.dataset(
        [storage.filesystem(path)[1] for path in paths], filesystem=system, format="parquet"
    )
    with (
        tempfile.TemporaryDirectory(prefix="witmill-") as folder,
        duckdb.connect(config={"temp_directory": folder, "memory_limit": "2GB"}) as connection,
    ):
        connection.register("files", files)
        connection.execute(f"CREATE TABLE hosts AS {by_host('SELECT * FROM files')}")
        [(asked, answered)] = connection.execute(
            "SELECT count(*) FILTER (asked), count(*) FILTER (answered) FROM hosts"
        ).fetchall()
        worst = connection.sql(
            "SELECT host, pairs, pairs - stored_pairs AS lost, main_reason AS reason FROM hosts "
            f"WHERE main_reason IS NOT NULL ORDER BY lost DESC, host LIMIT {WORST_HOSTS}"
        ).to_arrow_table()
    counters = {"hosts": asked, "hosts_answered": answered}
    if not worst.num_rows:
        return Outcome(counters=counters)
    name = output.name("parquet", "worst_hosts")
    part = output.workspace.write(name, worst, schemas.WORST_HOSTS)
    return Outcome(parts={"worst_hosts": [part]}, counters=counters)
