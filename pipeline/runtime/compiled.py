"""Compile a function with numba, keeping its type, and keep the machine code on disk.

numba compiles anew when the function's own file changes, but not when a loop that it took from
another module does. So the code is kept in a folder named for the content of every module with such
loops; after any change to one of them, all are compiled again.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("pipeline", "queries", "dedup", "train")
_IMPORT = re.compile(r"^from ((?:pipeline|queries|dedup|train)[\w.]*) import", re.MULTILINE)


def compiled(function: Function) -> Function:
    """Compile `function` on first call, without the GIL, and keep the machine code on disk."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: Function) -> Function:
    """Like `compiled`, for a function that compiled ones call: it becomes part of each caller."""
    return cast(
        Function,
        numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)(function),
    )


def _code_folder() -> Path | None:
    """Return the folder for the code of these sources: beside them, or else in the user's cache."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(path.read_bytes())
    name = f"compiled-{digest.hexdigest()[:16]}"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for parent in (Path(__file__).parent / "__pycache__", user / "witmill"):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(parent / name, os.W_OK):
            _remove_others(parent, name)
            return parent / name
    return None


def _remove_others(parent: Path, name: str) -> None:
    """Delete the folders of other sources that nothing was added to for a month."""
    for folder in parent.glob("compiled-*"):
        if folder.name != name and folder.stat().st_mtime < time.time() - 30 * 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)


def _sources() -> set[Path]:
    """Return the modules with compiled loops, and those whose constants or loops these import."""
    found = set()
    for path in (path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "pipeline.runtime.compiled import" in source:
            imported = (_ROOT / f"{name.replace('.', '/')}.py" for name in _IMPORT.findall(source))
            found |= {path, *filter(Path.exists, imported)}
    return found


if not numba.config.CACHE_DIR and (folder := _code_folder()):  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
