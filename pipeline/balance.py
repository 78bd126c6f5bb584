"""Keep at most `cap` pairs on account of each query, exactly (CLIP, section 2.2).

Each (pair, query) has a fixed priority. A query keeps its `cap` pairs of smallest priority; a pair
stays if any of its queries keeps it. In bounded memory:

1. count: matches per query, per part, then summed;
2. candidates: of queries over the cap, the matches near the cap-th smallest, per part;
   thresholds: the cap-th smallest per query, over disjoint ranges of queries;
3. filter: keep what is at or below a threshold, per part.

The stage runs before `download`, with headroom for links that are dead, and again, as `rebalance`,
on what is left after `dedup`, with the cap itself. A new crawl is added to one that was balanced before
by choosing among its pairs and those kept then, see `balance_sources`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from pipeline import schemas
from pipeline.caps.balance_report import query_counts, summarize, write_report
from pipeline.caps.balance_sources import EarlierCrawl, Source, find_known, open_earlier
from pipeline.caps.priorities import I64, Thresholds, query_keys, read_matches, read_query_ids
from pipeline.caps.thresholds import (
    find_thresholds,
    load_thresholds,
    save_thresholds,
    sum_notes,
    write_notes,
)
from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import Workspace

REASONS = {
    "over_cap": "each of the pair's queries already keeps as many pairs as it may",
    "known": "an earlier crawl, which this one is added to, has the same pair",
}


class BalanceConfig(Settings):
    """Keep at most so many pairs on account of each query, with headroom for dead links."""

    cap: int = Field(20_000, ge=1, lt=2**63)
    """pairs that a query may keep"""
    tail_share: float | None = Field(None, gt=0, le=1)
    """in place of cap: the smallest cap with which queries at or under it hold this share of all matches"""
    headroom: float = Field(1.0, ge=1.0, allow_inf_nan=False)
    """times the cap to keep at this stage, because some images will not arrive"""
    seed: int = Field(0, ge=0, lt=2**63)
    """chooses which pairs; the same seed chooses the same"""
    add: str | None = None
    """workspace of an earlier crawl, balanced before, to add this one to"""

    @model_validator(mode="after")
    def _one_way_to_the_cap(self) -> Self:
        if self.tail_share is not None and "cap" in self.model_fields_set:
            raise ConfigError(
                f"balance.cap is {self.cap:,} and balance.tail_share is {self.tail_share}; "
                "expected one of them: the share is for choosing the cap"
            )
        if first_cap(self.cap, self.headroom) >= 2**63:
            raise ConfigError(
                f"balance.cap {self.cap:,} times headroom {self.headroom} is beyond 64 bits; lower one"
            )
        return self


class RebalanceConfig(Settings):
    """Apply the cap of `balance` once more, exactly, to what is left after `dedup`."""


@dataclass(frozen=True, kw_only=True)
class CountTask:
    """One part whose matches to count; `notes` is where the numbers per query go."""

    source: Source
    queries: int
    notes: str


@dataclass(frozen=True, kw_only=True)
class FilterTask:
    """One part to filter by the file `thresholds`; `notes` is where its numbers per query go."""

    source: Source
    output: TaskOutput
    seed: int
    thresholds: str
    notes: str


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Matches per query, and different pairs, over everything there is to choose from."""

    matched: I64
    pairs: int


def run(config: BalanceConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Balance the pairs that passed the caption rules.

    Raises:
        MissingInput: if `captions` has not finished, or the earlier crawl's balance has not.
        ConfigError: if the earlier crawl was balanced in a way that this one cannot be added to.
        TaskFailed: if a part cannot be balanced.
    """
    # Before `begin`, which deletes what an earlier run with other settings made.
    earlier = open_earlier(config.add, workspace, seed=config.seed) if config.add else None
    if earlier and config.tail_share is None:
        earlier.require_cap(first_cap(config.cap, config.headroom))
    files = earlier.stamps if earlier else {}
    stage = begin("balance", config, workspace, reads=("captions", "match"), files=files)
    if stage.done:
        return stage.done
    sources = [
        Source(workspace=workspace, part=part, schema=schemas.CAPTIONS)
        for part in stage.parts("captions")
    ]
    if earlier:
        sources = find_known(stage, executor, earlier, sources)
    counted = _count(stage, executor, sources, earlier)
    cap = config.cap
    if config.tail_share is not None:
        cap = cap_for_tail_share(counted.matched, config.tail_share)
    first = first_cap(cap, config.headroom)
    if earlier:
        earlier.require_cap(first)
        sources = [*earlier.sources(), *sources]
    # In a table, so that another cap makes the stages after this one out of date.
    rule = {
        "cap": [cap],
        "first_cap": [first],
        "tail_share": [config.tail_share],
        "seed": [config.seed],
    }
    stage.write_table("cap", pa.table(rule, schema=schemas.CAP), schemas.CAP)
    return _select(stage, executor, sources, counted, cap=first, seed=config.seed)


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
    sources = [
        Source(workspace=workspace, part=part, schema=schemas.DEDUPLICATED)
        for part in stage.parts("dedup")
    ]
    counted = _count(stage, executor, sources, None)
    return _select(stage, executor, sources, counted, cap=rule["cap"], seed=rule["seed"])


def first_cap(cap: int, headroom: float) -> int:
    """Return how many pairs a query may keep at `balance`: cap times headroom, rounded up."""
    # As written: in floats, 1.1 times 20,000 is a little more than 22,000.
    return math.ceil(cap * Fraction(str(headroom)))


def cap_for_tail_share(matched: I64, share: float) -> int:
    """Return the smallest cap with which queries at or under it hold `share` of all matches, or more."""
    counts = np.sort(matched)
    total = np.cumsum(counts)
    wanted = math.ceil(Fraction(str(share)) * int(total[-1])) if len(total) else 0
    return max(1, int(counts[np.searchsorted(total, wanted)])) if wanted else 1


def _count(
    stage: StageRun, executor: Executor, sources: Sequence[Source], earlier: EarlierCrawl | None
) -> Counted:
    queries = sum(part.rows for part in stage.parts("match", "queries"))
    folder = stage.scratch("count")
    tasks = [
        CountTask(source=source, queries=queries, notes=storage.join(folder, f"{i:05d}.parquet"))
        for i, source in enumerate(sources)
    ]
    outcomes = stage.map(executor, "count", count_part, tasks)
    matched = sum_notes([task.notes for task in tasks], "count", queries)
    pairs = sum(outcome.rows_in for outcome in outcomes)
    if earlier:
        return Counted(matched=matched + earlier.matched(), pairs=pairs + earlier.pairs())
    return Counted(matched=matched, pairs=pairs)


def _select(
    stage: StageRun,
    executor: Executor,
    sources: Sequence[Source],
    counted: Counted,
    *,
    cap: int,
    seed: int,
) -> Manifest:
    thresholds = find_thresholds(stage, executor, sources, counted.matched, cap=cap, seed=seed)
    path = storage.join(stage.scratch("thresholds"), "thresholds.parquet")
    save_thresholds(path, thresholds)
    folder = stage.scratch("use")
    tasks = [
        FilterTask(
            source=source,
            output=stage.output(i),
            seed=seed,
            thresholds=path,
            notes=storage.join(folder, f"{i:05d}.parquet"),
        )
        for i, source in enumerate(sources)
    ]
    outcomes = stage.map(executor, stage.name, filter_part, tasks)
    notes = [task.notes for task in tasks]
    counts = query_counts(
        counted.matched,
        sum_notes(notes, "selected", len(counted.matched)),
        sum_notes(notes, "present", len(counted.matched)),
        thresholds,
        cap,
    )
    kept = sum(outcome.rows_out for outcome in outcomes)
    before = None
    if "balance" in stage.inputs:
        before = stage.workspace.read_table("balance", "query_counts", schemas.QUERY_COUNTS)
    write_report(stage, counts, summarize(counts, cap, counted.pairs, kept, before))
    return stage.finish(outcomes)


def count_part(task: CountTask) -> Outcome:
    """Count the matches of each query in one part; runs in a worker."""
    from pipeline.caps.priority_kernels import count_matches

    pairs, _ = task.source.read(["query_ids"])
    _, query = read_query_ids(pairs, task.queries)
    write_notes(task.notes, count=count_matches(query, task.queries))
    return Outcome(rows_in=len(pairs))


def filter_part(task: FilterTask) -> Outcome:
    """Write the pairs of one part that a query keeps; runs in a worker."""
    pairs, known = task.source.read()
    kept, dropped, selected, present = filter_table(
        pairs, load_thresholds(task.thresholds), task.seed
    )
    write_notes(task.notes, selected=selected, present=present)
    drops = pa.concat_tables(
        [
            drop_rows(known.column("pair_id"), "known"),
            drop_rows(dropped.column("pair_id"), "over_cap"),
        ]
    )
    schema = task.source.schema
    schema = schema if "selected_by" in schema.names else schemas.BALANCED
    rows = len(pairs) + len(known)
    return task.output.write(rows_in=rows, kept=kept, schema=schema, drops=drops)


def filter_table(
    pairs: pa.Table, thresholds: Thresholds, seed: int
) -> tuple[pa.Table, pa.Table, I64, I64]:
    """Split `pairs` into those some query keeps and those none does.

    Args:
        pairs: at least the columns pair_id and query_ids.
        thresholds: one per query.
        seed: of the priorities.

    Returns:
        the kept rows in input order with `selected_by` set anew; the pair ids of the others; and, per
        query, how many pairs it selected and in how many kept pairs it is present.
    """
    from pipeline.caps.priority_kernels import select_matches

    queries = len(thresholds.priority)
    matches = read_matches(pairs, queries)
    per_row, chosen, selected, present = select_matches(
        matches.starts,
        matches.query,
        matches.high,
        matches.low,
        query_keys(queries, seed),
        thresholds.priority,
        thresholds.high,
        thresholds.low,
    )
    keeps = per_row > 0
    offsets = np.concatenate([[0], np.cumsum(per_row[keeps])]).astype(np.int32)
    selected_by = pa.ListArray.from_arrays(pa.array(offsets), pa.array(chosen))
    # In one piece, so that the file's bytes do not depend on the pieces that were read.
    kept = pairs.filter(pa.array(keeps)).combine_chunks()
    field = schemas.BALANCED.field("selected_by")
    if field.name in kept.column_names:
        kept = kept.set_column(kept.column_names.index(field.name), field, selected_by)
    else:
        kept = kept.append_column(field, selected_by)
    return kept, pairs.select(["pair_id"]).filter(pa.array(~keeps)), selected, present
