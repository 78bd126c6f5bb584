"""The endless stream of samples: epochs end to end, in global batches, resumable anywhere.

Global batch b is the b-th slice of that sequence, so the last batch of an epoch is filled from the
start of the next. Each rank takes its share of a slice. (epoch, position) says all about where a
stream stands, also when ranks, readers or the batch size change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from pipeline import schemas
from pipeline.runtime.manifest import Part
from pipeline.runtime.workspace import Workspace
from train.order import Window, windows_of_epoch

COLUMNS = ("pair_id", "shard", "caption", "image_offset", "image_length")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Where one sample's image lies, and its caption; `epoch` is the pass it belongs to."""

    pair_id: str
    shard: str
    caption: str
    image_offset: int
    image_length: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One rank's share of a global batch, and where the stream stands after the whole batch."""

    samples: tuple[Sample, ...]
    state: dict[str, int]


class ShardStream:
    """Iterates over the global batches of the shards without end.

    Args:
        shard_rows: samples in each shard.
        read_index: returns the COLUMNS of the index of a shard, by its place in `shard_rows`.
        batch_size: samples of a global batch, at most all there are.
        window: samples shuffled together, see `order`.
        rank, world_size: which share of each global batch to yield.
    """

    def __init__(
        self,
        shard_rows: Sequence[int],
        read_index: Callable[[int], pa.Table],
        *,
        batch_size: int,
        seed: int,
        window: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Start at the first sample of epoch 0."""
        self._batch_size = batch_size
        self._share = (
            rank * batch_size // world_size,
            (rank + 1) * batch_size // world_size,
        )
        self._samples = sum(shard_rows)
        self._epoch = self._position = 0
        self._read_index = read_index
        self._windows = lru_cache(maxsize=2)(
            lambda epoch: windows_of_epoch(shard_rows, window=window, seed=seed, epoch=epoch)
        )
        # Two: the last batch of a window reaches into the next.
        self._window_table = lru_cache(maxsize=2)(self._read_window)

    def state_dict(self) -> dict[str, int]:
        """Return where the next batch begins."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where a stream over the same shards stood."""
        self._epoch, self._position = state["epoch"], state["position"]

    def __iter__(self) -> "ShardStream":
        return self

    def __next__(self) -> Slice:
        samples: list[Sample] = []
        taken = 0
        while taken < self._batch_size:
            window = self._window()
            count = min(self._batch_size - taken, window.stop - self._position)
            first, last = (min(max(edge - taken, 0), count) for edge in self._share)
            samples += self._read(window, first, last)
            taken += count
            self._advance(count)
        return Slice(samples=tuple(samples), state=self.state_dict())

    def _window(self) -> Window:
        windows = self._windows(self._epoch)
        return next(window for window in windows if self._position < window.stop)

    def _advance(self, count: int) -> None:
        self._position += count
        if self._position == self._samples:
            self._epoch, self._position = self._epoch + 1, 0

    def _read(self, window: Window, first: int, last: int) -> list[Sample]:
        start = self._position - window.start + first
        rows = self._window_table(window).slice(start, last - first).to_pylist()
        return [Sample(**row, epoch=self._epoch) for row in rows]

    def _read_window(self, window: Window) -> pa.Table:
        table = pa.concat_tables([self._read_index(shard) for shard in window.shards])
        return table.take(pa.array(window.permutation()))


def read_shard_index(workspace: Workspace, parts: Sequence[Part]) -> Callable[[int], pa.Table]:
    """Return a function that reads what the stream needs of the index of one shard."""
    return lambda shard: workspace.read(parts[shard], schemas.SHARD_INDEX, list(COLUMNS))
