"""Save and find again: checkpoints to go on from, and the finished model.

Both are torch files of plain tensors and numbers, read without running any code they may hold. A
model's "state_dict" has the names of the released CLIP models, so open_clip loads the file.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import CorruptWorkspace, InputError, WitmillError
from pipeline.runtime import storage
from pipeline.runtime.storage import OutputFile
from train.models.clip import Clip
from train.models.recipes import spec_from_dict

_NAME = re.compile(r"step-(\d{8,})\.pt")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on as if it had not stopped, on any number of processes.

    There is no random state: after the first weights, everything random is a hash of the seed.

    Attributes:
        spec: of the model, as a dictionary.
        scaler: of gradients in fp16; otherwise empty.
        average: of the weights, if the run keeps one.
        stream: state of the sample stream.
        records: what the run has to tell of the steps so far; `telemetry`: of the interval under way.
    """

    step: int
    spec: Mapping[str, Any]
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scaler: Mapping[str, Any] = field(default_factory=dict)
    average: Mapping[str, Tensor] | None = None
    stream: dict[str, int] = field(default_factory=dict)
    records: Mapping[str, Any] = field(default_factory=dict)
    telemetry: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: str, checkpoint: Checkpoint, *, keep: int) -> str:
    """Write `checkpoint` into `folder`, whole or not at all, then keep only the `keep` newest.

    What a killed run left unfinished there goes too. Returns the path.
    """
    path = storage.join(folder, f"step-{checkpoint.step:08d}.pt")
    with storage.atomic_output(path) as file:
        _save(vars(checkpoint), file)
    prune(folder, keep)
    return path


def prune(folder: str, keep: int) -> None:
    """Remove all that lies in `folder` but the `keep` newest checkpoints."""
    found = checkpoints(folder)
    for path in set(storage.list_inside(folder)) - set(found[max(len(found) - keep, 0) :]):
        storage.remove(path)


def checkpoints(folder: str) -> list[str]:
    """Return the paths of the checkpoints in `folder`, by step."""
    found = [path for path in storage.list_inside(folder) if _step(path) is not None]
    return sorted(found, key=lambda path: _step(path) or 0)


def load_checkpoint(path: str) -> Checkpoint:
    """Return the checkpoint at `path`, its tensors on the CPU.

    Raises:
        StorageError: if there is none.
        CorruptWorkspace: if it is damaged.
        InputError: if the file is none of this version's checkpoints.
    """
    content = read_torch_file(path, CorruptWorkspace(_damaged(path)))
    if set(content) != {each.name for each in fields(Checkpoint)}:
        raise InputError(
            f"{path} is no checkpoint of this version; to begin with its weights, give it as train.initial"
        )
    return Checkpoint(**content)


def _damaged(path: str) -> str:
    own = _step(path)
    if own is None:
        return f"{path} is damaged or something else, expected a checkpoint of a run"
    steps = [_step(other) or 0 for other in checkpoints(storage.parent(path))]
    older = [step for step in steps if step < own]
    instead = f"step {older[-1]}" if older else "the beginning"
    return f"{path} is truncated or damaged; delete it to go on from {instead}"


def save_model(path: str, model: Clip) -> None:
    """Write the weights of `model`, and the spec to build it from, to `path`."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
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
    try:
        torch.save(dict(content), file)  # type: ignore[arg-type]
    except RuntimeError as error:
        # After a write that failed, torch ends its archive all the same, and tells of that alone.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


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
