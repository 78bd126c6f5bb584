"""Read the images of samples from where they lie: local files, or remote ones through a cache."""

import os
from collections.abc import Sequence
from functools import lru_cache

import pyarrow as pa

from pipeline.pictures.images import ImageRefused
from pipeline.runtime import storage
from pipeline.runtime.progress import say
from train.samples.shard_cache import ShardCache, fetch_range
from train.stream import Sample

OPEN_FILES = 256


class SampleReader:
    """Gives the bytes of any sample's image; thread-safe.

    Args:
        cache: for remote files; without it every image is a request of its own.
    """

    def __init__(self, cache: ShardCache | None) -> None:
        self._cache = cache
        self._open = lru_cache(maxsize=OPEN_FILES)(_OpenFile)
        self._window_fits = True

    def read(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's image.

        Raises:
            ImageRefused: if the file has fewer, or is not there.
            StorageError: if the storage fails.
        """
        if not sample.image_length:
            raise ImageRefused("no_picture", "the sample has a caption alone")
        data = self._read(sample.shard, sample.image_offset, sample.image_length)
        if len(data) < sample.image_length:
            raise ImageRefused(
                "truncated_image",
                f"{sample.shard} ends {sample.image_length - len(data):,} bytes too early",
            )
        return data

    def _read(self, path: str, offset: int, length: int) -> bytes:
        if not storage.is_url(path):
            try:
                return self._open(path).read(offset, length)
            except FileNotFoundError:
                raise ImageRefused("missing_file", f"{path} is not there") from None
            except OSError as error:
                with storage.storage_errors("read", path):
                    raise error
        if self._cache is not None and self._window_fits:
            return self._cache.read(path, offset, length)
        return fetch_range(path, offset, length)

    def read_ahead(self, window: Sequence[pa.Table]) -> None:
        """Fetch in the background what LOCATED tables of a window name, in their order."""
        remote = [table for table in window if storage.is_url(table.column("shard")[0].as_py())]
        if self._cache is None or not remote:
            return
        blocks = [block for table in remote for block in self._cache.blocks(table)]
        fits = self._cache.holds(len(blocks))
        if fits:
            self._cache.read_ahead(blocks)
        elif self._window_fits:
            say(
                f"cache      {self._cache.limit / 2**30:.3g} GiB do not hold two shuffle windows of "
                f"{len(blocks):,} blocks: each sample is a request of its own; raise cache_gib or lower "
                "shuffle_window"
            )
        self._window_fits = fits

    def close(self) -> None:
        """Close what is open."""
        self._open.cache_clear()
        if self._cache is not None:
            self._cache.close()


class _OpenFile:
    """A local file that closes when its last reader lets go of it."""

    def __init__(self, path: str) -> None:
        self._file = -1
        self._file = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        # Of a network file system one call may bring less.
        data = os.pread(self._file, length, offset)
        while len(data) < length and (
            more := os.pread(self._file, length - len(data), offset + len(data))
        ):
            data += more
        return data

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
