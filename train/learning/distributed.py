"""Processes that train one model together, started by torchrun; alone without it.

B: a rank's own rows, its share; shares may differ in size and be empty. N: the rows of all ranks.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pipeline.errors import ConfigError, WitmillError

T = TypeVar("T")

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
MEETING = ("MASTER_ADDR", "MASTER_PORT")


class ProcessLost(WitmillError):
    """Another process of the training has ended."""


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """This process among those it trains with; all of them must make the same calls in the same order.

    Attributes:
        rank: number of this process, from 0 to below `world_size`.
        local_rank: number among the processes of this machine, which is that of its GPU.
        device: where this process computes.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that writes and speaks."""
        return self.rank == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all ranks leave the block by an error as soon as one of them does.

        Raises:
            SystemExit: beside a rank whose own error ends it, in all others; so one tells what was wrong.
        """
        is_whole = False
        try:
            yield
            is_whole = True
        finally:
            teller = self._lowest(self.world_size if is_whole else self.rank)
            if teller not in (self.rank, self.world_size):
                raise SystemExit(1)

    def told(self, value: Any) -> Any:
        """Return the `value` of rank 0."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def collect(self, value: T) -> list[T]:
        """Return the values of all ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def equal(self, tensors: Iterable[Tensor]) -> None:
        """Give each of `tensors` the values it has on rank 0."""
        for tensor in tensors if self.world_size > 1 else ():
            dist.broadcast(tensor, src=0)

    def _lowest(self, number: int) -> int:
        lowest = torch.tensor(number)
        if self.world_size > 1:
            dist.all_reduce(lowest, dist.ReduceOp.MIN)
        return int(lowest)

    def shares(self, rows: int) -> list[int]:
        """Return how many rows each rank has, where this one has `rows`."""
        if self.world_size == 1:
            return [rows]
        # On the CPU, so that no GPU has to be waited for.
        own = torch.tensor([rows])
        counts = own.new_empty(self.world_size)
        dist.all_gather_single(counts, own)
        return cast(list[int], counts.tolist())

    def gather(self, rows_BX: Tensor, shares: Sequence[int] | None = None) -> Tensor:
        """Return the rows of all ranks in order of rank, [N, ...].

        The gradient of a rank's rows is the sum of all ranks' gradients with respect to them.

        Args:
            rows_BX: rows of any shape, the same on every rank.
            shares: what `shares` returned, where it is known already.
        """
        if self.world_size == 1:
            return rows_BX
        shares = self.shares(len(rows_BX)) if shares is None else shares
        return cast(Tensor, _Gather.apply(rows_BX, tuple(shares), self.rank))  # type: ignore[no-untyped-call]

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of all ranks' values, the same bits on every rank; it has no gradient."""
        total = value.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(total)
        return total


def alone(device: torch.device) -> Distributed:
    """Return the only process of its kind."""
    return Distributed(rank=0, world_size=1, local_rank=0, device=device)


@contextmanager
def start(device: torch.device) -> Iterator[Distributed]:
    """Meet the processes that torchrun started; tensors on GPUs travel over NCCL, others over gloo.

    Without torchrun's variables in the environment, or with one process, there is nobody to meet.

    Args:
        device: what to compute on; where that is a GPU, each process takes that of its local rank.

    Raises:
        ConfigError: if the variables do not fit together, a process has no GPU of its own, or the
            processes cannot meet.
        ProcessLost: if another process ended while this one waited for it.
    """
    place = _read_place(os.environ, device)
    if device.type == "cuda":
        torch.cuda.set_device(place.device)
    if place.world_size == 1:
        yield place
        return
    try:
        _meet(place)
        yield place
    except RuntimeError as error:
        # What gloo raises has no class of its own.
        if "by peer" not in str(error):
            raise
        raise ProcessLost(
            f"process {place.rank} of {place.world_size} waits for one that has ended; see what that said, "
            "or whether the system killed it for its memory, then start all again"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _read_place(environment: Mapping[str, str], device: torch.device) -> Distributed:
    if not any(name in environment for name in PLACE):
        return alone(device)
    missing = [name for name in PLACE + MEETING if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"the environment has some of torchrun's variables but not {', '.join(missing)}; start all "
            f"processes with torchrun, or unset {', '.join(PLACE)}"
        )
    rank, world_size, local_rank = (_read_number(environment, name) for name in PLACE)
    if not (local_rank <= rank < world_size):
        raise ConfigError(
            f"RANK is {rank}, LOCAL_RANK {local_rank} and WORLD_SIZE {world_size}, expected LOCAL_RANK "
            "not above RANK and RANK below WORLD_SIZE; start all processes with torchrun"
        )
    if device.type == "cuda":
        device = _own_gpu(local_rank, torch.cuda.device_count())
    return Distributed(rank=rank, world_size=world_size, local_rank=local_rank, device=device)


def _read_number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(
            f"{name} is {text!r}, expected a number; start all processes with torchrun"
        )
    return int(text)


def _own_gpu(local_rank: int, present: int) -> torch.device:
    if local_rank >= present:
        raise ConfigError(
            f"process {local_rank} of this machine needs a GPU of its own, but torch finds {present}; "
            f"start with --nproc-per-node {present} or fewer"
        )
    return torch.device("cuda", local_rank)


def _meet(place: Distributed) -> None:
    on_gpu = place.device.type == "cuda"
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            rank=place.rank,
            world_size=place.world_size,
            device_id=place.device if on_gpu else None,
        )
    except (dist.DistError, ValueError) as error:
        where = ":".join(os.environ[name] for name in MEETING)
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"process {place.rank} of {place.world_size} cannot meet the others at {where} ({reason}); "
            "see that the first is reachable there and the port is free"
        ) from error


class _Gather(torch.autograd.Function):
    """All ranks' rows; backward, the sum of all ranks' gradients of one's own."""

    @staticmethod
    def forward(ctx: Any, rows_BX: Tensor, shares: tuple[int, ...], rank: int) -> Tensor:
        ctx.shares, ctx.rank = shares, rank
        # Collectives want equal shares.
        longest = max(shares)
        own = _padded(rows_BX, longest)
        gathered = own.new_empty(len(shares) * longest, *own.shape[1:])
        dist.all_gather_single(gathered, own)
        if min(shares) == longest:
            return gathered
        parts = torch.split(gathered, longest)
        return torch.cat([part[:share] for part, share in zip(parts, shares, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NX: Tensor) -> tuple[Tensor, None, None]:
        longest = max(ctx.shares)
        parts = [_padded(part, longest) for part in torch.split(gradient_NX, ctx.shares)]
        own = parts[0].new_empty(parts[0].shape)
        dist.reduce_scatter_single(own, torch.cat(parts))
        return own[: ctx.shares[ctx.rank]], None, None


def _padded(rows_BX: Tensor, length: int) -> Tensor:
    missing = length - len(rows_BX)
    return functional.pad(rows_BX, (0, 0) * (rows_BX.ndim - 1) + (0, missing)).contiguous()
