"""When a host may be asked next, agreed upon by all processes of a machine.

A file in memory holds two times for every host: the next that is free, and until when the host is to
be left alone. Hosts are hashed to places in it: two that share one are asked more slowly than they
need be. Its clock is CLOCK_MONOTONIC, the same for all processes since the machine started, and the
file is named for that start.
"""

import fcntl
import mmap
import os
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import xxhash

from pipeline.errors import StorageError

_PLACES = 1 << 19
_TIME = struct.Struct("d")
_FREE, _CLOSED = 0, _TIME.size
_PLACE_BYTES = 2 * _TIME.size
_HORIZON_S = 24 * 3600.0


class HostPace:
    """Gives out times at which hosts may be asked; for any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`, made if it is not there.

        Raises:
            StorageError: if it cannot be, or is somebody else's.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        size = _PLACES * _PLACE_BYTES
        try:
            self._file = os.open(path, flags, 0o600)
            found = os.fstat(self._file)
            if found.st_uid != os.getuid():
                raise PermissionError("it belongs to another user")
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise PermissionError("it is something else under this name, too")
            # Memory that is not set aside may be gone when it is written to, which ends the process.
            os.posix_fallocate(self._file, 0, size)
            self._times = mmap.mmap(self._file, size)
        except OSError as error:
            raise StorageError(
                f"{path}, by which all processes keep to one pace, cannot be used: "
                f"{error.strerror or error}; make room for {size >> 20} MB, or remove it"
            ) from error
        self._lock = threading.Lock()

    def reserve(self, host: str, interval: float) -> float:
        """Take the next free time of `host`, `interval` seconds from the one before, and return it.

        The time is on the clock of `time.monotonic`; it is now where nobody asked lately.
        """
        with self._held(host) as place:
            now = time.monotonic()
            turn = max(now, self._get(place + _FREE, now), self._get(place + _CLOSED, now))
            _TIME.pack_into(self._times, place + _FREE, turn + interval)
        return turn

    def close(self, host: str, seconds: float) -> None:
        """Give out no time of `host` for `seconds`, a day at most."""
        with self._held(host) as place:
            now = time.monotonic()
            until = max(self._get(place + _CLOSED, now), now + min(seconds, _HORIZON_S))
            _TIME.pack_into(self._times, place + _CLOSED, until)

    def seconds_closed(self, host: str) -> float:
        """Return for how long `host` is still closed, 0 if it is not."""
        now = time.monotonic()
        return max(0.0, self._get(_place(host) + _CLOSED, now) - now)

    def _get(self, place: int, now: float) -> float:
        # No sane time lies further ahead: such a one was left by another start of the machine.
        found: float = _TIME.unpack_from(self._times, place)[0]
        return found if found <= now + _HORIZON_S else 0.0

    @contextmanager
    def _held(self, host: str) -> Iterator[int]:
        # Locks of files are between processes, the other is between the threads of one.
        place = _place(host)
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX, _PLACE_BYTES, place)
            try:
                yield place
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _PLACE_BYTES, place)


def _place(host: str) -> int:
    return int(xxhash.xxh3_64_intdigest(host.encode()) % _PLACES) * _PLACE_BYTES


@cache
def machine_pace() -> HostPace:
    """Return the pace that all of this user's processes on this machine keep to.

    Raises:
        StorageError: if its file cannot be used.
    """
    # Nobody else can put a file of this name into the first.
    memory = (Path(f"/run/user/{os.getuid()}"), Path("/dev/shm"))
    folder = next((f for f in memory if os.access(f, os.W_OK)), Path(tempfile.gettempdir()))
    boot = Path("/proc/sys/kernel/random/boot_id")
    start = boot.read_text().strip() if boot.exists() else "unknown"
    return HostPace(folder / f"witmill-pace-{os.getuid()}-{start}")
