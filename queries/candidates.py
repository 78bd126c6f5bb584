"""What every source of queries returns: a table of candidates, best first.

A source knows more than it gives: what misses one of its floors stays in the table, unranked, with
the name of the floor, so that a list can be asked why something is not in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas

Order = Sequence[tuple[str, Literal["ascending", "descending"]]]


def candidates(source: str, columns: Mapping[str, Any], *, order: Order = ()) -> pa.Table:
    """Return a table with the columns of QUERY_CANDIDATES: the ranked ones first, then the others by text.

    Args:
        source: what the column of that name says.
        columns: `query`, each once, and what else is known: `missed` (null for those that reach all
            floors), the figures, and columns that only `order` names.
        order: which comes first; where it leaves a tie, the text decides. Nulls come last.
    """
    table = pa.table(dict(columns))
    if "missed" not in columns:
        table = table.append_column("missed", pa.nulls(len(table), pa.string()))
    reached = pc.is_null(table["missed"])
    ranked = table.filter(reached).sort_by([*order, ("query", "ascending")])
    others = table.filter(pc.invert(reached)).sort_by("query")
    ordered = pa.concat_tables([ranked, others])
    ranks = pa.array([*range(1, len(ranked) + 1), *[None] * len(others)], pa.int32())
    known = {name: ordered[name] for name in ordered.column_names}
    known |= {"source": pa.array([source] * len(ordered), pa.string()), "rank": ranks}
    return pa.table(
        [
            known[field.name].cast(field.type)
            if field.name in known
            else pa.nulls(len(ordered), field.type)
            for field in schemas.QUERY_CANDIDATES
        ],
        schema=schemas.QUERY_CANDIDATES,
    )
