"""Conditions in DuckDB's SQL over the columns of an index: refused if wrong, or if they would not hold still."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from pipeline.errors import ConfigError

MEMORY = "4GB"
"""What DuckDB may hold; beyond that it writes to disk."""

# DuckDB takes these for columns until it looks for such columns.
_TIMES = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
_SQL_IN_SQL = {"query", "query_table"}


def sandboxed(folder: str) -> duckdb.DuckDBPyConnection:
    """Return a connection that spills to `folder` and takes nothing from the network."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": f"{folder}/duckdb",
        # Nothing is fetched from the network because a condition names it.
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "lock_configuration": True,
    }
    return duckdb.connect(config=settings)


def check_condition(connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    """Return the syntax tree of a condition over the view `samples`.

    Raises:
        ConfigError: if it is wrong, or would choose others another time.
    """
    query = f"SELECT 1 FROM samples WHERE (\n{where}\n)"
    try:
        statements = len(duckdb.extract_statements(query))
        if statements != 1:
            raise ConfigError(
                f"the condition holds {statements} statements, expected one condition"
            )
        connection.execute(f"EXPLAIN {query}")
        rows = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
        volatile = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
        ).fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"the condition failed: {one_line(error)}") from error
    tree: dict[str, Any] = json.loads(rows[0][0])
    if not _is_plain(tree["statements"][0]["node"]):
        raise ConfigError(
            "the condition closes a bracket that it did not open; expected one condition"
        )
    unsteady = {name for (name,) in volatile} | _SQL_IN_SQL
    if found := sorted(set(_unsteady(tree, unsteady))):
        raise ConfigError(
            f"the condition uses {', '.join(found)}, which may answer otherwise another time; "
            "for a share of the samples, take hash(pair_id) % 100 < 5"
        )
    return tree


def one_line(error: Exception) -> str:
    """Return what DuckDB says of a mistake, in one line."""
    return " ".join(str(error).split())


def _is_plain(query: dict[str, Any]) -> bool:
    """Return whether a query has nothing behind its WHERE."""
    behind = ("modifiers", "group_expressions", "group_sets", "having", "qualify", "sample")
    return query["type"] == "SELECT_NODE" and not any(query[name] for name in behind)


def _unsteady(tree: object, functions: set[str]) -> Iterator[str]:
    if isinstance(tree, dict):
        name = str(tree.get("function_name")).lower()
        if name in functions:
            yield f"{name}()"
        yield from _TIMES & {str(c).lower() for c in tree.get("column_names") or []}
        if tree.get("sample"):
            yield "SAMPLE"
        if str(tree.get("type")).startswith("LIMIT"):
            yield "LIMIT"
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for branch in branches:
        yield from _unsteady(branch, functions)
