"""Compile a function with numba, keeping its type, and keep the machine code on disk.

numba compiles anew when the function's own file changes, but not when a loop that it took from
another module does. So the code is kept in a folder named for the content of every module with such
loops; after any change to one of them, all are compiled again.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("pipeline", "queries", "dedup")


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
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            source = path.read_bytes()
            if b"runtime.compiled" in source or b"numba" in source:
                digest.update(source)
    name = f"compiled-{digest.hexdigest()[:16]}"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for parent in (Path(__file__).parent / "__pycache__", user / "witmill"):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(parent / name, os.W_OK):
            return parent / name
    return None


if not numba.config.CACHE_DIR and (folder := _code_folder()):  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
