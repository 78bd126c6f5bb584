"""Find the exact threshold of every query over its cap, over any number of parts, in bounded memory.

Of a query with `count` matches, only those with a priority below about cap/count can be among its
`cap` smallest. Those candidates are written per part, sorted by query, and sorted out over disjoint
ranges of queries. Should a query have fewer candidates than its cap, its margin is widened and the
search repeated: the thresholds are exact whatever happens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.priorities import (
    I64,
    U64,
    MatchList,
    Thresholds,
    candidate_limits,
    match_list,
    smallest,
)
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome, Part
from pipeline.runtime.parquet import read_parquet, write_parquet
from pipeline.runtime.progress import say
from pipeline.runtime.stage import StageRun, TaskOutput

# Candidates that one task sorts; about 100 bytes each meanwhile.
CANDIDATES_PER_TASK = 20_000_000
SAFETY_SIGMAS = 6.0
_SEARCH_ROW_GROUP = 16 * 1024

_KEYS = pa.schema(
    [
        ("query_id", pa.int64()),
        ("priority", pa.uint64()),
        ("high", pa.uint64()),
        ("low", pa.uint64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """One part whose matches below `limits`, a file with one limit a query, to write to `target`."""

    part: Part
    output: TaskOutput
    schema: pa.Schema
    seed: int
    limits: str
    target: str


@dataclass(frozen=True, kw_only=True)
class RangeTask:
    """Queries from `first` up to `end`, whose thresholds to find among the `candidates` files."""

    first: int
    end: int
    cap: int
    candidates: tuple[str, ...]
    target: str


def find_thresholds(
    stage: StageRun,
    executor: Executor,
    parts: Sequence[Part],
    schema: pa.Schema,
    counts: I64,
    *,
    cap: int,
    seed: int,
    sigmas: float = SAFETY_SIGMAS,
) -> Thresholds:
    """Return the threshold of each query over the `cap`; the others select all.

    Args:
        parts: tables of `schema`, with pair_id and query_ids.
        counts: matches per query over all parts.
        sigmas: margin of the first search, in standard deviations.
    """
    thresholds = Thresholds.none(len(counts))
    waiting = counts > cap
    attempt = 0
    while waiting.any():
        limits = candidate_limits(np.where(waiting, counts, 0), cap, sigmas)
        name = f"candidates-{attempt}"
        folder = stage.scratch(name)
        limits_path = storage.join(folder, "limits.parquet")
        write_parquet(limits_path, pa.table({"limit": limits}))
        searches = [
            SearchTask(
                part=part,
                output=stage.output(i),
                schema=schema,
                seed=seed,
                limits=limits_path,
                target=storage.join(folder, f"{i:05d}.parquet"),
            )
            for i, part in enumerate(parts)
        ]
        stage.map(executor, name, write_candidates, searches)
        files = tuple(task.target for task in searches)
        ranges = split_queries(limits, counts, cap, files, folder)
        stage.map(executor, f"thresholds-{attempt}", write_thresholds, ranges)
        for task in ranges:
            _adopt(thresholds, waiting, _as_matches(read_parquet(task.target)))
        if waiting.any():
            say(f"{stage.name}: {int(waiting.sum())} queries need a wider margin; searching again")
        sigmas, attempt = sigmas * 4, attempt + 1
    return thresholds


def write_candidates(task: SearchTask) -> Outcome:
    """Write one part's matches below their query's limit, by query; runs in a worker."""
    pairs = task.output.read(task.part, task.schema, ["pair_id", "query_ids"])
    matches = match_list(pairs, task.seed)
    near = np.flatnonzero(matches.priority < _limits(task.limits)[matches.query])
    near = near[np.argsort(matches.query[near], kind="stable")]
    found = Thresholds(
        priority=matches.priority[near], high=matches.high[near], low=matches.low[near]
    )
    write_parquet(task.target, _keys(matches.query[near], found), row_group=_SEARCH_ROW_GROUP)
    return Outcome(rows_in=len(pairs))


def split_queries(
    limits: U64, counts: I64, cap: int, candidates: tuple[str, ...], folder: str
) -> list[RangeTask]:
    """Return tasks over ranges of queries with a bounded number of expected candidates each."""
    expected = np.cumsum(np.where(limits > 0, counts * (limits / 2.0**64), 0.0))
    pieces = max(1, math.ceil(float(expected[-1]) / CANDIDATES_PER_TASK))
    inner = np.searchsorted(expected, expected[-1] * np.arange(1, pieces) / pieces)
    edges = [0, *(int(edge) + 1 for edge in inner), len(limits)]
    return [
        RangeTask(
            first=first,
            end=end,
            cap=cap,
            candidates=candidates,
            target=storage.join(folder, f"thresholds-{i:05d}.parquet"),
        )
        for i, (first, end) in enumerate(pairwise(edges))
    ]


def write_thresholds(task: RangeTask) -> Outcome:
    """Write the `cap`-th smallest candidate of each query in a range; runs in a worker."""
    in_range = [("query_id", ">=", task.first), ("query_id", "<", task.end)]
    tables = [read_parquet(path, filters=in_range) for path in task.candidates]
    ids, found, _ = smallest(_as_matches(pa.concat_tables(tables)), task.cap)
    write_parquet(task.target, _keys(ids, found))
    return Outcome()


def save_thresholds(path: str, thresholds: Thresholds) -> None:
    """Write `thresholds` to `path` for the tasks that filter by them."""
    write_parquet(path, _keys(np.arange(len(thresholds.priority)), thresholds))


@cache
def load_thresholds(path: str) -> Thresholds:
    """Read what `save_thresholds` wrote, once per worker process."""
    found = _as_matches(read_parquet(path))
    return Thresholds(priority=found.priority, high=found.high, low=found.low)


@cache
def _limits(path: str) -> U64:
    limits: U64 = read_parquet(path).column("limit").to_numpy()
    return limits


def _adopt(thresholds: Thresholds, waiting: np.ndarray, found: MatchList) -> None:
    thresholds.priority[found.query] = found.priority
    thresholds.high[found.query] = found.high
    thresholds.low[found.query] = found.low
    waiting[found.query] = False


def _keys(query: I64, keys: Thresholds) -> pa.Table:
    return pa.table(
        {"query_id": query, "priority": keys.priority, "high": keys.high, "low": keys.low},
        schema=_KEYS,
    )


def _as_matches(table: pa.Table) -> MatchList:
    query = table.column("query_id").to_numpy()
    return MatchList(
        row=np.zeros(len(query), np.int64),
        query=query,
        priority=table.column("priority").to_numpy(),
        high=table.column("high").to_numpy(),
        low=table.column("low").to_numpy(),
    )
