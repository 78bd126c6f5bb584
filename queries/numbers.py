"""Queries that are numbers: those below a hundred, with which MetaCLIP's list begins."""

import pyarrow as pa

from queries.candidates import candidates


def number_queries(stop: int) -> pa.Table:
    """Return the numbers from 0 to below `stop`, in their order."""
    rows = {"query": pa.array([str(n) for n in range(stop)], pa.string()), "value": range(stop)}
    return candidates("number", rows, order=[("value", "ascending")])
