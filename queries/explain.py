"""Say of a text whether a query list has it, and why or why not."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from queries.build import record_path
from queries.floors import FLOORS, Floor
from queries.query_list import BUILTIN, read_queries
from queries.text import normalize
from queries.union import RECORD_KEY
from queries.variants import parts, variants

SHOWN = 12
_REMEDY = {
    True: "for the reason, make the list with its record: `witmill queries build --output queries.parquet`, "
    "then ask with --list queries.parquet",
    False: "the reason is not known: {path}, which `witmill queries build` writes beside a list, is not there",
}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the record of a list says of some queries, and of the list's making."""

    rows: Mapping[str, list[Row]]
    floors: Mapping[str, Any]
    last_rank: Mapping[str, int]
    list_sha256: str


def explain_queries(texts: Sequence[str], source: str) -> str:
    """Return what the list in `source` knows of each text, a paragraph each.

    With the record of candidates that `witmill queries build` leaves beside a list, it says why a
    text is not in it; without, which of its words are.

    Raises:
        InputError: if a text has no token, or the list or its record cannot be read.
    """
    queries = {text: normalize(text) for text in texts}
    for text, query in queries.items():
        if not query:
            raise InputError(f"{text!r} has no letter, digit or mark; expected a word or a phrase")
    table = read_queries(source)
    path = record_path(str(BUILTIN) if source == "builtin" else source)
    record = read_record(path, list(queries.values())) if storage.exists(path) else None
    if record and record.list_sha256 != hashlib.sha256(storage.read_bytes(source)).hexdigest():
        raise InputError(
            f"{path} is the record of another list than {source}; delete it, or build the list again"
        )
    remedy = _REMEDY[source == "builtin"].format(path=path)
    near = {other for q in queries.values() for other in (q, *variants(q), *parts(q))}
    listed = _listed(table, near)
    return "\n\n".join(
        "\n".join(_explain(text, query, listed, record, remedy)) for text, query in queries.items()
    )


def read_record(path: str, queries: Sequence[str]) -> Record:
    """Return what a record of candidates says of `queries`; reads only the row groups they may be in.

    Raises:
        InputError: if it is no such record.
    """
    system, inner = storage.filesystem(path)
    try:
        metadata = pq.read_schema(inner, filesystem=system).metadata or {}
        about = json.loads(metadata[RECORD_KEY])
        table = pq.read_table(inner, filesystem=system, filters=[("query", "in", queries)])
        floors, last_rank, of_list = about["floors"], about["last_rank"], about["list"]
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is no record of candidates; delete it, or build the list again"
        ) from error
    rows: dict[str, list[Row]] = {query: [] for query in queries}
    for row in schemas.check(table, schemas.QUERY_RECORD, source=path).to_pylist():
        rows[row["query"]].append(row)
    return Record(rows=rows, floors=floors, last_rank=last_rank, list_sha256=of_list)


def _listed(table: pa.Table, queries: set[str]) -> dict[str, Row]:
    found = table.filter(pc.is_in(table["query"], value_set=pa.array(queries, pa.string())))
    return {row["query"]: row for row in found.to_pylist()}


def _explain(
    text: str, query: str, listed: Mapping[str, Row], record: Record | None, remedy: str
) -> Iterator[str]:
    row = listed.get(query)
    form = "" if text == query else f", as a query {query!r},"
    if row:
        yield f"{text!r}{form} is in the list: id {row['query_id']:,}, from {', '.join(row['sources'])}"
        yield from (f"  {figure}" for figure in _figures(row))
    else:
        yield f"{text!r}{form} is not in the list"
    if record:
        yield from _reasons(record.rows[query], record, is_listed=row is not None)
    elif not row:
        yield f"  {remedy}"
    if not row:
        yield from _neighbours(query, listed)


def _figures(row: Row) -> Iterator[str]:
    if row["count"] is not None:
        yield f"count {row['count']:,}"
    if row["pmi"] is not None:
        yield f"PMI {row['pmi']:.3f} bits"
    if row["views"] is not None:
        yield f"views {row['views']:,}"
    if row["redirects"] is not None:
        yield f"redirects {row['redirects']:,}"


def _reasons(rows: Sequence[Row], record: Record, *, is_listed: bool) -> Iterator[str]:
    if not rows:
        yield "  no source has it, not even below its floors"
    for row in rows:
        if row["missed"] is not None:
            yield f"  {row['source']}: {_missed(row, record)}"
        elif not is_listed:
            yield f"  {row['source']}: {_cut_off(row, record)}"
        else:
            yield f"  {row['source']}: rank {row['rank']:,}"


def _missed(row: Row, record: Record) -> str:
    floor = FLOORS.get(row["missed"]) or Floor(about=row["missed"])
    if floor.setting is None:
        return floor.about
    value = record.floors.get(floor.setting)
    if floor.figure is None or row[floor.figure] is None:
        return f"{floor.about} ({floor.setting} is {value:,})"
    figure = row[floor.figure]
    seen = f"{figure:,}" if isinstance(figure, int) else f"{figure:.3f} bits"
    return f"{floor.about}: {floor.figure} {seen}, {floor.setting} is {value:,}"


def _cut_off(row: Row, record: Record) -> str:
    last = record.last_rank.get(row["source"])
    if last is None:
        return f"rank {row['rank']:,}, but the list was full before it came to this source"
    return f"rank {row['rank']:,} reaches all floors, but the list was full after rank {last:,}"


def _neighbours(query: str, listed: Mapping[str, Row]) -> Iterator[str]:
    for about, others in (("close to it", variants(query)), ("within it", parts(query))):
        found = [repr(other) for other in others if other in listed]
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            yield f"  in the list, {about}: {', '.join(found[:SHOWN])}{more}"
