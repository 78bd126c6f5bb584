"""Sets that hold pixels instead of files: MNIST's idx, CIFAR-10 and CIFAR-100 as Python pickles.

Their pictures are given as PNG, without loss. Such bytes are not the set's own, so corpus pictures are
compared with them by pixels and likeness, never by bytes.
"""

import io
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dedup.evaluation.readers.archives import BROKEN, is_compressed, opened, tar_members
from dedup.evaluation.readers.entries import (
    MAX_ITEM_BYTES,
    Entry,
    Piece,
    Reader,
    below,
    class_of,
    root_of,
    split_of,
)
from dedup.evaluation.readers.pickles import pixels_of, read_pickle, text_of
from dedup.evaluation.readers.settings import EvalSet
from pipeline.errors import InputError
from pipeline.runtime import storage

IDX_PICTURES, IDX_LABELS = b"\x00\x00\x08\x03", b"\x00\x00\x08\x01"
CIFAR_META = ("batches.meta", "meta")
_SIDE = 32
_MAX_LABELS = 1 << 30


def idx_pieces(evalset: EvalSet) -> list[Piece]:
    """Return the files of pictures, each a piece; all files that begin as such.

    Raises:
        InputError: if there is none.
    """
    files = storage.list_files(evalset.path)
    pictures = [path for path in files if _magic(path) == IDX_PICTURES]
    if not pictures:
        raise InputError(
            f"{evalset.where} holds no idx file of pictures, expected *-images-idx3-ubyte"
        )
    return [Piece(path=path, split=_idx_split(path)) for path in pictures]


def read_idx(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield the pictures of one file, with the classes of the file of labels beside it."""
    name = below(root_of(evalset), piece.path)
    beside = _labels_beside(evalset, piece.path)
    labels = _read_labels(evalset, beside.rpartition("/")[2], beside)
    with opened(piece.path) as (file, _):
        _, count, height, width = struct.unpack(">4sIII", _exactly(evalset, name, file, 16))
        if count != len(labels):
            raise InputError(
                f"{evalset.where}: {name} has {count} pictures and {len(labels)} labels"
            )
        if not 0 < height * width <= MAX_ITEM_BYTES:
            raise InputError(f"{evalset.where}: {name} has pictures of {width}x{height} pixels")
        for number in range(count):
            data = _exactly(evalset, name, file, height * width)
            grey = np.frombuffer(data, np.uint8).reshape(height, width)
            item = f"{name}#{number}"
            yield Entry(
                item=item,
                class_name=class_of(int(labels[number]), (), evalset, item),
                split=piece.split or "",
                read=partial(_png, grey.T if evalset.transposed else grey),
                is_original=False,
            )


def cifar_pieces(evalset: EvalSet) -> list[Piece]:
    """Return the tar or folder as a piece: the names of classes stand in another file than pictures."""
    return [Piece(path=evalset.path)]


def read_cifar(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield the pictures of all batches, with the names of their classes."""
    names: list[str] = []
    for name, values in _batches(evalset, piece.path, wanted=_is_meta):
        given = values.get("label_names") or values.get("fine_label_names") or []
        try:
            names = [text_of(name) for name in given] if isinstance(given, list) else []
        except ValueError as error:
            raise InputError(f"{evalset.where}: {name}: {error}") from error
    for name, values in _batches(evalset, piece.path, wanted=_is_batch):
        yield from _cifar_entries(evalset, name, values, names)


def labels_beside(evalset: EvalSet) -> list[str]:
    """Return the files of labels, which a pattern or one file of pictures does not name."""
    return [_labels_beside(evalset, piece.path) for piece in idx_pieces(evalset)]


IDX = Reader(idx_pieces, read_idx, labels_beside)
CIFAR = Reader(cifar_pieces, read_cifar)


def is_cifar(name: str) -> bool:
    """Return whether a file of this name is one of CIFAR's: a batch or the names of classes."""
    return _is_batch(name) or _is_meta(name)


def _is_meta(name: str) -> bool:
    return PurePosixPath(name).name in CIFAR_META


def _is_batch(name: str) -> bool:
    last = PurePosixPath(name).name
    return last in ("test_batch", "train", "test") or last.startswith("data_batch_")


def _batches(evalset: EvalSet, path: str, *, wanted: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if storage.size(path) is None:
        for file in storage.list_files(path):
            if wanted(file):
                data = storage.read_range(file, 0, MAX_ITEM_BYTES + 1)
                yield _batch(evalset, below(path, file), data)
        return
    with tar_members(path, evalset.where) as (members, _):
        for member in members:
            if wanted(member.name):
                yield _batch(evalset, member.name, member.read())


def _batch(evalset: EvalSet, name: str, data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        return name, read_pickle(data)
    except ValueError as error:
        raise InputError(f"{evalset.where}: {name} is no pickle of CIFAR: {error}") from error


def _cifar_entries(
    evalset: EvalSet, name: str, values: dict[str, Any], names: list[str]
) -> Iterator[Entry]:
    try:
        rows = pixels_of(values.get("data"), 3 * _SIDE * _SIDE)
    except ValueError as error:
        raise InputError(f"{evalset.where}: {name}: {error}") from error
    labels = values.get("labels", values.get("fine_labels"))
    if not isinstance(labels, list) or len(labels) != len(rows):
        raise InputError(
            f"{evalset.where}: {name} has {len(rows)} pictures, expected as many labels"
        )
    split = "test" if PurePosixPath(name).name in ("test", "test_batch") else "train"
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        item = f"{name}#{number}"
        if not isinstance(label, int):
            raise InputError(
                f"{evalset.where}: {item} is of class {type(label).__name__}, expected a number"
            )
        yield Entry(
            item=item,
            class_name=class_of(label, names, evalset, item),
            split=split,
            read=partial(_png, row.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)),
            is_original=False,
        )


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _magic(path: str) -> bytes:
    if not is_compressed(storage.read_range(path, 0, 6)):
        return storage.read_range(path, 0, 4)
    with opened(path) as (file, _):
        try:
            return file.read(4)
        except BROKEN:
            return b""


def _idx_split(path: str) -> str:
    return "test" if path.rpartition("/")[2].startswith("t10k") else split_of(path)


def _labels_beside(evalset: EvalSet, path: str) -> str:
    """Return the file beside `path` whose name says labels where that one says images."""
    folder, name = storage.parent(path), path.rpartition("/")[2]
    bare = name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for candidate in (bare, f"{bare}.gz"):
        beside = storage.join(folder, candidate)
        if candidate not in (name, name.removesuffix(".gz")) and storage.size(beside) is not None:
            return beside
    raise InputError(
        f"{evalset.where}: {name} has no labels, expected {bare} or {bare}.gz beside it"
    )


def _read_labels(evalset: EvalSet, name: str, path: str) -> bytes:
    with opened(path) as (file, _):
        magic, count = struct.unpack(">4sI", _exactly(evalset, name, file, 8))
        if magic != IDX_LABELS or count > _MAX_LABELS:
            raise InputError(f"{evalset.where}: {name} is no idx file of labels")
        return _exactly(evalset, name, file, count)


def _exactly(evalset: EvalSet, name: str, file: IO[bytes], size: int) -> bytes:
    try:
        data = file.read(size)
    except BROKEN as error:
        raise InputError(f"{evalset.where}: {name} cannot be unpacked: {error}") from error
    if len(data) != size:
        raise InputError(f"{evalset.where}: {name} ends early; fetch it again")
    return data
