"""The catalogue: every pair's history as SQL views over the Parquet parts, in DuckDB.

Nothing is copied: a view reads the parts where they lie. A stage that has not run gives views
without rows, so that queries written for a whole run work on half of one.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import schemas
from pipeline.downloading.hosts import by_host
from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import MAIN, Manifest
from pipeline.runtime.progress import say
from pipeline.runtime.workspace import Workspace
from pipeline.stages import STAGES

SHOWN_ROWS = 40
PIPE_WIDTH = 1000
NARROWEST_COLUMN = 10


@dataclass(frozen=True, kw_only=True)
class View:
    """A view over one table of one stage."""

    name: str
    stage: str
    schema: pa.Schema
    table: str = MAIN


VIEWS = (
    View(name="pairs", stage="ingest", schema=schemas.PAIRS),
    View(name="source_keys", stage="ingest", table="source_keys", schema=schemas.SOURCE_KEYS),
    View(name="captures", stage="ingest", table="captures", schema=schemas.CAPTURES),
    View(name="matches", stage="match", schema=schemas.MATCHES),
    View(name="queries", stage="match", table="queries", schema=schemas.QUERIES),
    View(name="languages", stage="language", schema=schemas.LANGUAGES),
    View(name="captions", stage="captions", schema=schemas.CAPTIONS),
    View(name="balanced", stage="balance", schema=schemas.BALANCED),
    View(name="images", stage="download", schema=schemas.DOWNLOADED),
    View(name="deduplicated", stage="dedup", schema=schemas.DEDUPLICATED),
    View(name="duplicates", stage="dedup", table="duplicates", schema=schemas.DUPLICATES),
    View(name="eval_overlaps", stage="dedup", table="eval_overlaps", schema=schemas.EVAL_OVERLAPS),
    View(name="embeddings", stage="dedup", table="embeddings", schema=schemas.EMBEDDINGS),
    View(name="corpus", stage="rebalance", schema=schemas.DEDUPLICATED),
    View(name="samples", stage="shard", schema=schemas.SHARD_INDEX),
    View(name="shards", stage="shard", table="shards", schema=schemas.SHARDS),
    View(name="removed", stage="shard", table="removed", schema=schemas.REMOVED),
    View(name="training_steps", stage="train", schema=schemas.TRAINING_STEPS),
    View(
        name="training_evaluations",
        stage="train",
        table="evaluations",
        schema=schemas.TRAINING_EVALUATIONS,
    ),
    View(name="evaluations", stage="evaluate", schema=schemas.EVALUATIONS),
    View(name="predictions", stage="evaluate", table="predictions", schema=schemas.PREDICTIONS),
    View(name="class_results", stage="evaluate", table="classes", schema=schemas.CLASS_RESULTS),
    View(name="confusions", stage="evaluate", table="confusions", schema=schemas.CONFUSIONS),
)

# Side tables that both balances have, by the name of the view over the two.
_BALANCE_TABLES = {
    "query_counts": ("query_counts", schemas.QUERY_COUNTS),
    "query_distribution": ("distribution", schemas.QUERY_DISTRIBUTION),
    "balance_summary": ("summary", schemas.BALANCE_SUMMARY),
}

# Stages whose main table has a row per pair that is left.
_PAIR_STAGES = (
    "ingest",
    "match",
    "language",
    "captions",
    "balance",
    "download",
    "dedup",
    "rebalance",
    "shard",
)

STAGES_SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("position", pa.int32()),
        ("state", pa.string()),
        ("rows_in", pa.int64()),
        ("rows_out", pa.int64()),
        ("rows_dropped", pa.int64()),
        ("fingerprint", pa.string()),
    ]
)


def write_catalog(workspace: Workspace, output: str | None = None) -> str:
    """Write a DuckDB file whose views show the workspace; return its path.

    The views name the parts by absolute path or URL: after moving a workspace, write it again.

    Raises:
        InputError: if there is no workspace.
        ConfigError: if the workspace is remote and no local `output` is given.
    """
    workspace.require()
    if output is None and storage.is_url(workspace.root):
        raise ConfigError(
            f"{workspace.root} is remote; give the catalogue a local file with --output"
        )
    target = Path(output or workspace.path("catalog.duckdb"))
    unfinished = target.with_name(f"{target.name}.part")
    with storage.storage_errors("write", str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(unfinished)) as connection:
            for name, select in view_definitions(workspace).items():
                connection.execute(f'CREATE VIEW "{name}" AS {select}')
        unfinished.replace(target)
    except duckdb.IOException as error:
        raise InputError(f"cannot write {target}: {str(error).splitlines()[0]}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return str(target)


def run_query(
    workspace: Workspace,
    query: str,
    *,
    kind: Literal["table", "csv", "json", "parquet"] = "table",
    output: str | None = None,
) -> None:
    """Run `query` over the views of `workspace` and print or write its rows.

    Raises:
        ConfigError: if the query is wrong, or parquet is to be printed.
        InputError: if there is no workspace.
    """
    if kind == "parquet" and output is None:
        raise ConfigError("--format parquet cannot be printed; give a file with --output")
    if kind == "table" and output is not None:
        raise ConfigError("--format table cannot be written; choose csv, json or parquet")
    manifests = workspace.manifests(stage.name for stage in STAGES)
    for stage, changed in workspace.out_of_date(manifests).items():
        say(f"{stage} is out of date, {changed} changed since; its tables are the old ones")
    if kind == "table":
        _print_table(query_table(workspace, query, limit=SHOWN_ROWS + 1))
        return
    rows = query_table(workspace, query)
    data = _encode(rows, kind)
    if output is None:
        sys.stdout.write(data.decode())
    else:
        storage.write_bytes(output, data)
        print(f"{rows.num_rows:,} rows in {output}")


def query_table(workspace: Workspace, query: str, *, limit: int | None = None) -> pa.Table:
    """Return the rows, at most `limit`, of one SQL query over the views of `workspace`.

    Raises:
        ConfigError: if it is not one query, or DuckDB refuses it; with its reason.
    """
    workspace.require()
    with duckdb.connect() as connection:
        for name, select in view_definitions(workspace, connection).items():
            connection.execute(f'CREATE VIEW "{name}" AS {select}')
        try:
            statements = len(duckdb.extract_statements(query))
            if statements != 1:
                raise ConfigError(f"{statements} statements were given, expected one query")
            relation = connection.sql(query)
            if relation is None:
                raise ConfigError("the query returns no rows; expected a SELECT, SHOW or DESCRIBE")
            return (relation if limit is None else relation.limit(limit)).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"the query failed: {' '.join(str(error).split())}") from error


def view_definitions(
    workspace: Workspace, connection: duckdb.DuckDBPyConnection | None = None
) -> dict[str, str]:
    """Return the SELECT behind each view, by view name.

    Args:
        workspace: where the parts lie.
        connection: for a remote workspace, reads the parts through pyarrow instead of DuckDB's own
            extension, which would have to be downloaded.
    """
    manifests = workspace.manifests(stage.name for stage in STAGES)
    for manifest in filter(None, manifests.values()):
        workspace.check_sizes(manifest)
    reader = _Reader(workspace, manifests, connection)
    selects = {view.name: reader.select(view.stage, view.table, view.schema) for view in VIEWS}
    for name, (table, schema) in _BALANCE_TABLES.items():
        selects[name] = " UNION ALL ".join(
            f"SELECT '{stage}' AS stage, * FROM ({reader.select(stage, table, schema)})"
            for stage in ("balance", "rebalance")
        )
    selects["drops"] = " UNION ALL ".join(
        f"SELECT '{stage.name}' AS stage, * FROM ({reader.select(stage.name, 'drops', schemas.DROPS)})"
        for stage in STAGES
    )
    answers = reader.select("download", "hosts", schemas.HOST_ANSWERS)
    selects["download_hosts"] = by_host(answers)
    selects["history"] = _history(reader)
    selects["stages"] = _stages(workspace, manifests)
    return selects


def _history(reader: "_Reader") -> str:
    only_id = pa.schema([("pair_id", pa.string())])
    steps = []
    for position, stage in enumerate(STAGES):
        kept = reader.select(stage.name, MAIN, only_id)
        drops = reader.select(stage.name, "drops", schemas.DROPS)
        if stage.name in _PAIR_STAGES:
            steps.append(
                f"SELECT pair_id, {position} AS position, '{stage.name}' AS stage, 'kept' AS outcome, "
                f"NULL AS reason, NULL AS detail FROM ({kept})"
            )
            steps.append(
                f"SELECT pair_id, {position} AS position, '{stage.name}' AS stage, 'dropped' AS outcome, "
                f"reason, detail FROM ({drops}) WHERE pair_id IS NOT NULL"
            )
    return " UNION ALL ".join(steps)


def _stages(workspace: Workspace, manifests: Mapping[str, Manifest | None]) -> str:
    late = workspace.out_of_date(manifests)
    rows = []
    for position, stage in enumerate(STAGES):
        manifest = manifests[stage.name]
        if manifest is None:
            rows.append([stage.name, position, "not run", None, None, None, None])
            continue
        state = "out of date" if stage.name in late else "done"
        dropped = sum(manifest.drops.values())
        rows.append(
            [
                stage.name,
                position,
                state,
                manifest.rows_in,
                manifest.rows_out,
                dropped,
                manifest.content,
            ]
        )
    values = ", ".join(f"({', '.join(_literal(value) for value in row)})" for row in rows)
    names = ", ".join(STAGES_SCHEMA.names)
    return f"SELECT {_casts(STAGES_SCHEMA)} FROM (VALUES {values}) AS rows({names})"


@dataclass(frozen=True)
class _Reader:
    workspace: Workspace
    manifests: Mapping[str, Manifest | None]
    connection: duckdb.DuckDBPyConnection | None

    def select(self, stage: str, table: str, schema: pa.Schema) -> str:
        manifest = self.manifests[stage]
        parts = manifest.tables.get(table, []) if manifest else []
        if not parts:
            columns = ", ".join(f'CAST(NULL AS {_sql_type(c.type)}) AS "{c.name}"' for c in schema)
            return f"SELECT {columns} WHERE false"
        names = ", ".join(f'"{name}"' for name in schema.names)
        if self.connection is not None and storage.is_url(self.workspace.root):
            return f"SELECT {names} FROM {self._register(stage, table, [p.path for p in parts])}"
        files = ", ".join(_literal(_escape(self.workspace.path(part.path))) for part in parts)
        # Without the last option a folder called caption=1 above the workspace would become a column.
        return f"SELECT {names} FROM read_parquet([{files}], hive_partitioning = false)"

    def _register(self, stage: str, table: str, paths: list[str]) -> str:
        name = f"parts_{stage}_{table}"
        system, _ = storage.filesystem(self.workspace.root)
        files = [storage.filesystem(self.workspace.path(path))[1] for path in paths]
        assert self.connection is not None
        self.connection.register(name, ds.dataset(files, filesystem=system, format="parquet"))
        return name


def _escape(path: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def _casts(schema: pa.Schema) -> str:
    return ", ".join(f"CAST({c.name} AS {_sql_type(c.type)}) AS {c.name}" for c in schema)


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return _sql_type(kind.value_type) + "[]"
    if pa.types.is_fixed_size_binary(kind):
        return "BLOB"
    return {
        "string": "VARCHAR",
        "bool": "BOOLEAN",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "uint64": "UBIGINT",
        "halffloat": "FLOAT",
        "float": "FLOAT",
        "double": "DOUBLE",
    }[str(kind)]


def _encode(rows: pa.Table, kind: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="witmill-") as folder, duckdb.connect() as connection:
        target = Path(folder) / "rows"
        connection.register("rows", rows)
        connection.execute(f"COPY rows TO {_literal(target)} (FORMAT {kind})")
        return target.read_bytes()


def _print_table(rows: pa.Table) -> None:
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    shown = rows.slice(0, SHOWN_ROWS)
    cells = [[_printable(value) for value in column.to_pylist()] for column in shown.columns]
    if rows.num_columns * NARROWEST_COLUMN > console.width:
        _print_records(console, rows.column_names, cells)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in rows.column_names:
            table.add_column(Text(name), overflow="fold")
        for row in zip(*cells, strict=True):
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    if len(rows) > SHOWN_ROWS:
        console.print(f"only the first {SHOWN_ROWS} rows are shown; --format csv prints all")


def _print_records(console: Console, names: list[str], cells: list[list[str]]) -> None:
    width = max(len(name) for name in names)
    for row in zip(*cells, strict=True):
        for name, cell in zip(names, row, strict=True):
            console.print(Text(f"{name:<{width}}  {cell}"), soft_wrap=True)
        console.print()


def _printable(value: Any) -> str:
    """Return `value` as text with whatever could steer a terminal written out."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
