"""Keep at most `cap` pairs on account of each query, exactly (CLIP, section 2.2).

Each (pair, query) has a fixed priority. A query keeps its `cap` pairs of smallest priority; a pair
stays if any of its queries keeps it. In bounded memory:

1. count: matches per query, per part, then summed;
2. candidates: of queries over the cap, the matches that can be among the smallest, per part;
   thresholds: the cap-th smallest per query, over disjoint ranges of queries;
3. filter: keep what is at or below a threshold, per part.

The stage runs before `download`, with headroom for links that are dead, and again, as `rebalance`,
on what is left after `dedup`, with the cap itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline import schemas
from pipeline.priorities import I64, Thresholds, match_list
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.parquet import read_parquet, write_parquet
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import Workspace
from pipeline.thresholds import find_thresholds, load_thresholds, save_thresholds

REASONS = {"over_cap": "each of the pair's queries already keeps as many pairs as it may"}

_COUNTS = pa.schema([("query_id", pa.int64()), ("count", pa.int64())])
_USE = pa.schema([("query_id", pa.int64()), ("selected", pa.int64()), ("present", pa.int64())])


class BalanceConfig(Settings):
    """Keep at most so many pairs on account of each query, with headroom for dead links."""

    cap: int = Field(20_000, ge=1)
    """pairs that a query may keep"""
    headroom: float = Field(1.0, ge=1.0)
    """times the cap to keep at this stage, because some images will not arrive"""
    seed: int = Field(0, ge=0)
    """chooses which pairs; the same seed chooses the same"""


class RebalanceConfig(Settings):
    """Apply the cap of `balance` once more, exactly, to what is left after `dedup`."""


@dataclass(frozen=True, kw_only=True)
class BalanceTask:
    """One part to count or to filter; `notes` is where its numbers per query go."""

    part: Part
    output: TaskOutput
    schema: pa.Schema
    seed: int
    notes: str
    thresholds: str = ""


def run(config: BalanceConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Balance the pairs that passed the caption rules.

    Raises:
        MissingInput: if `captions` has not finished.
        TaskFailed: if a part cannot be balanced.
    """
    stage = begin("balance", config, workspace, reads=("captions", "match"))
    if stage.done:
        return stage.done
    # In a table, so that another cap makes the stages after this one out of date.
    rule = pa.table({"cap": [config.cap], "seed": [config.seed]}, schema=schemas.CAP)
    stage.write_table("cap", rule, schemas.CAP)
    cap = math.ceil(config.cap * config.headroom)
    return _balance(stage, executor, "captions", schemas.CAPTIONS, cap=cap, seed=config.seed)


def rerun(config: RebalanceConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Balance what is left after `dedup`, with the cap and the seed that `balance` had.

    Raises:
        MissingInput: if `dedup` has not finished.
        TaskFailed: if a part cannot be balanced.
    """
    stage = begin("rebalance", config, workspace, reads=("dedup", "balance", "match"))
    if stage.done:
        return stage.done
    (rule,) = workspace.read_table("balance", "cap", schemas.CAP).to_pylist()
    return _balance(
        stage, executor, "dedup", schemas.DEDUPLICATED, cap=rule["cap"], seed=rule["seed"]
    )


def _balance(
    stage: StageRun, executor: Executor, source: str, schema: pa.Schema, *, cap: int, seed: int
) -> Manifest:
    parts = stage.parts(source)
    queries = sum(part.rows for part in stage.parts("match", "queries"))
    counting = _tasks(stage, parts, schema, seed, "count")
    stage.map(executor, "count", count_part, counting)
    counts = _sum_by_query(counting, "count", queries)
    thresholds = find_thresholds(stage, executor, parts, schema, counts, cap=cap, seed=seed)
    path = storage.join(stage.scratch("thresholds"), "thresholds.parquet")
    save_thresholds(path, thresholds)
    filtering = _tasks(stage, parts, schema, seed, "use", thresholds=path)
    outcomes = stage.map(executor, stage.name, filter_part, filtering)
    report = query_counts(
        counts,
        _sum_by_query(filtering, "selected", queries),
        _sum_by_query(filtering, "present", queries),
        thresholds,
        cap,
    )
    stage.write_table("query_counts", report, schemas.QUERY_COUNTS)
    return stage.finish(outcomes)


def _tasks(
    stage: StageRun,
    parts: Sequence[Part],
    schema: pa.Schema,
    seed: int,
    notes: str,
    thresholds: str = "",
) -> list[BalanceTask]:
    folder = stage.scratch(notes)
    return [
        BalanceTask(
            part=part,
            output=stage.output(i),
            schema=schema,
            seed=seed,
            notes=storage.join(folder, f"{i:05d}.parquet"),
            thresholds=thresholds,
        )
        for i, part in enumerate(parts)
    ]


def count_part(task: BalanceTask) -> Outcome:
    """Count the matches of each query in one part; runs in a worker."""
    pairs = task.output.read(task.part, task.schema, ["query_ids"])
    query = pairs.column("query_ids").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    ids, counts = np.unique(query, return_counts=True)
    table = pa.table({"query_id": ids.astype(np.int64), "count": counts}, schema=_COUNTS)
    write_parquet(task.notes, table)
    return Outcome(rows_in=len(pairs))


def filter_part(task: BalanceTask) -> Outcome:
    """Write the pairs of one part that a query keeps; runs in a worker."""
    pairs = task.output.read(task.part, task.schema)
    kept, drops, use = filter_table(pairs, load_thresholds(task.thresholds), task.seed)
    write_parquet(task.notes, use)
    schema = task.schema if "selected_by" in task.schema.names else schemas.BALANCED
    return task.output.write(rows_in=len(pairs), kept=kept, schema=schema, drops=drops)


def filter_table(
    pairs: pa.Table, thresholds: Thresholds, seed: int
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Split `pairs` into those some query keeps and those none does.

    Args:
        pairs: at least the columns pair_id and query_ids.
        thresholds: one per query.

    Returns:
        the kept rows in input order with `selected_by` set anew; DROPS; and, per query that occurs,
        how many pairs it selected and in how many kept pairs it is present.
    """
    matches = match_list(pairs, seed)
    selected = thresholds.selects(matches)
    row, query = matches.row[selected], matches.query[selected]
    per_row = np.bincount(row, minlength=len(pairs))
    keeps = per_row > 0
    offsets = np.concatenate([[0], np.cumsum(per_row[keeps])]).astype(np.int32)
    selected_by = pa.ListArray.from_arrays(offsets, pa.array(query.astype(np.int32)))
    kept = pairs.filter(pa.array(keeps))
    if "selected_by" in kept.column_names:
        place = kept.column_names.index("selected_by")
        kept = kept.set_column(place, schemas.BALANCED.field("selected_by"), selected_by)
    else:
        kept = kept.append_column(schemas.BALANCED.field("selected_by"), selected_by)
    dropped = pairs.column("pair_id").filter(pa.array(~keeps))
    drops = pa.table(
        {
            "pair_id": dropped,
            "reason": pa.repeat("over_cap", len(dropped)),
            "detail": pa.nulls(len(dropped), pa.string()),
        },
        schema=schemas.DROPS,
    )
    return kept, drops, _usage(query, matches.query[keeps[matches.row]])


def _usage(selected: I64, present: I64) -> pa.Table:
    ids = np.unique(present)
    selecting, times = np.unique(selected, return_counts=True)
    counts = np.zeros(len(ids), np.int64)
    counts[np.searchsorted(ids, selecting)] = times
    presence = np.unique(present, return_counts=True)[1]
    return pa.table({"query_id": ids, "selected": counts, "present": presence}, schema=_USE)


def query_counts(
    matched: I64, selected: I64, present: I64, thresholds: Thresholds, cap: int
) -> pa.Table:
    """Return QUERY_COUNTS out of one number per query each."""
    uncapped = matched <= cap
    pair_ids = [
        None if free else f"{int(high):016x}{int(low):016x}"
        for free, high, low in zip(uncapped, thresholds.high, thresholds.low, strict=True)
    ]
    return pa.table(
        {
            "query_id": np.arange(len(matched), dtype=np.int32),
            "matched": matched,
            "selected": selected,
            "present": present,
            "threshold": pa.array(thresholds.priority, mask=uncapped),
            "threshold_pair": pa.array(pair_ids, pa.string()),
        },
        schema=schemas.QUERY_COUNTS,
    )


def _sum_by_query(tasks: Sequence[BalanceTask], column: str, queries: int) -> I64:
    total = np.zeros(queries, np.int64)
    for task in tasks:
        table = read_parquet(task.notes, columns=["query_id", column])
        total[table.column("query_id").to_numpy()] += table.column(column).to_numpy()
    return total
