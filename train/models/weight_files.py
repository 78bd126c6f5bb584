"""Read files of weights: torch's own, TorchScript archives, and safetensors.

No code that a file may hold is run. A torch file is read as tensors and plain values alone; of a
TorchScript archive only the tensors and their names are read, by an unpickler that knows no other
classes, so torch.jit compiles and runs nothing of it; safetensors hold no code.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from train.running.checkpoint import read_torch_file

Kind = Literal["torch", "torchscript", "safetensors"]

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
_MALFORMED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    RuntimeError,
    OverflowError,
)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """What is in a file: of a torch file the object that was saved, of others tensors by name."""

    kind: Kind
    content: Mapping[str, Any]


def read_weight_file(path: str) -> WeightFile:
    """Return what the file at `path` holds, tensors on the CPU.

    Raises:
        StorageError: if there is no such file.
        InputError: if it is none of the three kinds, or damaged.
        ConfigError: if it needs a library that is not installed.
    """
    with storage.local_copy(path) as copy:
        kind = _kind(path, copy)
        if kind == "safetensors":
            content = _read_safetensors(path, copy)
        elif kind == "torchscript":
            content = _read_torchscript(path, copy)
        else:
            content = read_torch_file(copy, _damaged(path))
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path} holds a {type(content).__name__}, expected weights by name; save a state dict"
        )
    return WeightFile(kind=kind, content=content)


def _damaged(path: str) -> InputError:
    return InputError(
        f"{path} is no whole file of weights, expected a model.pt, a state dict, a TorchScript archive "
        "or safetensors; copy or download it again"
    )


def _kind(path: str, copy: str) -> Kind:
    with Path(copy).open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":
        return "safetensors"
    if not head.startswith(b"PK"):
        raise _damaged(path)
    try:
        with zipfile.ZipFile(copy) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _damaged(path) from error
    return "torchscript" if any(n.endswith("/constants.pkl") for n in names) else "torch"


def _read_safetensors(path: str, copy: str) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigError(
            f"{path} needs the library safetensors, which is not installed; pip install safetensors"
        ) from error
    try:
        return load_file(copy)
    except SafetensorError as error:
        raise _damaged(path) from error


def _read_torchscript(path: str, copy: str) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(copy) as archive:
            stored = [i for i in archive.infolist() if i.compress_type == zipfile.ZIP_STORED]
            if sum(entry.file_size for entry in stored) > Path(copy).stat().st_size:
                raise _damaged(path)
            module = _ArchiveReader(archive, {entry.filename for entry in stored}).load()
        return dict(_named_tensors(module, "", set()))
    except _MALFORMED as error:
        raise _damaged(path) from error


class _Module:
    """Stands in for whatever class of the archive's own code an object is of."""

    parts: Mapping[object, object] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.parts = state


class _ArchiveReader(pickle.Unpickler):
    """Unpickles a module's tensors from a TorchScript archive; knows nothing else."""

    def __init__(self, archive: zipfile.ZipFile, stored: set[str]) -> None:
        self._archive = archive
        self._stored = stored
        first = next((name for name in stored if name.endswith("/data.pkl")), "")
        self._root = first.removesuffix("data.pkl")
        self._storages: dict[object, Tensor] = {}
        super().__init__(io.BytesIO(self._record("data.pkl")))

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function that the pickle names."""
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":
            return list
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a model's weights")

    def persistent_load(self, reference: Any) -> Tensor:
        """Return the numbers that a tensor is a view of, as one row."""
        _, dtype, key, _, count = reference
        if key not in self._storages:
            data = bytearray(self._record(f"data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype, count=count)
        return self._storages[key]

    def _record(self, name: str) -> bytes:
        path = self._root + name
        if path not in self._stored:
            raise pickle.UnpicklingError(f"{path} is absent or compressed")
        return self._archive.read(path)


def _tensor(
    numbers: Tensor, offset: int, shape: Sequence[int], stride: Sequence[int], *_: object
) -> Tensor:
    if math.prod(shape) > numbers.numel():
        raise pickle.UnpicklingError(f"a tensor of shape {shape} has {numbers.numel()} numbers")
    return numbers.as_strided(shape, stride, offset)


def _named_tensors(module: object, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of `module` and its parts, by their dotted names; each part once."""
    if not isinstance(module, _Module) or id(module) in seen:
        return
    seen.add(id(module))
    for name, part in module.parts.items():
        if isinstance(part, Tensor):
            yield f"{prefix}{name}", part
        else:
            yield from _named_tensors(part, f"{prefix}{name}.", seen)
