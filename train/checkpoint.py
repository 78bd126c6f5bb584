"""Save and find again: checkpoints to go on from, and the finished model.

Both are torch files of plain tensors and numbers, read without running any code they may hold. A
model's "state_dict" has the names of the released CLIP models, so open_clip loads the file.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import CorruptWorkspace, WitmillError
from pipeline.runtime import storage
from pipeline.runtime.storage import OutputFile
from train.clip import Clip
from train.recipes import spec_from_dict

_NAME = re.compile(r"step-(\d{8,})\.pt")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on as if it had not stopped.

    There is no random state: after the first weights, everything random is a hash of the seed.

    Attributes:
        stream: state of the sample stream.
        records: what the run has to tell of the steps so far.
    """

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    stream: dict[str, int]
    records: Mapping[str, Any]


def save_checkpoint(folder: str, checkpoint: Checkpoint, *, keep: int) -> None:
    """Write `checkpoint` into `folder`, whole or not at all, then keep only the `keep` newest.

    What a killed run left unfinished there goes too.
    """
    with storage.atomic_output(storage.join(folder, f"step-{checkpoint.step:08d}.pt")) as file:
        _save(vars(checkpoint), file)
    for path in set(storage.list_inside(folder)) - set(checkpoints(folder)[-keep:]):
        storage.remove(path)


def checkpoints(folder: str) -> list[str]:
    """Return the paths of the checkpoints in `folder`, by step."""
    found = [path for path in storage.list_inside(folder) if _step(path) is not None]
    return sorted(found, key=lambda path: _step(path) or 0)


def load_newest(folder: str) -> Checkpoint | None:
    """Return the newest checkpoint in `folder`, or None if there is none.

    Raises:
        CorruptWorkspace: if it cannot be read.
    """
    found = checkpoints(folder)
    if not found:
        return None
    step = _step(found[-2]) if len(found) > 1 else 0
    damaged = f"{found[-1]} is truncated or damaged; delete it to go on from step {step}"
    return Checkpoint(**read_torch_file(found[-1], CorruptWorkspace(damaged)))


def save_model(path: str, model: Clip) -> None:
    """Write the weights of `model`, and the spec to build it from, to `path`."""
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    with storage.atomic_output(path) as file:
        _save({"spec": asdict(model.spec), "state_dict": weights}, file)


def load_model(path: str) -> Clip:
    """Return the model that `save_model` wrote to `path`, on the CPU.

    Raises:
        StorageError: if there is no such file.
        CorruptWorkspace: if it cannot be read.
    """
    damaged = f"{path} is truncated or damaged; delete its folder and run `witmill train` again"
    return build_model(read_torch_file(path, CorruptWorkspace(damaged)))


def build_model(content: Mapping[str, Any]) -> Clip:
    """Return the model of a file that `save_model` wrote, given what is in it."""
    with torch.device("meta"):
        model = Clip(spec_from_dict(content["spec"]))
    model.load_state_dict(content["state_dict"], assign=True)
    return model


def _save(content: Mapping[str, Any], file: OutputFile) -> None:
    torch.save(dict(content), file)  # type: ignore[arg-type]


def read_torch_file(path: str, damaged: WitmillError) -> dict[str, Any]:
    """Return what `torch.save` wrote to `path`, tensors on the CPU.

    Raises:
        WitmillError: `damaged`, if it is not whole or holds more than tensors and plain values.
    """
    with storage.local_copy(path) as copy:
        try:
            # torch itself does not look at the checksums.
            with zipfile.ZipFile(copy) as archive:
                if archive.testzip() is not None:
                    raise damaged
            content: dict[str, Any] = torch.load(copy, map_location="cpu", weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError, zipfile.BadZipFile) as error:
            raise damaged from error
    return content


def _step(path: str) -> int | None:
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return int(match[1]) if match else None
