"""Machine instructions that compiled loops cannot spell: unaligned load and store, bit scan, prefetch.

Byte order is that of x86 and ARM, little-endian: the first byte in memory is the lowest of the word.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_WORD = ir.IntType(64)
_BYTE_POINTER = ir.IntType(8).as_pointer()


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


def _load_word(typing_context: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature, arguments)
        word = builder.load(builder.bitcast(address, _WORD.as_pointer()))
        word.align = 1
        return word

    return types.uint64(array, types.int64), generate


def _store_word(typing_context: Any, array: Any, at: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature, arguments)
        stored = builder.store(arguments[2], builder.bitcast(address, _WORD.as_pointer()))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _prefetch(typing_context: Any, array: Any, row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0])
        at = builder.shl(arguments[1], ir.Constant(_WORD, 1))
        address = builder.bitcast(builder.gep(array.data, [at]), _BYTE_POINTER)
        name, kinds = "llvm.prefetch.p0i8", [_BYTE_POINTER] + [ir.IntType(32)] * 3
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), kinds), name
        )
        read, keep, data = (ir.Constant(ir.IntType(32), n) for n in (0, 3, 1))
        builder.call(function, [address, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


_Index = int | np.int64
_Bytes = npt.NDArray[np.uint8]
_Words = npt.NDArray[np.uint64]

load_word = cast(Callable[[_Bytes, _Index], np.uint64], intrinsic(_load_word))
"""Return the 8 bytes of an array from an index on, as one word; nothing is checked."""
store_word = cast(Callable[[_Bytes, _Index, np.uint64], None], intrinsic(_store_word))
"""Set the 8 bytes of an array from an index on; nothing is checked."""
trailing_zeros = cast(Callable[[np.uint64], int], intrinsic(_trailing_zeros))
"""Return the number of zero bits below the lowest one of a word that is not 0."""
prefetch = cast(Callable[[_Words, _Index], None], intrinsic(_prefetch))
"""Begin to bring a row of an array of [rows, 2] into the cache."""
