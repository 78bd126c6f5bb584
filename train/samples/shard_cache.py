"""Copies of parts of remote files on a local disk, shared by all processes of the machine.

A file is held in blocks, each a local file of its own with its checksum behind it. A block appears
whole, by renaming, is fetched by one process while others wait, and is checked when a process first
reads it. What is held never exceeds the limit: before a block is fetched its space is taken, and the
blocks that lay unused for longest go. A process may be killed at any moment: locks end with it, and
what it left unfinished is finished or removed by the others.
"""

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.errors import StorageError
from pipeline.runtime import storage
from pipeline.runtime.progress import say

BLOCK_BYTES = 16 << 20
CHECKSUM_BYTES = 16
FETCHERS = 8
ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
OPEN_FILES = 256
MOST_CHECKED = 1 << 16
FREED_AT_ONCE = 0.1
"""Share of the limit that is made free when there is no room: looking for what to remove takes time."""

_USED = "used"
_UNFINISHED = ".part"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file as it was when first met: other bytes are another file."""

    path: str
    size: int
    version: str


class ShardCache:
    """Reads remote files through blocks in `folder`, of `limit` bytes altogether; thread-safe.

    Args:
        fetch: returns bytes of a remote file, by path, offset and length.
    """

    def __init__(
        self,
        folder: str,
        *,
        limit: int,
        block_bytes: int = BLOCK_BYTES,
        fetch: Callable[[str, int, int], bytes] | None = None,
    ) -> None:
        """Use `folder`, and make it if it is not there."""
        self._folder = Path(storage.local_path(folder))
        self.limit, self._block = limit, block_bytes
        self._fetch = fetch or fetch_range
        self._file = lru_cache(maxsize=1 << 16)(look_at)
        self._checked: set[tuple[str, int]] = set()
        self._ahead: deque[tuple[str, int]] = deque()
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="shard-cache")
        storage.make_folder(str(self._folder))
        # There may be more than this limit allows.
        self._room_for(0)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return `length` bytes of a remote file from `offset` on, or as many as there are.

        Raises:
            StorageError: if the file cannot be read.
        """
        remote = self._file(path)
        end = min(offset + length, remote.size)
        pieces = []
        while offset < end:
            number, begin = divmod(offset, self._block)
            count = min(end - offset, self._block - begin)
            pieces.append(self._read_block(remote, number, begin, count))
            offset += count
        return b"".join(pieces)

    def size(self, path: str) -> int:
        """Return the bytes of a remote file."""
        return self._file(path).size

    def read_ahead(self, blocks: Iterable[tuple[str, int]]) -> None:
        """Fetch blocks, by path and number, in this order and in the background."""
        self._ahead.extend(blocks)
        for _ in range(FETCHERS):
            self._pool.submit(self._bring_next)

    def blocks(self, samples: pa.Table) -> list[tuple[str, int]]:
        """Return the blocks in which images of LOCATED begin and end, for `read_ahead`."""
        offsets = samples.column("image_offset").to_numpy()
        lengths = samples.column("image_length").to_numpy()
        found: list[tuple[str, int]] = []
        for path in pc.unique(samples.column("shard")):
            here = pc.equal(samples.column("shard"), path).to_numpy() & (lengths > 0)
            first = offsets[here] // self._block
            last = (offsets[here] + lengths[here] - 1) // self._block
            found += [
                (path.as_py(), number) for number in sorted({*first.tolist(), *last.tolist()})
            ]
        return found

    def holds(self, blocks: int) -> bool:
        """Return whether so many blocks fit twice: those being read, and those that are next."""
        return 2 * blocks * (self._block + CHECKSUM_BYTES) <= self.limit

    def close(self) -> None:
        """Stop reading ahead."""
        self._ahead.clear()
        self._pool.shutdown(cancel_futures=True)

    def _bring_next(self) -> None:
        try:
            path, number = self._ahead.popleft()
        except IndexError:
            return
        # Whoever needs the block meets the error again, and is told.
        with contextlib.suppress(StorageError):
            remote = self._file(path)
            # An index may name what lies behind the end of its file.
            if number * self._block < remote.size:
                self._read_block(remote, number, 0, 1)
        # One by one, so that a program that ends waits for those under way alone: then no more are taken.
        with contextlib.suppress(RuntimeError):
            self._pool.submit(self._bring_next)

    def _read_block(self, remote: RemoteFile, number: int, begin: int, count: int) -> bytes:
        name = self._name(remote, number)
        size = min(self._block, remote.size - number * self._block)
        for _ in range(ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):
                return self._read_held(name, size, begin, count)
            if not self._hold(remote, number, name, size):
                break
        return self._fetch(remote.path, number * self._block + begin, count)

    def _read_held(self, name: str, size: int, begin: int, count: int) -> bytes:
        """Return bytes of a block that is there.

        Raises:
            FileNotFoundError: if it is not, or no longer because it was damaged.
        """
        path = self._folder / name
        opened = os.open(path, os.O_RDONLY)
        try:
            state = os.fstat(opened)
            if (name, state.st_ino) not in self._checked:
                if not _is_whole(opened, state.st_size, size):
                    say(f"cache      {path} is damaged; it is fetched again")
                    path.unlink(missing_ok=True)
                    raise FileNotFoundError(name)
                os.utime(opened)
                if len(self._checked) == MOST_CHECKED:
                    self._checked.clear()
                self._checked.add((name, state.st_ino))
            return os.pread(opened, count, begin)
        finally:
            os.close(opened)

    def _hold(self, remote: RemoteFile, number: int, name: str, size: int) -> bool:
        """Bring a block here, or wait for who does; return whether there was room for it."""
        unfinished = self._folder / f"{name}{_UNFINISHED}"
        with _alone(unfinished) as opened:
            if (self._folder / name).exists():
                unfinished.unlink()
                return True
            if not self._room_for(size + CHECKSUM_BYTES, opened):
                unfinished.unlink()
                return False
            try:
                data = self._fetch(remote.path, number * self._block, size)
                with storage.storage_errors("write", str(unfinished)):
                    _write_all(opened, data + xxhash.xxh3_128_digest(data))
                    unfinished.replace(self._folder / name)
            except BaseException:
                unfinished.unlink()
                raise
        return True

    def _name(self, remote: RemoteFile, number: int) -> str:
        about = f"{remote.path}\n{remote.size}\n{remote.version}\n{self._block}\n{number}"
        return xxhash.xxh3_128_hexdigest(about.encode())

    def _room_for(self, size: int, unfinished: int | None = None) -> bool:
        """Take space for the unfinished file of a block, if it can be had; return whether it can."""
        with _alone(self._folder / _USED) as ledger:
            told = os.pread(ledger, 32, 0)
            used = int(told) if told.strip().isdigit() else self._free(self.limit)
            if used + size > self.limit:
                used = self._free(int(self.limit * (1 - FREED_AT_ONCE)) - size)
            has_room = used + size <= self.limit
            # First told, then taken: who is killed between the two leaves too high a number.
            os.pwrite(ledger, b"%-32d" % (used + size * has_room), 0)
            if has_room and unfinished is not None:
                # With its full length, whoever counts the files counts this one whole.
                os.ftruncate(unfinished, size)
        return has_room

    def _free(self, most: int) -> int:
        """Remove files until at most `most` bytes are held; return how many are.

        What killed processes left goes first, then what lay unused for longest.
        """
        found = []
        used = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat()
                    if entry.name == _USED:
                        continue
                    used += state.st_size
                    is_finished = not entry.name.endswith(_UNFINISHED)
                    found.append((is_finished, state.st_mtime_ns, entry.name, state.st_size))
        for _, _, name, size in sorted(found):
            if used <= most:
                break
            if self._remove(name):
                used -= size
        return used

    def _remove(self, name: str) -> bool:
        path = self._folder / name
        if name.endswith(_UNFINISHED):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                path.unlink()
            return True
        path.unlink(missing_ok=True)
        return True


def look_at(path: str) -> RemoteFile:
    """Return the present state of a remote file.

    Raises:
        StorageError: if it is not there.
    """
    system, inner = storage.filesystem(path)
    with storage.storage_errors("read", path):
        info = system.get_file_info(inner)
        if not info.is_file:
            raise FileNotFoundError(f"{path} is not there")
    return RemoteFile(path=path, size=info.size, version=str(info.mtime_ns))


def fetch_range(path: str, offset: int, length: int) -> bytes:
    """Return `length` bytes of a remote file from `offset` on; passing failures are tried again.

    Raises:
        StorageError: if they cannot be had.
    """
    for attempt in range(ATTEMPTS):
        try:
            with storage.storage_errors("read", path):
                data = bytes(_opened(path).read_at(length, offset))
                if len(data) < length:
                    raise OSError(f"{len(data):,} of {length:,} bytes came")
                return data
        except StorageError:
            _opened.cache_clear()
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    raise AssertionError


_opened = lru_cache(maxsize=OPEN_FILES)(storage.open_input)


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """Yield a file, made if need be, that no other process or thread has so at this moment."""
    while True:
        with storage.storage_errors("write", str(path)):
            opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            # Who had it before may have renamed or removed it.
            try:
                is_here = path.stat().st_ino == os.fstat(opened).st_ino
            except FileNotFoundError:
                is_here = False
            if is_here:
                yield opened
                return
        finally:
            os.close(opened)


def _write_all(opened: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(opened, memoryview(data)[written:], written)


def _is_whole(opened: int, length: int, size: int) -> bool:
    if length != size + CHECKSUM_BYTES:
        return False
    data = os.pread(opened, length, 0)
    return xxhash.xxh3_128_digest(data[:size]) == data[size:]
