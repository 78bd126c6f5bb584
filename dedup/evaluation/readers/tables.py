"""Pictures in Parquet files, as sets on the Hugging Face hub are laid out.

The picture is a column of bytes, or a struct with a field `bytes`; the class a number, whose names the
file's own description gives; the split stands in the file's name: "test-00000-of-00002.parquet".
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dedup.evaluation.readers.entries import (
    MAX_ITEM_BYTES,
    Entry,
    Piece,
    Reader,
    below,
    class_of,
    root_of,
    split_of,
    too_large,
)
from dedup.evaluation.readers.settings import EvalSet
from pipeline.errors import InputError
from pipeline.runtime import storage

_LABELS = ("label", "labels", "fine_label", "cls", "class")
_CAPTIONS = ("caption", "captions", "sentences", "text", "txt", "answer")
_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Which column is what; an empty name where there is none."""

    image: str
    label: str
    caption: str
    class_names: tuple[str, ...]


def parquet_pieces(evalset: EvalSet) -> list[Piece]:
    """Return the files, each a piece.

    Raises:
        InputError: if there is none.
    """
    files = [path for path in storage.list_files(evalset.path) if path.endswith(".parquet")]
    if storage.size(evalset.path) is not None:
        files = [evalset.path]
    if not files:
        raise InputError(
            f"{evalset.where} holds no Parquet file, expected SPLIT-00000-of-00001.parquet"
        )
    return [Piece(path=path, split=split_of(path)) for path in files]


def read_parquet(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield the rows of one file, named by file and row."""
    file_name = below(root_of(evalset), piece.path)
    try:
        with storage.open_input(piece.path) as source, pq.ParquetFile(source) as file:
            columns = _columns(evalset, file.schema_arrow, file_name)
            row = 0
            for batch in file.iter_batches(_ROWS, columns=_read(file.schema_arrow, columns)):
                for values in batch.to_pylist():
                    yield _entry(evalset, piece, values, columns, f"{file_name}#{row}")
                    row += 1
    # ValueError: text that is no UTF-8.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{evalset.where}: {file_name} cannot be read: {_one_line(error)}"
        ) from error


PARQUET = Reader(parquet_pieces, read_parquet)


def _entry(
    evalset: EvalSet, piece: Piece, values: dict[str, Any], columns: _Columns, item: str
) -> Entry:
    picture = values[columns.image]
    data = picture["bytes"] if isinstance(picture, dict) else picture
    if data is None:
        raise InputError(
            f"{evalset.where}: {item} has no bytes of a picture, expected them in the file"
        )
    if len(data) > MAX_ITEM_BYTES:
        raise too_large(evalset, item, len(data))
    given = values.get(columns.label)
    class_name = None if given is None else str(given)
    if isinstance(given, int) and not isinstance(given, bool):
        class_name = class_of(given, columns.class_names, evalset, item)
    return Entry(
        item=item,
        class_name=class_name,
        split=piece.split or "",
        captions=_captions(values.get(columns.caption)),
        read=partial(bytes, data),
    )


def _captions(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(text for text in value or () if isinstance(text, str))


def _columns(evalset: EvalSet, schema: pa.Schema, file_name: str) -> _Columns:
    named = _class_names(schema)
    label = evalset.label_column or next(iter(named), "") or _first(schema, _LABELS, _is_class)
    caption = evalset.caption_column or _first(schema, _CAPTIONS, _is_caption)
    image = evalset.image_column or _image_column(schema)
    for column in (evalset.label_column, evalset.caption_column, evalset.image_column):
        if column and column not in schema.names:
            raise InputError(
                f"{evalset.where}: {file_name} has no column {column!r}, "
                f"expected one of: {', '.join(schema.names)}"
            )
    if not image or not _is_picture(schema.field(image).type):
        raise InputError(
            f"{evalset.where}: {file_name} has no column of pictures, "
            "expected bytes, or a struct with a field bytes"
        )
    return _Columns(
        image=image, label=label, caption=caption, class_names=tuple(named.get(label, ()))
    )


def _read(schema: pa.Schema, columns: _Columns) -> list[str]:
    is_struct = pa.types.is_struct(schema.field(columns.image).type)
    image = f"{columns.image}.bytes" if is_struct else columns.image
    return [name for name in (image, columns.label, columns.caption) if name]


def _image_column(schema: pa.Schema) -> str:
    pictures = [field.name for field in schema if _is_picture(field.type)]
    by_name = [name for name in ("image", "img") if name in pictures]
    return str([*by_name, *pictures, ""][0])


def _is_picture(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return bool(place >= 0) and _is_picture(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_class(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind))


def _is_caption(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _first(schema: pa.Schema, names: tuple[str, ...], fits: Callable[[pa.DataType], bool]) -> str:
    return next(
        (name for name in names if name in schema.names and fits(schema.field(name).type)), ""
    )


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of classes by column, as the `datasets` library describes them in the file."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and column in schema.names
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # A description of another kind says nothing of classes.
        return {}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
