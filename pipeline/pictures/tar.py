"""Write tar files whose bytes depend on the members alone, and know where each member lies."""

import tarfile
from types import TracebackType
from typing import Protocol, Self

_BLOCK = tarfile.BLOCKSIZE


class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


class TarWriter:
    """Writes a USTAR archive front to back: time 0, owner 0, mode 0644, members as they are added.

    The archive is complete once `close` has been called, or the `with` block has ended well.
    """

    def __init__(self, file: _Writable) -> None:
        """Begin at the start of `file`, which stays open at the end."""
        self._file = file
        self._position = 0

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append a member; return the offset of its first byte in the file and its length.

        Raises:
            ValueError: if `name` is empty, not ASCII or longer than 100 characters.
        """
        if not name or not name.isascii() or len(name) > tarfile.LENGTH_NAME:
            raise ValueError(
                f"{name!r} is no name for a member, expected 1 to 100 ASCII characters"
            )
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._file.write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        offset = self._position + _BLOCK
        self._file.write(data)
        padding = -len(data) % _BLOCK
        self._file.write(bytes(padding))
        self._position = offset + len(data) + padding
        return offset, len(data)

    def close(self) -> None:
        """Write the two empty blocks that end an archive."""
        self._file.write(bytes(2 * _BLOCK))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
