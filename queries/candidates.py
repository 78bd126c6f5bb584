"""What every source of queries returns: a table of candidates, best first."""

from collections.abc import Iterable

import pyarrow as pa

from pipeline import schemas

CANDIDATES = pa.schema([schemas.QUERIES.field(n) for n in ("query", "source", "count", "score")])


def candidates(source: str, rows: Iterable[tuple[str, int | None, float | None]]) -> pa.Table:
    """Return (query, count, score) rows as a table with the columns CANDIDATES, in a fixed order.

    Best score first, then highest count, then by text; a missing figure sorts last.
    """
    ordered = sorted(rows, key=_rank)
    columns = zip(*ordered, strict=True) if ordered else ((), (), ())
    queries, counts, scores = (list(column) for column in columns)
    names = [source] * len(ordered)
    return pa.Table.from_arrays(
        [
            pa.array(queries, pa.string()),
            pa.array(names, pa.string()),
            pa.array(counts, pa.int64()),
            pa.array(scores, pa.float64()),
        ],
        schema=CANDIDATES,
    )


def _rank(row: tuple[str, int | None, float | None]) -> tuple[float, int, str]:
    query, count, score = row
    return (
        -score if score is not None else float("inf"),
        -count if count is not None else 1,
        query,
    )
