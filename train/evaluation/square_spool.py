"""Decoded pictures on disk, to be read again and again in any order."""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType

import numpy as np
import numpy.typing as npt

from pipeline.runtime.storage import storage_errors
from train.evaluation.pictures import Squares

AHEAD = 2
"""Batches that are being read, or wait, while one is computed with."""

Pixels = npt.NDArray[np.uint8]


@dataclass(kw_only=True)
class SquareSpool:
    """Squares of one size in a file without a name, which is gone when it is closed; a context manager.

    Memory holds the names and classes of pictures, never their pixels.

    Args:
        resolution: side of the squares in pixels.
        folder: where the file lies; default: the system's place for such files.
    """

    resolution: int
    folder: str | None = None
    items: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    refused: int = 0

    def __enter__(self) -> "SquareSpool":
        with storage_errors("write", self._where):
            self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, squares: Squares) -> None:
        """Put the pictures that have a class behind those that are there.

        Raises:
            StorageError: if the disk has no more room.
        """
        labelled = [row for row, label in enumerate(squares.labels) if label]
        data = memoryview(squares.pixels_B3SS[labelled].tobytes())
        with storage_errors("write", self._where):
            while data:
                data = data[os.write(self._file.fileno(), data) :]
        self.items += [squares.items[row] for row in labelled]
        self.labels += [squares.labels[row] or "" for row in labelled]
        self.refused += len(squares.refused)

    def read(self, rows: Sequence[int]) -> Pixels:
        """Return the pictures in `rows`, in that order, [rows, 3, S, S]; any thread may."""
        pixels_B3SS = np.empty((len(rows), 3, self.resolution, self.resolution), np.uint8)
        size = 3 * self.resolution**2
        with storage_errors("read", self._where):
            for square, row in zip(pixels_B3SS, rows, strict=True):
                if os.preadv(self._file.fileno(), [square.data], row * size) < size:
                    raise OSError(errno.EIO, f"picture {row} is cut short")
        return pixels_B3SS

    def read_ahead(self, batches: Iterable[Sequence[int]]) -> Iterator[Pixels]:
        """Yield the pictures of each of `batches`, the next ones read by a thread meanwhile."""
        waiting = iter(batches)
        with ThreadPoolExecutor(1, thread_name_prefix="spool") as pool:
            reading = [pool.submit(self.read, rows) for rows in islice(waiting, AHEAD)]
            while reading:
                pixels_B3SS = reading.pop(0).result()
                reading += [pool.submit(self.read, rows) for rows in islice(waiting, 1)]
                yield pixels_B3SS

    @property
    def _where(self) -> str:
        return f"pictures to learn from in {self.folder or tempfile.gettempdir()}"
