"""Small evaluation sets in each layout, made as those who publish them do."""

import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def png(seed: int, *, side: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tarred(path: Path, files: Mapping[str, bytes], *, mode: str = "w") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def old_pickle(values: Mapping[str, Any]) -> bytes:
    """Return a pickle as Python 2 wrote CIFAR's: text is bytes, arrays are made by numpy's old names."""

    def short(text: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(text)) + text

    def dump(value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            rows, row = value.shape
            kind = (
                b"cnumpy\ndtype\n"
                + short(b"u1")
                + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            )
            made = (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
                + short(b"b")
                + b"\x87R"
            )
            shape = b"J" + struct.pack("<i", rows) + b"J" + struct.pack("<i", row) + b"\x86"
            return made + b"(K\x01" + shape + kind + b"\x89" + short(value.tobytes()) + b"tb"
        if isinstance(value, list):
            return b"](" + b"".join(map(dump, value)) + b"e"
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        return short(value.encode())

    items = b"".join(short(key.encode()) + dump(value) for key, value in values.items())
    return b"\x80\x02}(" + items + b"u."


def cifar_pixels(rows: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, 3072)).astype(np.uint8)


def protocol_2(values: Mapping[str, Any]) -> bytes:
    return pickle.dumps(values, protocol=2)
