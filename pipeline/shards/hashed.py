"""Read a file front to back, by the block, and know its sha256 at the end."""

import hashlib
from types import TracebackType
from typing import Self

from pipeline.runtime import storage

BLOCK_BYTES = 1 << 23


class HashedInput:
    """A file or object, read once from its beginning; a context manager."""

    def __init__(self, path: str) -> None:
        """Open `path`.

        Raises:
            StorageError: if it cannot be read.
        """
        self._path = path
        self._file = storage.open_input(path)
        self._hash = hashlib.sha256()
        self._block = b""
        self._place = 0
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end of the file only."""
        if count < 0:
            raise ValueError(f"{count} bytes are asked for, expected 0 or more")
        data = self._block[self._place : self._place + count]
        self._place += len(data)
        if len(data) == count:
            return data
        pieces = [data]
        missing = count - len(data)
        while missing and self._fill():
            pieces.append(self._block[:missing])
            self._place = len(pieces[-1])
            missing -= self._place
        return b"".join(pieces)

    def _fill(self) -> bool:
        with storage.storage_errors("read", self._path):
            self._block = self._file.read(BLOCK_BYTES)
        self._place = 0
        self._hash.update(self._block)
        self.size += len(self._block)
        return bool(self._block)

    @property
    def sha256(self) -> str:
        """Hex digest of the whole file; reads what is left of it."""
        while self._fill():
            pass
        return self._hash.hexdigest()
