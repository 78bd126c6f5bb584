"""A file of JSON objects, one a line and each with its step, that outlives being killed."""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.runtime import storage


class JsonLines:
    """Appends lines to a file, each whole or, when killed within, cut short at the file's end.

    A line is handed to the operating system as soon as it is added, so it is there after SIGKILL. In
    an object store, where nothing can be appended, lines are kept in a temporary file until `flush`.

    Args:
        path: local or a URL.
        until: the last step whose lines are kept of a file that is there.
    """

    def __init__(self, path: str, *, until: int) -> None:
        kept = _lines_until(storage.read_bytes(path), until) if storage.exists(path) else b""
        self._path, self._folder = path, ""
        self._local = Path(storage.local_path(path))
        if storage.is_url(path):
            self._folder = tempfile.mkdtemp(prefix="witmill-")
            self._local = Path(self._folder, "lines")
        storage.write_bytes(str(self._local), kept)

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a line; numbers that JSON does not know become null."""
        plain = {name: _plain(value) for name, value in values.items()}
        with storage.storage_errors("write", self._path), self._local.open("ab") as file:
            file.write(json.dumps(plain).encode() + b"\n")

    def flush(self) -> None:
        """Bring what was added to an object store; a local file has it already."""
        if self._folder:
            storage.write_bytes(self._path, self._local.read_bytes())

    def close(self) -> None:
        """Flush, and leave nothing behind but the file."""
        if self._folder:
            self.flush()
            shutil.rmtree(self._folder)


def read_json_lines(path: str) -> list[dict[str, Any]]:
    """Return the objects of all whole lines."""
    lines = storage.read_bytes(path).splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _lines_until(content: bytes, step: int) -> bytes:
    """Return the whole lines up to the last of `step`."""
    kept = []
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return b"".join(kept)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
