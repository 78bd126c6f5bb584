"""Read, decode, crop and tokenise ahead of the training step.

A broken sample makes its batch one smaller and moves no other sample. What a batch holds does not
depend on how many threads read.

Threads, not processes: what is dear (reading, decoding, resizing) runs without the GIL, and pictures
are written straight into the batch, which no other process has to hand over. docs/loader.md has
the measurements.
"""

import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.pictures.images import ImageRefused, decode
from train.learning.device import own_cores
from train.models.recipes import ModelSpec
from train.samples.augment import SQUARE, Crop, draw_box, resize_into, shortest_side
from train.samples.tokenizer import tokenize
from train.stream import Sample, Slice

BYTES_AHEAD = 1 << 30
"""Two batches are read ahead of the one computed with, if they hold no more than this; else one."""

CHUNK = 16
"""Samples that a thread loads before it looks for others: few, so that none waits long for the last."""


@dataclass(frozen=True, kw_only=True)
class BrokenSample:
    """A sample whose image could not be read or decoded."""

    sample: Sample
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What one step computes with; B: whole samples, S: side in pixels, L: tokens.

    Attributes:
        pixels_B3SS: uint8, the channels of a pixel side by side in memory; used again for another
            batch when no tensor refers to it.
        state: where the stream stands after this batch.
        waited: seconds that whoever asked for this batch waited for it.
    """

    pixels_B3SS: Tensor
    tokens_BL: Tensor
    samples: tuple[Sample, ...]
    broken: tuple[BrokenSample, ...]
    state: dict[str, int]
    waited: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """How one sample becomes pixels; may be called by any thread.

    Attributes:
        read: returns the file of a sample's image, or raises ImageRefused.
        short_side: see `pipeline.pictures.images.decode`.
    """

    read: Callable[[Sample], bytes]
    resolution: int
    seed: int
    crop: Crop
    short_side: int

    def __call__(self, sample: Sample, pixels_13SS: Tensor) -> BrokenSample | None:
        """Write the part of a sample's image that its epoch shows into `pixels_13SS`."""
        try:
            rgb = decode(self.read(sample), short_side=self.short_side).rgb
        except ImageRefused as refusal:
            return BrokenSample(sample=sample, reason=refusal.reason, detail=refusal.detail)
        height, width, _ = rgb.shape
        box = draw_box(
            width, height, self.crop, seed=self.seed, epoch=sample.epoch, key=sample.pair_id
        )
        resize_into(rgb, box, pixels_13SS)
        return None


def sample_loader(
    read: Callable[[Sample], bytes], spec: ModelSpec, seed: int, crop: Crop = SQUARE
) -> Load:
    """Return what loads samples for a model, a part of each picture that is drawn as `crop` says."""
    return Load(
        read=read,
        resolution=spec.resolution,
        seed=seed,
        crop=crop,
        short_side=shortest_side(crop, spec.resolution),
    )


def read_batches(
    stream: Iterator[Slice],
    load: Load,
    *,
    context: int,
    count: int,
    readers: int = 0,
    pinned: bool = False,
) -> Generator[Batch, None, None]:
    """Yield the next `count` batches of `stream`, read ahead by threads.

    With `train.stream` it is of use without the rest:

        with ShardStream("cc3m/{00000..00331}.tar", batch_size=256) as stream:
            load = sample_loader(stream.read, find_recipe("ViT-B/32").model, seed=0)
            for batch in read_batches(stream, load, context=77, count=1000):
                loss = clip_loss(model(batch.pixels_B3SS.to("cuda"), batch.tokens_BL.to("cuda")))

    Args:
        context: tokens of a caption.
        readers: threads that read and decode; 0: one for each core of this process.
        pinned: whether batches lie in page-locked memory, from which a GPU copies on its own.
    """
    pending: deque[Future[_Reading]] = deque()
    # The stream's own work is done by a thread, too, so that no step waits for it.
    feeder = ThreadPoolExecutor(1, thread_name_prefix="feeder")
    pool = ThreadPoolExecutor(readers or own_cores(), thread_name_prefix="reader")

    memory = _Memory(pinned=pinned)

    def start() -> _Reading:
        return _start(next(stream), load, context, pool, memory)

    try:
        for number in range(count):
            begun = time.perf_counter()
            if not pending:
                pending.append(feeder.submit(start))
            reading = pending.popleft().result()
            reading.wait()
            ahead = 2 if reading.pixels_B3SS.nbytes <= BYTES_AHEAD // 2 else 1
            while len(pending) < min(ahead, count - number - 1):
                pending.append(feeder.submit(start))
            yield reading.batch(waited=time.perf_counter() - begun)
    finally:
        feeder.shutdown(cancel_futures=True)
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """A batch that is being filled, a chunk of its samples by each task."""

    taken: Slice
    pixels_B3SS: Tensor
    tokens_BL: Tensor
    chunks: list[Future[list[BrokenSample | None]]] = field(default_factory=list)

    def wait(self) -> None:
        for chunk in self.chunks:
            chunk.result()

    def batch(self, *, waited: float) -> Batch:
        found = [broken for chunk in self.chunks for broken in chunk.result()]
        broken = tuple(broken for broken in found if broken)
        pixels_B3SS, tokens_BL = self.pixels_B3SS, self.tokens_BL
        if broken:
            whole = [i for i, broken in enumerate(found) if not broken]
            pixels_B3SS, tokens_BL = pixels_B3SS[whole], tokens_BL[whole]
        return Batch(
            pixels_B3SS=pixels_B3SS,
            tokens_BL=tokens_BL,
            samples=self.taken.samples,
            broken=broken,
            state=self.taken.state,
            waited=waited,
        )


class _Memory:
    """Memory for batches, used again once nothing refers to it: new pages cost 7% of all the work."""

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self._unused: list[npt.NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...]) -> Tensor:
        if self.pinned:
            # torch uses such memory again itself, when the GPU has copied it.
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        fits = self._unused and self._unused[-1].shape == shape
        array = self._unused.pop() if fits else np.empty(shape, np.uint8)
        # torch keeps this view of the array as long as there is a tensor over it.
        lent = array.view()
        weakref.finalize(lent, self._unused.append, array).atexit = False
        return torch.from_numpy(lent)


def _start(
    taken: Slice, load: Load, context: int, pool: ThreadPoolExecutor, memory: _Memory
) -> _Reading:
    size = len(taken.samples)
    pixels_BSS3 = memory.take((size, load.resolution, load.resolution, 3))
    reading = _Reading(
        taken=taken,
        pixels_B3SS=pixels_BSS3.permute(0, 3, 1, 2),
        tokens_BL=torch.empty((size, context), dtype=torch.int64, pin_memory=memory.pinned),
    )
    for first in range(0, size, CHUNK):
        rows = slice(first, first + CHUNK)
        reading.chunks.append(pool.submit(_load_chunk, load, reading, rows))
    return reading


def _load_chunk(load: Load, reading: _Reading, rows: slice) -> list[BrokenSample | None]:
    samples = reading.taken.samples[rows]
    tokens_BL = tokenize([sample.caption for sample in samples], reading.tokens_BL.shape[1])
    reading.tokens_BL[rows] = torch.from_numpy(tokens_BL)
    pixels_B3SS = reading.pixels_B3SS[rows]
    return [load(sample, pixels_B3SS[i : i + 1]) for i, sample in enumerate(samples)]
