"""Walk through a tar file, compressed or not, without unpacking anything to disk.

Member names are text and never become paths, links are passed over, and no read is larger than a
picture may be, so a small file cannot fill the memory either.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from dedup.evaluation.readers.entries import MAX_ITEM_BYTES, clean
from pipeline.errors import InputError
from pipeline.runtime import storage

# What a broken file makes unpackers raise; tarfile follows headers that point to headers by recursion.
BROKEN = (
    tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError, RecursionError,
)  # fmt: skip
_SKIP_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Member:
    """A regular file in a tar; `read` gives its bytes, in a compressed tar only until the next is asked for."""

    name: str
    size: int
    read: partial[bytes]


@dataclass(kw_only=True)
class _Source:
    """What tarfile reads from: remembers the last block, refuses reads that no header needs.

    Skips forward by reading where the file is compressed; tarfile never asks such a file to go back
    as long as members are read in their order.
    """

    file: IO[bytes]
    is_compressed: bool
    position: int = 0
    last_block: bytes = field(default=b"", repr=False)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_ITEM_BYTES:
            raise tarfile.ReadError(f"a header or member of {size} bytes")
        data = self.file.read(size)
        self.position += len(data)
        if size <= tarfile.BLOCKSIZE:
            self.last_block = data
        return data

    def tell(self) -> int:
        return self.position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if not self.is_compressed:
            self.position = self.file.seek(position, whence)
            return self.position
        if whence != io.SEEK_SET or position < self.position:
            raise tarfile.ReadError("members of a compressed tar are read in their order")
        while self.position < position:
            data = self.file.read(min(position - self.position, _SKIP_BYTES))
            if not data:
                break
            self.position += len(data)
        return self.position


@contextmanager
def opened(path: str) -> Iterator[tuple[IO[bytes], bool]]:
    """Yield the decompressed content of a file, by path or URL, and whether it was compressed."""
    with storage.local_copy(path) as local, Path(local).open("rb") as file:
        start = file.read(6)
        file.seek(0)
        unpack = next((way for magic, way in _COMPRESSED.items() if start.startswith(magic)), None)
        if unpack is None:
            yield file, False
            return
        with unpack(file) as content:
            yield cast(IO[bytes], content), True


_COMPRESSED: Mapping[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


@contextmanager
def tar_members(path: str, where: str) -> Iterator[tuple[Iterator[Member], bool]]:
    """Yield the regular files of a tar in their order, and whether they can be read out of it.

    Raises:
        InputError: if the file is no tar, or broken somewhere; while iterating, too.
    """
    with opened(path) as (file, is_compressed):
        yield _members(_Source(file=file, is_compressed=is_compressed), where), not is_compressed


def is_compressed(head: bytes) -> bool:
    """Return whether a file that begins so is one that `opened` decompresses."""
    return head.startswith(tuple(_COMPRESSED))


def is_tar(head: bytes) -> bool:
    """Return whether a file that begins so is a tar."""
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _members(source: _Source, where: str) -> Iterator[Member]:
    last = "the beginning"
    place = -1
    try:
        with tarfile.open(fileobj=cast(Any, source), mode="r:") as tar:
            while (member := tar.next()) is not None:
                # Else the list of members grows with the archive.
                tar.members = []  # type: ignore[attr-defined]
                if member.offset <= place:
                    raise tarfile.ReadError("a member's size leads back")
                place = member.offset
                if not member.isreg():
                    continue
                last = clean(member.name)
                yield Member(
                    name=last, size=member.size, read=partial(_read, source, member, last, where)
                )
    except BROKEN as error:
        raise InputError(f"{where} is broken after {last}: {error}") from error
    # A header that makes no sense ends the iteration like the empty block that ends an archive.
    if source.last_block.strip(b"\0"):
        raise InputError(f"{where} is broken after {last}: what follows is no member")


def _read(source: _Source, member: tarfile.TarInfo, name: str, where: str) -> bytes:
    if member.size > MAX_ITEM_BYTES:
        raise InputError(
            f"{where}: {name} has {member.size} bytes, expected at most {MAX_ITEM_BYTES}"
        )
    try:
        source.seek(member.offset_data)
        data = source.read(member.size)
    except BROKEN as error:
        raise InputError(f"{where}: {name} cannot be read: {error}") from error
    if len(data) < member.size or member.sparse is not None:
        problem = "ends early" if member.sparse is None else "is stored with holes"
        raise InputError(f"{where}: {name} {problem}; fetch or pack the archive again")
    return data
