"""Read, decode, crop and tokenise ahead of the training step.

A broken sample makes its batch one smaller and moves no other sample. What a batch holds does not
depend on how many threads read.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.pictures.images import ImageRefused, decode
from pipeline.runtime import storage
from pipeline.runtime.workspace import Workspace
from train.augment import random_corner, square_crop
from train.recipes import ModelSpec
from train.stream import Sample, ShardStream, Slice
from train.tokenizer import tokenize

AHEAD = 2
"""Batches being read while one is computed with."""

OPEN_SHARDS = 64

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class BrokenSample:
    """A sample whose image could not be decoded."""

    sample: Sample
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step computes with; B: whole samples, S: side in pixels, L: tokens.

    Attributes:
        state: where the stream stands after this batch.
    """

    pixels_B3SS: Pixels
    tokens_BL: npt.NDArray[np.int64]
    samples: tuple[Sample, ...]
    broken: tuple[BrokenSample, ...]
    state: dict[str, int]


Loaded = Pixels | BrokenSample
Load = Callable[[Sample], Loaded]


def sample_loader(workspace: Workspace, spec: ModelSpec, seed: int) -> Load:
    """Return a function that gives a sample's random crop, [3, S, S]; may be called by any thread."""
    # An evicted file closes when its last reader lets go of it.
    open_shard = lru_cache(maxsize=OPEN_SHARDS)(storage.open_input)

    def load(sample: Sample) -> Loaded:
        path = workspace.path(sample.shard)
        with storage.storage_errors("read", path):
            data = open_shard(path).read_at(sample.image_length, sample.image_offset)
        try:
            picture = decode(data, short_side=spec.resolution)
        except ImageRefused as refusal:
            return BrokenSample(sample=sample, reason=refusal.reason, detail=refusal.detail)
        corner = random_corner(seed, sample.epoch, sample.pair_id)
        return square_crop(picture.rgb, spec.resolution, corner)

    return load


def read_batches(
    stream: ShardStream, load: Load, *, context: int, count: int, readers: int
) -> Generator[Batch, None, None]:
    """Yield the next `count` batches of `stream`, read ahead by `readers` threads."""
    pending: deque[_Reading] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:
        try:
            for started in range(count + AHEAD):
                if started < count:
                    pending.append(_start(next(stream), load, context, readers, pool))
                if started >= AHEAD:
                    yield _assemble(pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class _Reading:
    taken: Slice
    loaded: list[Future[list[Loaded]]]
    tokens_BL: Future[npt.NDArray[np.int64]]


def _start(
    taken: Slice, load: Load, context: int, readers: int, pool: ThreadPoolExecutor
) -> _Reading:
    chunk = -(-len(taken.samples) // readers)
    return _Reading(
        taken=taken,
        loaded=[
            pool.submit(_load_all, load, taken.samples[first : first + chunk])
            for first in range(0, len(taken.samples), chunk)
        ],
        tokens_BL=pool.submit(tokenize, [sample.caption for sample in taken.samples], context),
    )


def _load_all(load: Load, samples: tuple[Sample, ...]) -> list[Loaded]:
    return [load(sample) for sample in samples]


def _assemble(reading: _Reading) -> Batch:
    loaded = [item for future in reading.loaded for item in future.result()]
    whole = [i for i, item in enumerate(loaded) if not isinstance(item, BrokenSample)]
    pixels = [item for item in loaded if not isinstance(item, BrokenSample)]
    return Batch(
        pixels_B3SS=np.stack(pixels) if pixels else np.empty(0, np.uint8),
        tokens_BL=reading.tokens_BL.result()[whole],
        samples=reading.taken.samples,
        broken=tuple(item for item in loaded if isinstance(item, BrokenSample)),
        state=reading.taken.state,
    )
