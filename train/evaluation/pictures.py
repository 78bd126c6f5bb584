"""The pictures of an evaluation set as a model takes them, read and decoded ahead of it in threads."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.evaluation.evalsets import EvalItem, EvalSet, items
from pipeline.pictures.images import ImageRefused, decode
from train.evaluation.features import BROKEN
from train.samples.augment import CENTRE, empty_pixels, resize_into, square_box

AHEAD = 3
"""Batches that are being decoded, or wait decoded, while the model is at work on another."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Squares:
    """Pictures that follow each other in a set; B: those that could be decoded, S: side in pixels.

    Attributes:
        refused: rows of DROPS, one for each picture that could not be decoded.
    """

    items: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    captions: list[tuple[str, ...]] = field(default_factory=list)
    pixels_B3SS: npt.NDArray[np.uint8]
    refused: list[dict[str, Any]] = field(default_factory=list)


def squares_ahead(
    evalset: EvalSet,
    resolution: int,
    batch_size: int,
    *,
    readers: int = 4,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Squares]:
    """Yield the centre squares of a set's pictures in its order, up to `batch_size` at a time.

    A picture with neither a class nor captions is passed over.

    Args:
        readers: threads that decode; no influence on what is yielded.
        share: (i, n): each n-th picture, from the i-th on, as the i-th of n processes takes it.

    Raises:
        InputError: as `items`.
    """
    ready: queue.Queue[_Decoding | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:

        def read() -> None:
            try:
                known = (item for item in items(evalset) if item.label or item.captions)
                own = islice(known, share[0], None, share[1])
                while taken := list(islice(own, batch_size)):
                    started = _start(taken, evalset.name, resolution, readers, pool)
                    if not _put(ready, started, stopped):
                        return
                _put(ready, None, stopped)
            except BaseException as error:  # noqa: BLE001 - raised by who waits for the pictures
                _put(ready, error, stopped)

        feeder = threading.Thread(target=read, name="feeder", daemon=True)
        feeder.start()
        try:
            while (started := ready.get()) is not None:
                if isinstance(started, BaseException):
                    raise started
                yield _assemble(started)
        finally:
            stopped.set()
            feeder.join()
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class _Decoding:
    """A batch under way: each share of it fills its rows of `pixels_B3SS` and returns why it could not."""

    taken: list[EvalItem]
    pixels_B3SS: npt.NDArray[np.uint8]
    refusals: list[Future[dict[int, dict[str, Any]]]]


def _put(
    ready: "queue.Queue[_Decoding | BaseException | None]",
    entry: "_Decoding | BaseException | None",
    stopped: threading.Event,
) -> bool:
    """Return whether somebody still waits for `entry`."""
    while not stopped.is_set():
        try:
            ready.put(entry, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False


def _start(
    taken: list[EvalItem],
    evalset: str,
    resolution: int,
    readers: int,
    pool: ThreadPoolExecutor,
) -> _Decoding:
    pixels_B3SS = empty_pixels(len(taken), resolution)

    def fill(rows: range) -> dict[int, dict[str, Any]]:
        refused = {}
        for row in rows:
            item = taken[row]
            try:
                rgb = decode(item.data, short_side=resolution).rgb
            except ImageRefused as refusal:
                detail = f"{evalset}/{item.item}: {refusal}"
                refused[row] = {"pair_id": None, "reason": BROKEN, "detail": detail}
                continue
            box = square_box(rgb.shape[1], rgb.shape[0], CENTRE)
            resize_into(rgb, box, pixels_B3SS[row : row + 1])
        return refused

    share = -(-len(taken) // readers)
    return _Decoding(
        taken=taken,
        pixels_B3SS=pixels_B3SS.numpy(),
        refusals=[
            pool.submit(fill, range(first, min(first + share, len(taken))))
            for first in range(0, len(taken), share)
        ],
    )


def _assemble(decoding: _Decoding) -> Squares:
    refused: dict[int, dict[str, Any]] = {}
    for future in decoding.refusals:
        refused |= future.result()
    whole = [row for row in range(len(decoding.taken)) if row not in refused]
    taken = [decoding.taken[row] for row in whole]
    return Squares(
        items=[item.item for item in taken],
        splits=[item.split for item in taken],
        labels=[item.label for item in taken],
        captions=[item.captions for item in taken],
        pixels_B3SS=decoding.pixels_B3SS[whole] if refused else decoding.pixels_B3SS,
        refused=list(refused.values()),
    )
