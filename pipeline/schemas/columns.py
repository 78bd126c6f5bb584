"""How a table's columns are described and checked."""

import pyarrow as pa

from pipeline.errors import SchemaError


def column(name: str, kind: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    """Return a column; `about` is what docs/schemas.md says of it."""
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


def extend(schema: pa.Schema, *columns: pa.Field) -> pa.Schema:
    """Return `schema` with further columns at its end."""
    return pa.schema([*schema, *columns])


def check(table: pa.Table, expected: pa.Schema, *, source: str) -> pa.Table:
    """Return `table` unchanged if it has exactly the `expected` columns, and no null where none may be.

    Raises:
        SchemaError: naming `source` and every column that is missing, extra, mistyped or null.
    """
    problems = [f"missing {n}" for n in expected.names if n not in table.schema.names]
    problems += [f"unexpected {n}" for n in table.schema.names if n not in expected.names]
    for field in expected:
        if field.name not in table.schema.names:
            continue
        column = table.column(field.name)
        if column.type != field.type:
            problems.append(f"{field.name} is {column.type}, not {field.type}")
        elif column.null_count and not field.nullable:
            problems.append(f"{field.name} has {column.null_count} nulls")
    if not problems and table.schema.names != expected.names:
        problems.append(f"columns are in the order {table.schema.names}")
    if problems:
        raise SchemaError(f"{source}: {'; '.join(problems)}")
    return table
