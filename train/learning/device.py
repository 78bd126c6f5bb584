"""Where to compute, with how many threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import ConfigError
from train.config import Device


@contextmanager
def computing(name: Device, threads: int) -> Iterator[torch.device]:
    """Yield the device to compute on; while the block runs, torch uses `threads` threads.

    0 threads: see `own_cores`.

    On the CPU only deterministic algorithms are used, so equal runs give equal bits.

    Raises:
        ConfigError: if cuda is asked for and there is none.
    """
    device = _choose(name)
    threads_before = torch.get_num_threads()
    mode_before = torch.get_deterministic_debug_mode()
    torch.set_num_threads(threads or own_cores())
    # torch.use_deterministic_algorithms does the same, but imports the compiler: seconds at every start.
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")
    try:
        yield device
    finally:
        torch.set_deterministic_debug_mode(mode_before)
        torch.set_num_threads(threads_before)


def own_cores() -> int:
    """Return this process's share of the cores, which all that torchrun started on this machine divide."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // processes)


def _choose(name: Device) -> torch.device:
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ConfigError("device is cuda, but torch finds none; expected auto or cpu here")
    # By its number, which torch.cuda.set_device asks for.
    return torch.device("cuda", 0) if present and name != "cpu" else torch.device("cpu")
