"""Read and write files by path or URL: local, `s3://`, `gs://` through pyarrow; `http(s)://` to read.

A path is a string. Writing is all or nothing everywhere: a local file is renamed into place once it
is complete, an object is uploaded only then. Credentials, region and endpoint of object stores come from
their usual environment variables, such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL.
"""

import errno
import fnmatch
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import IO

import pyarrow as pa
from pyarrow import fs

from pipeline.errors import StorageError

COPY_BYTES = 1 << 20
READ_TO_STAMP_BYTES = 64 << 20
UNFINISHED = ".part"

_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EFBIG: "allow larger files there and run the same command again",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a file stands where a folder is expected",
    errno.EEXIST: "check the path: a file stands where a folder is expected",
}


class OutputFile:
    """A binary file being written; knows its size and sha256 as it grows."""

    def __init__(self, raw: IO[bytes]) -> None:
        """Write on to `raw`."""
        self._raw = raw
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        """Append `data`, any contiguous buffer; return how many bytes that was."""
        view = memoryview(data)
        self._raw.write(view)
        self._hash.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return how many bytes have been written."""
        return self.size

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self._raw.flush()

    def close(self) -> None:
        """Do nothing: `atomic_output` closes the file, after its check that all went well."""

    def readable(self) -> bool:
        """Return False: this file is only written."""
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False: what is written is already hashed."""
        return False

    @property
    def sha256(self) -> str:
        """Hex digest of what has been written so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True, kw_only=True)
class FileStamp:
    """What tells one state of an outside file from another.

    `state` is the sha256 of a file small enough to read at once, else its time of change.
    """

    bytes: int
    state: str


def is_url(path: str) -> bool:
    """Return whether `path` names a scheme, such as `s3://bucket/key`."""
    return "://" in path


def is_http(path: str) -> bool:
    """Return whether `path` is an http or https URL."""
    return path.startswith(("http://", "https://"))


def join(folder: str, *names: str) -> str:
    """Return the path of `names` below `folder`; names that are absolute or URLs stand for themselves."""
    path = folder
    for name in names:
        path = name if is_url(name) or os.path.isabs(name) else f"{path.rstrip('/')}/{name}"
    return path


def parent(path: str) -> str:
    """Return the folder of `path`."""
    return path.rstrip("/").rpartition("/")[0] or ("/" if path.startswith("/") else ".")


def local_path(path: str) -> str:
    """Return a local path in full, `~` included."""
    return os.path.abspath(os.path.expanduser(path))


@cache
def _filesystem(prefix: str) -> fs.FileSystem:
    return fs.FileSystem.from_uri(prefix)[0]


def filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow file system of `path` and the path within it.

    Raises:
        StorageError: if the URL's scheme is not one pyarrow opens.
    """
    if not is_url(path):
        return _local(), local_path(path)
    scheme, _, place = path.partition("://")
    try:
        return _filesystem(f"{scheme}://{place.partition('/')[0]}"), place.rstrip("/")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise StorageError(
            f"{path} cannot be opened: {_first_line(error)}; expected a local path, s3://, gs:// or http(s)://"
        ) from error


@cache
def _local() -> fs.LocalFileSystem:
    return fs.LocalFileSystem()


@contextmanager
def storage_errors(action: str, path: str) -> Iterator[None]:
    """Turn an OSError inside the block into a StorageError: what failed, why, what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else _first_line(error)
        advice = _ADVICE.get(error.errno or 0)
        failure = StorageError(
            f"cannot {action} {path}: {reason}" + (f"; {advice}" if advice else "")
        )
        failure.errno = error.errno
        raise failure from error


def exists(path: str) -> bool:
    """Return whether a file or folder stands at `path`."""
    system, inner = filesystem(path)
    with storage_errors("look at", path):
        return bool(system.get_file_info(inner).type != fs.FileType.NotFound)


def size(path: str) -> int | None:
    """Return the bytes of the file at `path`, or None if there is none."""
    system, inner = filesystem(path)
    with storage_errors("look at", path):
        info = system.get_file_info(inner)
    return int(info.size) if info.type == fs.FileType.File else None


def stamp(path: str) -> FileStamp:
    """Return what identifies the present state of the file or folder at `path`.

    An http(s) URL is identified by itself alone; a folder by the stamps of its files.
    """
    if is_http(path):
        return FileStamp(bytes=-1, state=path)
    system, inner = filesystem(path)
    with storage_errors("look at", path):
        info = system.get_file_info(inner)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, "not found")
        if info.type == fs.FileType.Directory:
            inside = system.get_file_info(fs.FileSelector(inner, recursive=True))
            states = sorted(
                f"{i.path[len(inner) :]}:{i.size}:{i.mtime_ns}" for i in inside if i.is_file
            )
            digest = hashlib.sha256("\n".join(states).encode()).hexdigest()
            return FileStamp(bytes=len(states), state=digest)
    if info.size <= READ_TO_STAMP_BYTES:
        digest = hashlib.sha256(read_bytes(path)).hexdigest()
        return FileStamp(bytes=info.size, state=digest)
    return FileStamp(bytes=info.size, state=str(info.mtime_ns))


def open_input(path: str) -> pa.NativeFile:
    """Open a local file or object for random reading.

    Raises:
        StorageError: if it cannot be opened.
    """
    system, inner = filesystem(path)
    with storage_errors("read", path):
        return system.open_input_file(inner)


def read_bytes(path: str) -> bytes:
    """Return the content of the file at `path`."""
    with storage_errors("read", path), open_input(path) as file:
        return bytes(file.read())


def read_range(path: str, offset: int, length: int) -> bytes:
    """Return `length` bytes of the file at `path` from `offset` on, or as many as there are."""
    if is_http(path):
        from pipeline.runtime import http_files

        return http_files.read_range(path, offset, length)
    with storage_errors("read", path), open_input(path) as file:
        return bytes(file.read_at(length, offset))


def make_folder(path: str) -> None:
    """Make the folder `path` and those above it; object stores need none."""
    if not is_url(path):
        with storage_errors("write", path):
            os.makedirs(local_path(path), exist_ok=True)


@contextmanager
def atomic_output(path: str) -> Iterator[OutputFile]:
    """Yield a file that takes the name `path` only if the block ends well; else nothing is left.

    Raises:
        StorageError: if it cannot be written, as on a full disk.
    """
    if is_url(path):
        with storage_errors("write", path), tempfile.TemporaryFile() as spool:
            yield OutputFile(spool)
            spool.seek(0)
            system, inner = filesystem(path)
            # None: by default pyarrow would compress what is called .gz once more.
            with system.open_output_stream(inner, compression=None) as target:
                shutil.copyfileobj(spool, target, COPY_BYTES)
        return
    path = local_path(path)
    make_folder(parent(path))
    unfinished = f"{path}.{os.getpid()}{UNFINISHED}"
    try:
        with storage_errors("write", path):
            with open(unfinished, "wb") as raw:
                yield OutputFile(raw)
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(unfinished, path)
    finally:
        if os.path.lexists(unfinished):
            os.unlink(unfinished)


def write_bytes(path: str, data: bytes) -> None:
    """Write `data` to `path`, all or nothing."""
    with atomic_output(path) as file:
        file.write(data)


def remove(path: str) -> None:
    """Delete the file or folder at `path`; nothing happens if there is none."""
    system, inner = filesystem(path)
    with storage_errors("delete", path):
        info = system.get_file_info(inner)
        if info.type == fs.FileType.Directory:
            system.delete_dir(inner)
        elif info.type == fs.FileType.File:
            system.delete_file(inner)


def move(path: str, target: str) -> None:
    """Give the file at `path` the name `target`, in place of what stood there."""
    make_folder(parent(target))
    system, inner = filesystem(path)
    with storage_errors("move", path):
        system.move(inner, filesystem(target)[1])


def is_pattern(path: str) -> bool:
    """Return whether `path` means files by `*`, `?` or `[...]`, and is not itself the name of one."""
    return glob.has_magic(path) and not exists(path)


def fixed_folder(pattern: str) -> str:
    """Return the folder of all files that `pattern` can mean."""
    steps = pattern.split("/")
    first = next(i for i, step in enumerate(steps) if glob.has_magic(step))
    return "/".join(steps[:first]) or ("/" if pattern.startswith("/") else ".")


def list_files(path: str) -> list[str]:
    """Return the files that `path` means, sorted: itself, a folder's, all levels down, or a glob's.

    `*` and `?` stay within a folder, `**` crosses folders. Hidden files are left out.

    Raises:
        StorageError: if nothing is there.
    """
    if is_http(path):
        return [path]
    by_pattern = is_pattern(path)
    base = fixed_folder(path) if by_pattern else path
    system, inner = filesystem(base)
    with storage_errors("look at", base):
        info = system.get_file_info(inner)
        if info.is_file and not by_pattern:
            return [path]
        if info.type == fs.FileType.NotFound:
            raise StorageError(f"{path} does not exist; expected a file, a folder or a pattern")
        inside = system.get_file_info(fs.FileSelector(inner, recursive=True))
    found = [i.path[len(inner) :].lstrip("/") for i in inside if i.is_file]
    visible = sorted(name for name in found if not _is_hidden(name))
    if by_pattern:
        pattern = path.removeprefix(base).lstrip("/")
        visible = [name for name in visible if _matches(name, pattern)]
    if not visible:
        raise StorageError(f"{path} holds no files; expected at least one")
    return [join(base, name) for name in visible]


def list_inside(folder: str) -> list[str]:
    """Return every file below `folder`, all levels down, sorted; none if there is no such folder."""
    system, inner = filesystem(folder)
    with storage_errors("look at", folder):
        inside = system.get_file_info(fs.FileSelector(inner, recursive=True, allow_not_found=True))
    return sorted(join(folder, i.path[len(inner) :].lstrip("/")) for i in inside if i.is_file)


def list_unfinished(folder: str) -> list[str]:
    """Return what killed writers left below `folder`; object stores keep nothing of the kind."""
    if is_url(folder):
        return []
    return [path for path in list_inside(folder) if path.endswith(UNFINISHED)]


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Yield the path of a local file with the content of `path`, which may be a URL.

    A copy lives in the temporary folder while the block runs; of http(s), see `copy_file`.

    Raises:
        StorageError: if it cannot be read.
    """
    if not is_url(path):
        with storage_errors("read", path), open(local_path(path), "rb"):
            pass
        yield local_path(path)
        return
    with tempfile.TemporaryDirectory(prefix="witmill-") as folder:
        copy = os.path.join(folder, os.path.basename(path.partition("?")[0]) or "input")
        if is_http(path):
            # Imported here: it takes as long as all of this module, and few inputs need it.
            from pipeline.runtime.http_files import copy_file

            copy_file(path, copy)
        else:
            with (
                storage_errors("read", path),
                open_input(path) as source,
                open(copy, "wb") as target,
            ):
                shutil.copyfileobj(source, target, COPY_BYTES)
        yield copy


def _matches(name: str, pattern: str) -> bool:
    return _steps_match(name.split("/"), pattern.split("/"))


def _steps_match(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_steps_match(names[i:], patterns[1:]) for i in range(len(names) + 1))
    if not names or not fnmatch.fnmatchcase(names[0], patterns[0]):
        return False
    return _steps_match(names[1:], patterns[1:])


def _is_hidden(name: str) -> bool:
    return any(step.startswith(".") for step in name.split("/"))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
