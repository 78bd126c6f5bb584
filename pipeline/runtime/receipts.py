"""A receipt beside each finished task: what it did, so that a run that was killed goes on from there."""

import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from pipeline.errors import WitmillError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Outcome

Task = TypeVar("Task")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What task `index` did; `cpu_seconds` only where it ran in a worker."""

    index: int
    outcome: Outcome
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Task]):
    """One task of a step, and where its receipt goes."""

    step: str
    index: int
    work: Callable[[Task], Outcome]
    task: Task
    folder: str
    parent: int

    def __str__(self) -> str:
        return f"{self.step} {self.index}"


def run_job(job: Job[Task]) -> Receipt:
    """Run the task and write its receipt, once everything else it writes is in place."""
    begun = time.process_time()
    try:
        outcome = job.work(job.task)
    except Exception as error:
        raise _sendable(error) from error
    # Run in the parent itself, the time is part of the parent's own.
    seconds = 0.0 if os.getpid() == job.parent else time.process_time() - begun
    receipt = Receipt(index=job.index, outcome=outcome, cpu_seconds=seconds)
    path = storage.join(job.folder, f"{job.step}-{job.index:05d}.json")
    storage.write_bytes(path, json.dumps(asdict(receipt)).encode())
    return receipt


def read_receipts(folder: str, step: str) -> dict[int, Receipt]:
    """Return the receipts of a step's finished tasks, by index."""
    receipts = {}
    for path in storage.list_inside(folder):
        name = path.rpartition("/")[2]
        if name.endswith(".json") and name.rpartition("-")[0] == step:
            values = json.loads(storage.read_bytes(path))
            outcome = Outcome.from_json(values["outcome"])
            receipts[values["index"]] = Receipt(**{**values, "outcome": outcome})
    return receipts


def _sendable(error: Exception) -> Exception:
    """Return `error`, or the same in words if it would not survive the way to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an exception's own methods may raise anything
        if isinstance(error, WitmillError):
            return WitmillError(str(error))
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
