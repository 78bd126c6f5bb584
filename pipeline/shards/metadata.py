"""What KEY.json says of a sample: the columns of SAMPLE, as JSON."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa

from pipeline import schemas
from pipeline.pictures.tar import space

_DIGITS = 6
_AT_ONCE = 1024


def describe(samples: pa.Table) -> Iterator[bytes]:
    """Yield the JSON of each row of SAMPLE: keys sorted, floats to six digits."""
    for known in plain_rows(samples.select(schemas.SAMPLE.names)):
        yield orjson.dumps(known, option=orjson.OPT_SORT_KEYS)


def plain_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of `table` with the values that they have in JSON."""
    inexact = [field.name for field in table.schema if _holds_floats(field.type)]
    for batch in table.to_batches(max_chunksize=_AT_ONCE):
        for row in batch.to_pylist():
            for name in inexact:
                row[name] = _rounded(row[name])
            yield row


def differences(metadata: bytes, known: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a KEY.json differs from what the index knows of its sample.

    Raises:
        ValueError: if it is no JSON object.
    """
    found = orjson.loads(metadata)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    if found == known:
        return []
    absent = object()
    names = sorted({*found, *known})
    return [n for n in names if found.get(n, absent) != known.get(n, absent)]


def tar_bytes(image: int, caption: int, metadata: int) -> int:
    """Return the bytes that a sample takes in a tar, by the lengths of its members."""
    return space(image) + space(caption) + space(metadata)


def _holds_floats(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _holds_floats(kind.value_type)
    return bool(pa.types.is_floating(kind))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return None if value is None else round(value, _DIGITS)
