"""Find the exact threshold of every query over its cap, over any number of parts, in bounded memory.

Of a query with `count` matches, the `cap`-th smallest priority is near cap/count. Matches below a window
around it are counted, those inside it written per part, sorted by query, and the one with the rank that is
left is found over disjoint ranges of queries. Should a window miss, it is widened and the search
repeated: the thresholds are exact whatever happens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.caps.balance_sources import Source
from pipeline.caps.priorities import (
    I32,
    I64,
    U64,
    Thresholds,
    query_keys,
    read_matches,
    search_window,
)
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.parquet import read_parquet, write_parquet
from pipeline.runtime.progress import say
from pipeline.runtime.stage import StageRun

# Candidates that one task sorts; about 100 bytes each meanwhile.
CANDIDATES_PER_TASK = 5_000_000
SAFETY_SIGMAS = 6.0
_SEARCH_ROW_GROUP = 16 * 1024

_KEYS = pa.schema(
    [
        ("query_id", pa.int32()),
        ("priority", pa.uint64()),
        ("high", pa.uint64()),
        ("low", pa.uint64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class SearchTask:
    """Pairs whose matches in the `window`, a file of two ends a query, to write to `target`."""

    source: Source
    seed: int
    window: str
    target: str
    notes: str


@dataclass(frozen=True, kw_only=True)
class RangeTask:
    """Queries from `first` up to `end`, to find among `candidates` those of the `ranks`, a file."""

    first: int
    end: int
    ranks: str
    candidates: tuple[str, ...]
    target: str


def find_thresholds(
    stage: StageRun,
    executor: Executor,
    sources: Sequence[Source],
    counts: I64,
    *,
    cap: int,
    seed: int,
    sigmas: float = SAFETY_SIGMAS,
) -> Thresholds:
    """Return the threshold of each query over the `cap`; the others select all.

    Args:
        stage: whose scratch folder to use.
        executor: what runs the tasks.
        sources: the pairs; of each query at least the `cap` smallest.
        counts: matches per query, over all pairs there are.
        cap: pairs that a query may keep.
        seed: of the priorities.
        sigmas: margin of the first search, in standard deviations.
    """
    thresholds = Thresholds.none(len(counts))
    waiting = counts > cap
    attempt = 0
    while waiting.any():
        name = f"candidates-{attempt}"
        folder = stage.scratch(name)
        lowest, highest = search_window(np.where(waiting, counts, 0), cap, sigmas)
        window = storage.join(folder, "window.parquet")
        write_parquet(window, pa.table({"lowest": lowest, "highest": highest}))
        searches = [
            SearchTask(
                source=source,
                seed=seed,
                window=window,
                target=storage.join(folder, f"{i:05d}.parquet"),
                notes=storage.join(folder, f"below-{i:05d}.parquet"),
            )
            for i, source in enumerate(sources)
        ]
        stage.map(executor, name, write_candidates, searches)
        ranks = storage.join(folder, "ranks.parquet")
        below = sum_notes([task.notes for task in searches], "below", len(counts))
        write_parquet(ranks, pa.table({"rank": cap - below}))
        expected = np.where(waiting, counts * ((highest - lowest) / 2.0**64), 0.0)
        files = tuple(task.target for task in searches)
        ranges = split_queries(expected, ranks, files, folder)
        stage.map(executor, f"thresholds-{attempt}", write_thresholds, ranges)
        for task in ranges:
            _adopt(thresholds, waiting, read_parquet(task.target))
        if waiting.any():
            say(f"{stage.name}: {int(waiting.sum())} queries need a wider margin; searching again")
        sigmas, attempt = sigmas * 4, attempt + 1
    return thresholds


def write_candidates(task: SearchTask) -> Outcome:
    """Write one part's matches within their query's window, by query; runs in a worker."""
    from pipeline.caps.priority_kernels import near_matches

    lowest, highest = _load_window(task.window)
    pairs, _ = task.source.read(["pair_id", "query_ids"])
    matches = read_matches(pairs, len(lowest))
    below, (query, priority, high, low) = near_matches(
        matches.starts,
        matches.query,
        matches.high,
        matches.low,
        query_keys(len(lowest), task.seed),
        lowest,
        highest,
    )
    order = np.argsort(query, kind="stable")
    found = _keys(query[order], priority[order], high[order], low[order])
    write_parquet(task.target, found, row_group=_SEARCH_ROW_GROUP)
    write_notes(task.notes, below=below)
    return Outcome(rows_in=len(pairs))


def split_queries(
    expected: np.ndarray, ranks: str, candidates: tuple[str, ...], folder: str
) -> list[RangeTask]:
    """Return tasks over ranges of queries, of which each has so many `expected` candidates."""
    total = np.cumsum(expected)
    pieces = max(1, math.ceil(float(total[-1]) / CANDIDATES_PER_TASK))
    inner = np.searchsorted(total, total[-1] * np.arange(1, pieces) / pieces)
    edges = [0, *(int(edge) + 1 for edge in inner), len(expected)]
    return [
        RangeTask(
            first=first,
            end=end,
            ranks=ranks,
            candidates=candidates,
            target=storage.join(folder, f"thresholds-{i:05d}.parquet"),
        )
        for i, (first, end) in enumerate(pairwise(edges))
    ]


def write_thresholds(task: RangeTask) -> Outcome:
    """Write, for each query in a range, its candidate of the wanted rank; runs in a worker."""
    in_range = [("query_id", ">=", task.first), ("query_id", "<", task.end)]
    tables = [read_parquet(path, filters=in_range) for path in task.candidates]
    ranks = read_parquet(task.ranks).column("rank").to_numpy()
    write_parquet(task.target, ranked(pa.concat_tables(tables), ranks))
    return Outcome()


def ranked(candidates: pa.Table, ranks: I64) -> pa.Table:
    """Return each query's candidate of the given rank, from 1; queries that have none are left out.

    Args:
        candidates: query_id, priority, high, low.
        ranks: one per query id.
    """
    query = candidates.column("query_id").to_numpy()
    keys = [candidates.column(name).to_numpy() for name in ("low", "high", "priority")]
    order = np.lexsort((*keys, query))
    first = np.flatnonzero(np.diff(query[order], prepend=-1))
    ids = query[order[first]]
    places = first + ranks[ids] - 1
    has_it = (ranks[ids] >= 1) & (places < np.append(first[1:], len(order)))
    return candidates.take(pa.array(order[places[has_it]])).combine_chunks()


def write_notes(path: str, **numbers: I64) -> None:
    """Write one part's `numbers` per query, without the queries where all are 0."""
    query = np.flatnonzero(np.any([values != 0 for values in numbers.values()], axis=0))
    columns = {name: values[query] for name, values in numbers.items()}
    write_parquet(path, pa.table({"query_id": query.astype(np.int32), **columns}))


def sum_notes(paths: Sequence[str], name: str, queries: int) -> I64:
    """Return the sum of what `write_notes` wrote under `name`, per query."""
    total = np.zeros(queries, np.int64)
    for path in paths:
        table = read_parquet(path, columns=["query_id", name])
        total[table.column("query_id").to_numpy()] += table.column(name).to_numpy()
    return total


def save_thresholds(path: str, thresholds: Thresholds) -> None:
    """Write `thresholds` to `path` for the tasks that filter by them."""
    query = np.arange(len(thresholds.priority), dtype=np.int32)
    write_parquet(path, _keys(query, thresholds.priority, thresholds.high, thresholds.low))


# A worker goes from one stage to the next and has no more use for what it read before.
@lru_cache(maxsize=1)
def load_thresholds(path: str) -> Thresholds:
    """Read what `save_thresholds` wrote, once per worker process."""
    table = read_parquet(path, columns=["priority", "high", "low"]).combine_chunks()
    return Thresholds(**{name: table.column(name).to_numpy() for name in table.column_names})


@lru_cache(maxsize=1)
def _load_window(path: str) -> tuple[U64, U64]:
    table = read_parquet(path).combine_chunks()
    return table.column("lowest").to_numpy(), table.column("highest").to_numpy()


def _adopt(thresholds: Thresholds, waiting: np.ndarray, found: pa.Table) -> None:
    query = found.column("query_id").to_numpy()
    thresholds.priority[query] = found.column("priority").to_numpy()
    thresholds.high[query] = found.column("high").to_numpy()
    thresholds.low[query] = found.column("low").to_numpy()
    waiting[query] = False


def _keys(query: I32, priority: U64, high: U64, low: U64) -> pa.Table:
    return pa.table([query, priority, high, low], schema=_KEYS)
