"""Read the pickles of CIFAR without running what a pickle may ask to run.

A pickle is a program: it may call whatever can be imported. Here it can name nothing but the few
things that make arrays of bytes, and gets stand-ins for them that only remember what they are told.
Its instructions are looked through before the first is followed: only those of protocol 2, in which
CIFAR is published. What it makes may still be nested deeply, or refer to itself, so none of it is
hashed, compared or shown but text and numbers.
"""

import io
import math
import pickle
import pickletools
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt


class _Told:
    """Remembers the state that a pickle gives it."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Told):
    """Stands in for a numpy array."""


class _Kind(_Told):
    """Stands in for the type of an array's elements."""


class _Encoded(bytes):
    """Stands in for `codecs.encode`, with which Python 3 writes bytes into old pickles."""

    def __new__(cls, text: str, encoding: str = "latin1") -> Self:
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("bytes have no state")


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _Encoded,
}


# Of protocol 2, all but those that copy the top of the stack, write huge numbers or make objects.
_INSTRUCTIONS = frozenset(
    (
        "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
        "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE",
        "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
        "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    )
)  # fmt: skip
# CIFAR-100's training batch has 400,000.
_MAX_INSTRUCTIONS = 1 << 22


class _Texts(dict[str | bytes, Any]):
    """A dictionary whose keys are text: the hash of a deep tuple would overflow the stack."""

    def __setitem__(self, key: str | bytes, value: Any) -> None:
        if not isinstance(key, str | bytes):
            raise pickle.UnpicklingError(f"a key is {type(key).__name__}, expected text")
        super().__setitem__(key, value)


# The unpickler in C makes a list as long as any number that the file names as a place to remember.
class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Texts()),
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError as error:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from error


def read_pickle(data: bytes) -> dict[str, Any]:
    """Return the dictionary that a pickle holds, its keys as text; see `pixels_of` for its arrays.

    Raises:
        ValueError: if it is broken, no dictionary, or asks for anything but arrays.
    """
    try:
        _check_instructions(data)
        values = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:
        # A pickle can make the unpickler raise anything.
        reason = str(error) or type(error).__name__
        raise ValueError(" ".join(reason.split())[:200]) from error
    if not isinstance(values, dict):
        raise ValueError(f"it holds {type(values).__name__}, expected a dictionary")
    return {text_of(key): value for key, value in values.items()}


def _check_instructions(data: bytes) -> None:
    for number, (instruction, _, _) in enumerate(pickletools.genops(data)):
        if instruction.name not in _INSTRUCTIONS:
            raise pickle.UnpicklingError(
                f"it has an instruction {instruction.name}, which arrays and text need not"
            )
        if number >= _MAX_INSTRUCTIONS:
            raise pickle.UnpicklingError(f"it has over {_MAX_INSTRUCTIONS} instructions")


def text_of(value: Any) -> str:
    """Return a key or name of a pickle as text, whichever Python wrote it.

    Raises:
        ValueError: if it is something else.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise ValueError(f"a name is {type(value).__name__}, expected text")
    return value


def pixels_of(value: Any, row: int) -> npt.NDArray[np.uint8]:
    """Return an array of bytes in a pickle as [rows, row].

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(value, _Array) or not isinstance(value.state, tuple) or len(value.state) != 5:
        raise ValueError(f"data is {type(value).__name__.strip('_').lower()}, expected an array")
    _, shape, kind, is_fortran, data = value.state
    code = text_of(kind.given[0]) if isinstance(kind, _Kind) and kind.given else "?"
    if code not in ("u1", "|u1") or is_fortran or not isinstance(data, bytes):
        raise ValueError("data is no array of bytes by rows")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape[:2]):
        raise ValueError("data has no shape of numbers")
    if len(shape) != 2 or shape[1] != row or math.prod(shape) != len(data):
        raise ValueError(
            f"data has {len(data)} bytes for the shape {shape[:2]}, expected [n, {row}]"
        )
    return np.frombuffer(data, np.uint8).reshape(-1, row)
