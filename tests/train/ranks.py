"""Real processes over gloo, each with the environment that torchrun would give it."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from train.learning.distributed import Distributed, start

Work = Callable[..., Any]
CPU = torch.device("cpu")
PATIENCE_S = 60


def run_ranks(world_size: int, work: Work, folder: Path, *arguments: Any) -> list[Any]:
    """Return what `work(distributed, *arguments)` gives in each of `world_size` processes."""
    # Ranks that are forked from a server that has imported torch start in a tenth of a second.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    port = free_port()
    processes = [
        context.Process(target=_run, args=(rank, world_size, port, work, folder, arguments))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_S)
    exit_codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert exit_codes == [0] * world_size
    return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _run(
    rank: int, world_size: int, port: int, work: Work, folder: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment(rank, world_size, port))
    with start(CPU) as distributed:
        result = work(distributed, *arguments)
    torch.save(result, folder / f"{rank}.pt")


def own_rows(distributed: Distributed, shares: list[int]) -> slice:
    """Return which of all rows are those of this rank."""
    first = sum(shares[: distributed.rank])
    return slice(first, first + shares[distributed.rank])
