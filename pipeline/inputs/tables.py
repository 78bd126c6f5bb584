"""Read image references from tables: Parquet, CSV, TSV and JSON lines."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.inputs.boxes import BOX_COLUMNS, parse_boxes
from pipeline.inputs.pairs import Reference, Skipped, hash_pair, make_reference, readable
from pipeline.pages.urls import resolve

URL_COLUMNS = ("url", "image_url", "img_url", "image_uri", "uri", "image_link", "src", "image")
CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text", "top_caption", "description", "title")
PAGE_COLUMNS = ("page_url", "page", "source_url", "referrer")
KEY_COLUMNS = ("uid",)

_BATCH_ROWS = 8192
_NAMING_LINES = 1000
_MAX_LINE_CHARACTERS = 16 << 20
_SEEN_CHARACTERS = 100
_HTTP = ("http://", "https://")


class Columns(NamedTuple):
    """Names of the columns to read; `page`, `key` and `boxes` are None where there is none."""

    url: str
    caption: str
    page: str | None
    key: str | None
    boxes: str | None


@dataclass(frozen=True, kw_only=True)
class ColumnChoice:
    """The columns the user named; None means by their usual names."""

    url: str | None = None
    caption: str | None = None
    key: str | None = None
    boxes: str | None = None


def find_columns(names: Sequence[str], choice: ColumnChoice, *, table: str) -> Columns:
    """Return the columns to read from a table that has `names`.

    Raises:
        InputError: naming `table`, the columns found and the options to use.
    """
    url = choice.url or _recognise(names, URL_COLUMNS)
    caption = choice.caption or _recognise([name for name in names if name != url], CAPTION_COLUMNS)
    wanted = [
        (url, "for image URLs", "--url-column"),
        (caption, "for captions", "--caption-column"),
    ]
    if choice.key:
        wanted.append((choice.key, "for keys", "--key-column"))
    if choice.boxes:
        wanted.append((choice.boxes, "for boxes", "--boxes-column"))
    for name, about, option in wanted:
        if name not in names:
            missing = f'"{name}"' if name else about
            raise InputError(
                f"{table} has no column {missing}, its columns are {', '.join(names)[:500]}; "
                f"name the right one with {option}"
            )
    assert url is not None
    assert caption is not None
    key = choice.key or _recognise(names, KEY_COLUMNS)
    boxes = choice.boxes or _recognise(names, BOX_COLUMNS)
    return Columns(url, caption, _recognise(names, PAGE_COLUMNS), key, boxes)


def _recognise(names: Sequence[str], known: Sequence[str]) -> str | None:
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(name.strip().lower().replace("-", "_").replace(" ", "_"), name)
    return next((plain[name] for name in known if name in plain), None)


def parquet_columns(schema: pa.Schema, choice: ColumnChoice, *, table: str) -> Columns:
    """Return the columns to read from a Parquet file.

    Raises:
        InputError: if there are none, or one does not hold text or shares its name.
    """
    columns = find_columns(schema.names, choice, table=table)
    for name in columns:
        if name is not None and schema.names.count(name) > 1:
            raise InputError(
                f'{table} has {schema.names.count(name)} columns "{name}", expected one; '
                "rename the others, or name another with --url-column or --caption-column"
            )
        if name not in (None, columns.key, columns.boxes) and not _is_text(schema.field(name).type):
            raise InputError(
                f'{table} has {schema.field(name).type} in its column "{name}", expected text; '
                "name another with --url-column or --caption-column"
            )
    return columns


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(
        test(kind)
        for test in (*text, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null)
    )


def read_parquet(
    file: pq.ParquetFile, groups: Iterable[int], columns: Columns, *, first_row: int
) -> Iterator[Reference | Skipped]:
    """Yield a pair or drop per row of the row `groups`; a group that cannot be decoded is one drop.

    Args:
        first_row: number of the first row of the first group in the whole file.
    """
    names = list(dict.fromkeys(name for name in columns if name is not None))
    row = first_row
    for group in groups:
        following = row + file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
                values = {name: _values(batch.column(name), columns, name) for name in names}
                none = [None] * batch.num_rows
                rows = zip(*(values[name] if name else none for name in columns), strict=True)
                for url, caption, page, key, boxes in rows:
                    yield refer(url, caption, page, key, row, boxes)
                    row += 1
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            seen = f"rows {row} to {following - 1}: {str(error).splitlines()[0]}"
            yield Skipped("broken_record", row, seen[:200])
        row = following


def _values(column: pa.Array, columns: Columns, name: str) -> list[Any]:
    is_nested = name == columns.boxes and pa.types.is_nested(column.type)
    return column.to_pylist() if is_nested else _strings(column)


def _strings(column: pa.Array) -> list[str | None]:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return [None] * len(column)
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        # Arrow's dates reach further than Python's.
        return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]
    if not _is_text(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    # Arrow does not check a file's strings; read as bytes, wrong ones cannot stop the reading.
    raw = column.cast(kind).cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "replace") for value in raw]


def read_delimited(
    text: IO[str], delimiter: str, choice: ColumnChoice, *, table: str
) -> Iterator[Reference | Skipped]:
    """Yield a pair or drop per row of a CSV (`delimiter` ",") or TSV (tab) text.

    CSV fields may be quoted; a quote in a TSV is a character like any other. The first line names the
    columns, unless it has two fields of which exactly one is an http(s) URL: then it is a row already.

    Raises:
        InputError: as `find_columns`.
    """
    rows = _split(text, delimiter)
    try:
        first = next(rows, [])
    except csv.Error as error:
        raise InputError(f"{table} has no readable first line: {error}") from error
    columns = headerless_columns(first)
    if columns is None:
        found = find_columns(first, choice, table=table)
        places = tuple(first.index(name) if name is not None else None for name in found)
        yield from _read_rows(rows, len(first), places)
    else:
        yield from _read_rows(chain([first], rows), 2, columns)


def _split(text: IO[str], delimiter: str) -> Iterator[list[str]]:
    lines = _Lines(text)
    if delimiter == ",":
        return csv.reader(lines)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)


class _Lines:
    """The lines of a text; one too long is passed over and raises, and iterating may go on behind it."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(_MAX_LINE_CHARACTERS)
        if not line:
            raise StopIteration
        if _is_cut(line):
            _skip_line(self._text)
            raise csv.Error(f"a line of more than {_MAX_LINE_CHARACTERS} characters")
        return line


def headerless_columns(first: Sequence[str]) -> tuple[int, int, None, None, None] | None:
    """Return where URL and caption stand in a two-column table without names, or None if it has names."""
    addresses = [field.strip().lower().startswith(_HTTP) for field in first]
    if len(first) != 2 or addresses.count(True) != 1:
        return None
    url = addresses.index(True)
    return url, 1 - url, None, None, None


def _read_rows(
    rows: Iterator[list[str]], width: int, places: tuple[int | None, ...]
) -> Iterator[Reference | Skipped]:
    url, caption, page, key, boxes = places
    assert url is not None
    assert caption is not None
    number = -1
    while True:
        number += 1
        try:
            fields = next(rows, None)
        except csv.Error as error:
            yield Skipped("broken_record", number, str(error))
            continue
        if fields is None:
            return
        if len(fields) == width:
            page_url = fields[page] if page is not None else None
            key_text = fields[key] if key is not None else None
            box_text = fields[boxes] if boxes is not None else None
            yield refer(fields[url], fields[caption], page_url, key_text, number, box_text)
        elif fields:
            yield Skipped("broken_record", number, f"{len(fields)} fields, expected {width}")


class _Line(NamedTuple):
    """A line that is not blank; `values` is None where it holds no object."""

    number: int
    text: str
    values: Mapping[str, Any] | None


def read_json_lines(
    text: IO[str], choice: ColumnChoice, *, table: str
) -> Iterator[Reference | Skipped]:
    """Yield a pair or drop per line that is not blank.

    The objects of the first 1,000 lines name the columns together, as many writers leave out nulls.

    Raises:
        InputError: as `find_columns`.
    """
    lines = _parse_lines(text)
    first = list(_first_lines(lines))
    names = list(dict.fromkeys(name for line in first for name in line.values or ()))
    columns: Columns | None = None
    for line in chain(first, lines):
        if line.values is None:
            yield Skipped("broken_record", line.number, line.text[:_SEEN_CHARACTERS])
            continue
        columns = columns or find_columns(names or list(line.values), choice, table=table)
        url, caption, page = (_text_or_none(line.values, name) for name in columns[:3])
        key = line.values.get(columns.key) if columns.key else None
        key_text = str(key) if isinstance(key, str | int | float) else None
        boxes = line.values.get(columns.boxes) if columns.boxes else None
        yield refer(url, caption, page, key_text, line.number, boxes)


def _first_lines(lines: Iterator[_Line]) -> Iterator[_Line]:
    characters = 0
    for line in islice(lines, _NAMING_LINES):
        yield line
        characters += len(line.text)
        if characters > _MAX_LINE_CHARACTERS:
            return


def _parse_lines(text: IO[str]) -> Iterator[_Line]:
    number = -1
    while line := text.readline(_MAX_LINE_CHARACTERS):
        number += 1
        if line.isspace():
            continue
        values = _parse_line(line)
        if values is None and _is_cut(line):
            _skip_line(text)
        yield _Line(number, line, values)


def _is_cut(line: str) -> bool:
    return len(line) == _MAX_LINE_CHARACTERS and not line.endswith(("\n", "\r"))


def _skip_line(text: IO[str]) -> None:
    while (line := text.readline(_MAX_LINE_CHARACTERS)) and not line.endswith(("\n", "\r")):
        pass


def _parse_line(line: str) -> Mapping[str, Any] | None:
    try:
        values = parse_json(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, in which NaN and lone surrogates may stand.

    Raises:
        ValueError: if it is no JSON, or nested too deeply.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates, which real captions contain, and NaN, which Python writes.
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _text_or_none(values: Mapping[str, Any], name: str | None) -> str | None:
    value = values.get(name) if name else None
    return value if isinstance(value, str) else None


def refer(
    url: str | None,
    caption: str | None,
    page: str | None,
    key: str | None,
    row: int,
    boxes: object = None,
) -> Reference | Skipped:
    """Return the pair of one row, or why there is none."""
    found = make_reference(
        resolve(url or "", None),
        caption,
        seen=url or "",
        caption_source="table",
        page_url=page or None,
        offset=row,
    )
    if isinstance(found, Skipped):
        return found
    try:
        blur_boxes = parse_boxes(boxes)
    except ValueError as error:
        return Skipped("broken_box", row, str(error), hash_pair(found.url, found.caption))
    return found._replace(key=readable(key) if key else None, blur_boxes=blur_boxes)
