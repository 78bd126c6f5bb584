"""Pictures in a folder or a zip of folders: sorted by name, read when their turn comes."""

import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from functools import partial
from itertools import pairwise
from typing import IO

from dedup.evaluation.readers.entries import (
    MAX_ITEM_BYTES,
    Entry,
    Piece,
    Reader,
    below,
    clean,
    place_of,
    ranges,
    too_large,
)
from dedup.evaluation.readers.settings import EvalSet
from pipeline.errors import InputError
from pipeline.runtime import storage

# What zipfile raises on broken files; RuntimeError is how it reports an encrypted entry.
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OSError, ValueError, IndexError, OverflowError,
)  # fmt: skip
# The others unpack without a bound: a kilobyte of bzip2 may be a gigabyte.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def folder_pieces(evalset: EvalSet) -> list[Piece]:
    """Return ranges of a folder's pictures."""
    return ranges(evalset.path, len(_pictures(evalset, _files_in(evalset.path))))


def read_folder(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield some of a folder's pictures."""
    files = _files_in(piece.path)
    for name in _share(_pictures(evalset, files), piece):
        yield _entry(evalset, name, partial(_read_file, evalset, name, files[name]))


def zip_pieces(evalset: EvalSet) -> list[Piece]:
    """Return ranges of a zip's pictures; all of one in an object store, so that it is copied once."""
    # Unlike a local copy, this reads of an object no more than the list at its end.
    with (
        storage.open_input(evalset.path) as file,
        _open_zip(file, where=evalset.where) as archive,
    ):
        pictures = _pictures(evalset, [name for name, _ in _entries(archive)])
    whole = storage.is_url(evalset.path)
    return [Piece(path=evalset.path)] if whole else ranges(evalset.path, len(pictures))


def read_zip(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield some of a zip's pictures."""
    with (
        storage.local_copy(piece.path) as path,
        _open_zip(path, where=evalset.where) as archive,
    ):
        found = _entries(archive)
        by_name = dict(found)
        for name in _share(_pictures(evalset, [name for name, _ in found]), piece):
            yield _entry(evalset, name, partial(_unpack, evalset, archive, name, by_name[name]))


FOLDER = Reader(folder_pieces, read_folder)
ZIP = Reader(zip_pieces, read_zip)


def _entry(evalset: EvalSet, name: str, read: partial[bytes]) -> Entry:
    place = place_of(name, evalset.pattern)
    assert place is not None
    return Entry(item=name, class_name=place.class_name, split=place.split, read=read)


def _share(pictures: list[str], piece: Piece) -> list[str]:
    end = None if piece.count is None else piece.first + piece.count
    return pictures[piece.first : end]


def _pictures(evalset: EvalSet, names: Collection[str]) -> list[str]:
    """Return those of the `names` that are pictures of the set, sorted, once they are found in order."""
    places = {name: place_of(name, evalset.pattern) for name in names}
    pictures = sorted(name for name in names if places[name])
    if not pictures:
        asked = f" whose name fits {evalset.pattern}" if evalset.pattern else ""
        raise InputError(
            f"{evalset.where} holds no picture{asked}, expected CLASS/NAME.png, .jpg, ..."
        )
    for item, following in pairwise(pictures):
        if item == following:
            raise InputError(f"{evalset.where} holds {item} twice")
    classes = {place.class_name for place in places.values() if place and place.class_name}
    check_labels(evalset, classes)
    return pictures


def check_labels(evalset: EvalSet, classes: set[str]) -> None:
    """Make sure that `labels` name classes of the set.

    Raises:
        InputError: naming the first that is not there.
    """
    if unknown := sorted(set(evalset.labels) - classes):
        raise InputError(
            f"{evalset.where} has no class folder {unknown[0]!r} that its labels name, "
            f"expected one of: {', '.join(sorted(classes)[:10])}"
        )


def _files_in(folder: str) -> dict[str, str]:
    return {below(folder, path): path for path in storage.list_inside(folder)}


def _read_file(evalset: EvalSet, name: str, path: str) -> bytes:
    data = storage.read_range(path, 0, MAX_ITEM_BYTES + 1)
    if len(data) > MAX_ITEM_BYTES:
        raise too_large(evalset, name, storage.size(path) or len(data))
    return data


def _entries(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    return [(clean(entry.filename), entry) for entry in archive.infolist() if not entry.is_dir()]


def _open_zip(file: str | IO[bytes], *, where: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except _BROKEN as error:
        raise InputError(f"{where} is not a readable zip: {error}") from error


def _unpack(evalset: EvalSet, archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > MAX_ITEM_BYTES:
        raise too_large(evalset, name, entry.file_size)
    if entry.compress_type not in _METHODS:
        raise InputError(
            f"{evalset.where}: {name} is packed by method {entry.compress_type}, expected deflate "
            "or none; pack the archive again"
        )
    try:
        # Not all at once, which would unpack whatever is there before it is cut to the size promised.
        with archive.open(entry) as file:
            # A read of no bytes would not look at the checksum.
            return file.read(entry.file_size or 1)
    except _BROKEN as error:
        raise InputError(f"{evalset.where}: {name} cannot be unpacked: {error}") from error
