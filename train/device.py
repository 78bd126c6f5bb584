"""Where to compute, with how many threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import ConfigError
from train.config import Device


@contextmanager
def computing(name: Device, threads: int) -> Iterator[torch.device]:
    """Yield the device to compute on; while the block runs, torch uses `threads` threads, 0: all.

    On the CPU only deterministic algorithms are used, so equal runs give equal bits.

    Raises:
        ConfigError: if cuda is asked for and there is none.
    """
    device = _choose(name)
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(device.type == "cpu")
    try:
        yield device
    finally:
        torch.use_deterministic_algorithms(deterministic_before)
        torch.set_num_threads(threads_before)


def _choose(name: Device) -> torch.device:
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ConfigError("device is cuda, but torch finds none; expected auto or cpu here")
    return torch.device("cuda" if present and name != "cpu" else "cpu")
