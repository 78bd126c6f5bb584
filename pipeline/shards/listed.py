"""Read lists of addresses, hashes or ids, as they come: text, Parquet, or DataComp's .npy files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.runtime import storage

_PARQUET = b"PAR1"
_NPY = b"\x93NUMPY"
_HALVES = 2
_AT_ONCE = 1 << 18
_HEX_DIGITS = 32


def read_listed(path: str, columns: Sequence[str]) -> Iterator[str]:
    """Yield the entries of a list one by one; see `read_chunks`."""
    for entries in read_chunks(path, columns):
        yield from entries


def read_chunks(path: str, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield the entries of a list by the hundred thousand.

    They are the lines of a text file without blank ones, columns of a Parquet file, or the pairs of unsigned
    64-bit halves in a .npy file, as DataComp's lists of uids have them.

    Args:
        columns: of a Parquet file, those of these that it has are read.

    Raises:
        InputError: if it lists nothing or cannot be read.
    """
    is_empty = True
    for entries in _chunks(path, columns):
        is_empty = is_empty and not entries
        yield entries
    if is_empty:
        raise InputError(
            f"{path} lists nothing; expected one entry a line, Parquet or DataComp's .npy"
        )


def _chunks(path: str, columns: Sequence[str]) -> Iterator[list[str]]:
    with storage.local_copy(path) as copy:
        with Path(copy).open("rb") as file:
            start = file.read(len(_NPY))
        if start.startswith(_PARQUET):
            yield from _parquet(copy, path, columns)
        elif start == _NPY:
            yield from _npy(copy, path)
        else:
            yield from _text(copy, path)


def _parquet(copy: str, path: str, columns: Sequence[str]) -> Iterator[list[str]]:
    try:
        with pq.ParquetFile(copy) as file:
            present = [name for name in columns if name in file.schema_arrow.names]
            if not present:
                seen = ", ".join(file.schema_arrow.names)
                expected = " or ".join(columns)
                raise InputError(f"{path} has the columns {seen}, expected {expected}")
            for batch in file.iter_batches(_AT_ONCE, columns=present):
                for column in batch.columns:
                    yield column.drop_null().cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error


def _npy(copy: str, path: str) -> Iterator[list[str]]:
    try:
        ids = np.load(copy, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path} cannot be read as .npy: {error}") from error
    names = ids.dtype.names or ()
    if ids.ndim != 1 or len(names) != _HALVES or any(ids.dtype[n].kind != "u" for n in names):
        raise InputError(
            f"{path} holds {ids.dtype} of {ids.ndim} dimensions, expected one of u8,u8: the halves of "
            "128-bit ids, as DataComp writes them"
        )
    big_endian = np.dtype([(name, ">u8") for name in names])
    for first in range(0, len(ids), _AT_ONCE):
        digits = ids[first : first + _AT_ONCE].astype(big_endian).tobytes().hex()
        yield [digits[i : i + _HEX_DIGITS] for i in range(0, len(digits), _HEX_DIGITS)]


def _text(copy: str, path: str) -> Iterator[list[str]]:
    try:
        with Path(copy).open(encoding="utf-8-sig") as file:
            while lines := file.readlines(_AT_ONCE):
                yield [text for line in lines if (text := line.strip())]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is neither UTF-8 text nor Parquet nor .npy: {error}") from error
