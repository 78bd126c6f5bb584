"""The table of the rows that a stage drops, and why."""

from collections.abc import Sequence

import pyarrow as pa

from pipeline import schemas


def drop_rows(
    pair_ids: pa.Array | Sequence[str | None],
    reasons: pa.Array | Sequence[str],
    details: pa.Array | Sequence[str | None] | None = None,
) -> pa.Table:
    """Return DROPS; `reasons` may be a single string, that of all, and without `details` they are null."""
    rows = len(pair_ids)
    columns = [
        pair_ids,
        pa.repeat(reasons, rows) if isinstance(reasons, str) else reasons,
        pa.nulls(rows, pa.string()) if details is None else details,
    ]
    return pa.table(columns, schema=schemas.DROPS)
