"""The endless stream of samples: epochs end to end, in global batches, resumable anywhere.

Global batch b is the b-th slice of that sequence, so the last batch of an epoch is filled from the
start of the next. Each rank takes its share of a slice. (epoch, position) says all about where a
stream stands, also when ranks, workers or the batch size change.

It is of use without the rest of witmill, on shards of anybody:

    from itertools import islice
    from train.stream import ShardStream

    with ShardStream("cc3m/{00000..00331}.tar", batch_size=256, seed=0, window=10_000) as stream:
        for batch in islice(stream, 1000):
            pairs = [(stream.read(sample), sample.caption) for sample in batch.samples]
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.errors import ConfigError, InputError
from pipeline.runtime.manifest import digest
from train.samples.order import EpochOrder, Layout, epoch_length, order_of_epoch, rows_of_piece

if TYPE_CHECKING:
    from train.sources import TrainingData

LOCATED = pa.schema(
    [
        ("pair_id", pa.string()),
        ("shard", pa.string()),
        ("caption", pa.large_string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
    ]
)
"""What a stream needs of each sample."""

Place = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Where one sample's image lies, and its caption.

    Attributes:
        pair_id: names it: of our shards the pair, of others the key, of folders the file.
        source: name of where it comes from.
        shard: path or URL of the file that holds the image.
        image_length: 0 where captions alone were asked for.
        epoch: how many times the stream has given every sample of its source before.
    """

    pair_id: str
    source: str
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


@dataclass(frozen=True, kw_only=True)
class Source:
    """Samples of one kind from one place.

    Attributes:
        identity: tells these samples, in this order, from any others.
        read: returns LOCATED of some samples, by number of the shard, first and last.
        prompts: templates, of which each sample's caption fills one: it is a label, or some with | between.
    """

    name: str
    layout: Layout
    identity: str
    read: Callable[[int, int, int], pa.Table]
    prompts: tuple[str, ...] = ()


class Data(Protocol):
    """What a stream draws from: `train.sources` has functions that open one."""

    @property
    def sources(self) -> Sequence[Source]:
        """Where samples come from."""
        ...

    def read(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's image."""
        ...

    def read_ahead(self, window: Sequence[pa.Table]) -> None:
        """Fetch, in the background, the images of samples that will be asked for soon."""
        ...


class ShardStream:
    """Iterates over the global batches of the data without end.

    Args:
        data: of `train.sources`; or a path: a workspace, a folder of tars or of labelled pictures, or
            tars by a pattern such as `s3://bucket/{00000..00041}.tar`.
        batch_size: samples of a global batch.
        window: samples shuffled together, see `order`.
        rank, world_size: which share of each global batch to yield.
        worker, workers: which of the batches: of every `workers`, the one of that number. So a
            torch DataLoader whose workers have a stream each gives all batches in their order.
    """

    def __init__(
        self,
        data: Data | str,
        *,
        batch_size: int,
        seed: int = 0,
        window: int = 131_072,
        rank: int = 0,
        world_size: int = 1,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        """Start at the first sample of epoch 0.

        Raises:
            ConfigError: if the numbers make no sense.
            InputError: if there are no samples.
        """
        if min(batch_size, window) < 1 or not (0 <= rank < world_size and 0 <= worker < workers):
            raise ConfigError(
                f"a stream of batches of {batch_size}, windows of {window}, rank {rank} of {world_size} "
                f"and worker {worker} of {workers}; expected sizes of at least 1 and numbers below their counts"
            )
        self._opened: TrainingData | None = None
        if isinstance(data, str):
            data = self._opened = _open(data)
        self._data = data
        self._layouts = [source.layout for source in self._data.sources]
        if not any(layout.samples and layout.weight for layout in self._layouts):
            raise InputError("there are no samples to stream")
        self._batch_size = batch_size
        self._share = (rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        self._seed, self._window = seed, window
        self._worker, self._workers = worker, workers
        self._skipped = worker
        self._order = lru_cache(maxsize=2)(
            lambda epoch: order_of_epoch(self._layouts, window=window, seed=seed, epoch=epoch)
        )
        self._check = self._check_number()
        self._tables: dict[Place, Future[pa.Table]] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="window")
        self._epoch = self._position = 0
        self._advance(0)

    def read(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's image; any thread may call this.

        Raises:
            ImageRefused: if they are not there.
            StorageError: if the storage fails.
        """
        return self._data.read(sample)

    def close(self) -> None:
        """Stop reading ahead; data that was given stays open, that of a path is closed."""
        self._background.shutdown(cancel_futures=True)
        if self._opened is not None:
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def state_dict(self) -> dict[str, int]:
        """Return where the next batch begins."""
        return {"epoch": self._epoch, "position": self._position, "order": self._check}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where a stream over the same samples stood; worker 0 gives the next batch.

        Raises:
            ConfigError: if that stream had other samples, another seed or another window, or was none.
        """
        if state.get("order", self._check) != self._check:
            raise ConfigError(
                "the state is that of a stream over other samples, or with another seed, window or weights; "
                "expected the same data and settings, or a new start"
            )
        epoch, position = state.get("epoch", -1), state.get("position", -1)
        if epoch < 0 or not 0 <= position < epoch_length(self._layouts, epoch):
            raise ConfigError(
                f"the state says epoch {epoch}, position {position}; expected a stream's own state"
            )
        self._epoch, self._position, self._skipped = epoch, position, self._worker

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Slice:
        at = self._epoch, self._position, self._skipped
        try:
            return self._next()
        except BaseException:
            # Interrupted in the middle of a batch, or a shard could not be read: no sample is lost.
            self._epoch, self._position, self._skipped = at
            self._tables.clear()
            raise

    def _next(self) -> Slice:
        for _ in range(self._skipped):
            self._advance(self._batch_size)
        self._skipped = self._workers - 1
        samples: list[Sample] = []
        taken = 0
        while taken < self._batch_size:
            order = self._order(self._epoch)
            number = order.number_at(self._position)
            start, stop = (int(edge) for edge in order.starts[number : number + 2])
            count = min(self._batch_size - taken, stop - self._position)
            first, last = (min(max(edge - taken, 0), count) for edge in self._share)
            if first < last:
                table = self._table((self._epoch, number))
                samples += self._samples(table.slice(self._position - start + first, last - first))
            taken += count
            self._advance(count)
        return Slice(samples=tuple(samples), state=self.state_dict())

    def _advance(self, count: int) -> None:
        self._position += count
        while self._position >= (length := epoch_length(self._layouts, self._epoch)):
            self._epoch, self._position = self._epoch + 1, self._position - length

    def _table(self, place: Place) -> pa.Table:
        wanted = (place, self._after(place))
        for at in wanted:
            if at not in self._tables:
                self._tables[at] = self._background.submit(self._read_window, at)
        for at in self._tables.keys() - set(wanted):
            self._tables.pop(at).cancel()
        return self._tables[place].result()

    def _after(self, place: Place) -> Place:
        epoch, number = place
        if number + 1 < len(self._order(epoch)):
            return epoch, number + 1
        epoch += 1
        while not len(self._order(epoch)):
            epoch += 1
        return epoch, 0

    def _read_window(self, place: Place) -> pa.Table:
        order: EpochOrder = self._order(place[0])
        window = order.window(place[1])
        tables = []
        for number, piece in enumerate(zip(*window.pieces, strict=True)):
            source, shard, first, last = (int(value) for value in piece[:4])
            table = self._data.sources[source].read(shard, first, last)
            rows = rows_of_piece(window, number, self._seed)
            tables.append(table if rows is None else table.take(pa.array(rows)))
        self._data.read_ahead(tables)
        whole = pa.concat_tables(tables)
        for name, column in (("source", window.pieces.source), ("turn", window.pieces.turn)):
            whole = whole.append_column(name, pa.array(np.repeat(column, window.pieces.taken)))
        return whole.take(pa.array(window.permutation()))

    def _samples(self, rows: pa.Table) -> list[Sample]:
        sources = self._data.sources
        columns = {name: rows.column(name).to_pylist() for name in rows.column_names}
        captions = columns["caption"]
        for i, number in enumerate(columns["source"]):
            if prompts := sources[number].prompts:
                key = f"{self._seed}:{columns['turn'][i]}:{columns['pair_id'][i]}"
                captions[i] = prompted(prompts, captions[i], key)
        names = [sources[number].name for number in columns["source"]]
        return [
            Sample(
                pair_id=pair_id,
                source=source,
                shard=shard,
                caption=caption,
                image_offset=offset,
                image_length=length,
                epoch=turn,
            )
            for pair_id, source, shard, caption, offset, length, turn in zip(
                columns["pair_id"],
                names,
                columns["shard"],
                captions,
                columns["image_offset"],
                columns["image_length"],
                columns["turn"],
                strict=True,
            )
        ]

    def _check_number(self) -> int:
        sources = [[s.identity, str(s.layout.weight)] for s in self._data.sources]
        return int(digest([sources, self._seed, self._window])[:15], 16)


def prompted(prompts: Sequence[str], label: str, key: str) -> str:
    """Return one of the captions that `prompts` make of `label`, chosen by a hash of `key`."""
    captions = [prompt.format(label=name) for name in label.split("|") for prompt in prompts]
    return captions[xxhash.xxh3_64_intdigest(f"prompt:{key}".encode()) % len(captions)]


def _open(path: str) -> "TrainingData":
    from train.sources import open_path

    return open_path(path)
