"""What a balance did to the distribution of queries: a summary, the distribution itself, a plot of it."""

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.caps.balance_plot import draw
from pipeline.caps.priorities import I64, Thresholds
from pipeline.runtime import storage
from pipeline.runtime.manifest import REPORT
from pipeline.runtime.progress import say
from pipeline.runtime.stage import StageRun

MEASURES = ("matched", "selected", "present")
PLOT = "report.png"


def query_counts(
    matched: I64, selected: I64, present: I64, thresholds: Thresholds, cap: int
) -> pa.Table:
    """Return QUERY_COUNTS out of one number per query each."""
    return pa.table(
        {
            "query_id": np.arange(len(matched), dtype=np.int32),
            "matched": matched,
            "selected": selected,
            "present": present,
            "threshold": pa.array(thresholds.priority, mask=matched <= cap),
        },
        schema=schemas.QUERY_COUNTS,
    )


def summarize(
    counts: pa.Table, cap: int, pairs: int, kept: int, before: pa.Table | None = None
) -> pa.Table:
    """Return BALANCE_SUMMARY of QUERY_COUNTS.

    Args:
        counts: of this stage.
        cap: pairs that a query may keep at this stage.
        pairs: different pairs to choose from.
        kept: pairs kept.
        before: QUERY_COUNTS of the first balance, if this is the second.
    """
    matched, selected, present = (counts.column(name).to_numpy() for name in MEASURES)
    over = matched > cap
    matches, matches_over = int(matched.sum()), int(matched[over].sum())
    short = None
    if before is not None:
        short = int(((before.column("matched").to_numpy() >= cap) & (selected < cap)).sum())
    row = {
        "cap": cap,
        "pairs": pairs,
        "kept": kept,
        "queries": len(matched),
        "queries_unmatched": int((matched == 0).sum()),
        "queries_over_cap": int(over.sum()),
        "matches": matches,
        "matches_over_cap": matches_over,
        "tail_share": (matches - matches_over) / matches if matches else None,
        "matches_per_pair": matches / pairs if pairs else None,
        "selected": int(selected.sum()),
        "present": int(present.sum()),
        "queries_short": short,
    }
    return pa.Table.from_pylist([row], schema=schemas.BALANCE_SUMMARY)


def distribution(counts: pa.Table) -> pa.Table:
    """Return QUERY_DISTRIBUTION of QUERY_COUNTS: measure by measure, counts ascending."""
    tables = []
    for measure in MEASURES:
        values, queries = np.unique(counts.column(measure).to_numpy(), return_counts=True)
        columns = {
            "measure": pa.repeat(measure, len(values)),
            "count": values,
            "queries": queries,
            "queries_up_to": np.cumsum(queries),
            "pairs_up_to": np.cumsum(values * queries),
        }
        tables.append(pa.table(columns, schema=schemas.QUERY_DISTRIBUTION))
    return pa.concat_tables(tables)


def describe(summary: pa.Table) -> list[str]:
    """Return BALANCE_SUMMARY as a few lines of text."""
    (row,) = summary.to_pylist()
    lines = [
        f"{row['kept']:,} of {row['pairs']:,} pairs kept, at most {row['cap']:,} on account of a query"
    ]
    if row["matches"]:
        lines.append(
            f"{row['matches_per_pair']:.1f} matches a pair; {row['queries_unmatched']:,} of "
            f"{row['queries']:,} queries have none, {row['queries_over_cap']:,} are over the cap "
            f"and hold {1 - row['tail_share']:.1%} of the matches"
        )
    if row["queries_short"] is not None:
        lines.append(
            f"the headroom ran out for {row['queries_short']:,} queries: {row['cap']:,} matches or more "
            f"at balance, fewer than {row['cap']:,} pairs now"
        )
    return lines


def write_report(stage: StageRun, counts: pa.Table, summary: pa.Table) -> None:
    """Write the stage's query_counts, summary, distribution and plot, and print the summary."""
    stage.write_table("query_counts", counts, schemas.QUERY_COUNTS)
    stage.write_table("summary", summary, schemas.BALANCE_SUMMARY)
    shares = distribution(counts)
    stage.write_table("distribution", shares, schemas.QUERY_DISTRIBUTION)
    path = f"{stage.name}/{PLOT}"
    storage.write_bytes(stage.workspace.path(path), draw(shares, summary, stage.name))
    stage.add(REPORT, stage.workspace.describe(path, rows=0))
    for line in describe(summary):
        say(f"{stage.name:<10} {line}")
