"""Compile a function with numba, keeping its type."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile `function` on first call, without the GIL, and keep the machine code on disk."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: Function) -> Function:
    """Like `compiled`, for a function that compiled ones call: it becomes part of each caller."""
    return cast(
        Function,
        numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)(function),
    )
