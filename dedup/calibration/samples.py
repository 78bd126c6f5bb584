"""Choose some pictures of a set, and hash and embed them and edited copies of them, over processes."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from dedup.calibration.edits import read_copy
from dedup.embedding.networks import Device
from dedup.evaluation.evalsets import EvalSet, entries, pieces
from pipeline.errors import InputError
from pipeline.pictures.images import ImageRefused, Pixels, decode, pdq, pixel_hash
from pipeline.runtime.executor import Executor
from pipeline.runtime.progress import Progress

# Pictures of a task, with and without copies of them.
EDITED, PLAIN = 16, 512
# Of an original: as it is, and mirrored.
AS_IS, REVERSED, FIRST_COPY = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A picture by its place: which piece of the set, and which of its pictures."""

    piece: int
    number: int
    item: str


@dataclass(frozen=True, kw_only=True)
class DescribeTask:
    """Pictures of one piece of a set, and the edits to make of each; `first` is their place in the sample."""

    first: int
    evalset: EvalSet
    chosen: tuple[Chosen, ...]
    edits: tuple[str, ...]
    model: str
    device: Device

    def __str__(self) -> str:
        return f"{self.evalset.name}, pictures from {self.chosen[0].item} on"


@dataclass(frozen=True, kw_only=True)
class Described:
    """Pictures and what is known of them.

    Attributes:
        chosen: those that could be decoded.
        refused: why others could not.
        pixel_hash: of each.
        words: PDQ hashes, [pictures, 2 + edits, 4]: upright, mirrored, copies.
        quality: of these, [pictures, 2 + edits].
        vectors: embeddings, [pictures, 1 + edits, dimensions]: upright, copies; none without a model.
    """

    chosen: tuple[Chosen, ...]
    refused: tuple[str, ...]
    pixel_hash: tuple[str, ...]
    words: npt.NDArray[np.uint64]
    quality: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float16]


def choose(evalset: EvalSet, count: int) -> tuple[Chosen, ...]:
    """Return `count` pictures of a set, or all, in its order: those whose names hash lowest.

    Raises:
        InputError: the set cannot be read or holds no picture.
    """
    places = (
        Chosen(piece=index, number=number, item=entry.item)
        for index, piece in enumerate(pieces(evalset))
        for number, entry in enumerate(entries(evalset, piece))
        if entry.read is not None
    )
    chosen = heapq.nsmallest(count, places, key=priority)
    if not chosen:
        raise InputError(f"{evalset.where} holds no picture")
    return tuple(sorted(chosen, key=attrgetter("piece", "number")))


def priority(chosen: Chosen) -> int:
    """Return a picture's place in the order of choice, by its name alone."""
    return xxhash.xxh3_64_intdigest(chosen.item.encode("utf-8", "surrogateescape"))


def describe(
    evalset: EvalSet,
    chosen: Sequence[Chosen],
    executor: Executor,
    *,
    edits: Sequence[str] = (),
    model: str = "",
    device: Device = "auto",
    title: str,
) -> Described:
    """Decode, edit, hash and embed pictures in the order they are given, which is that of the set.

    Raises:
        TaskFailed: the set cannot be read.
        InputError: not one of the pictures can be decoded.
    """
    tasks = [
        DescribeTask(
            first=first,
            evalset=evalset,
            chosen=some,
            edits=tuple(edits),
            model=model,
            device=device,
        )
        for first, some in _shares(chosen, EDITED if edits else PLAIN)
    ]
    described: dict[int, Described] = {}
    with Progress(title, len(chosen), unit="pictures") as progress:
        for first, some in executor.map(describe_share, tasks):
            described[first] = some
            progress.advance(len(some.chosen) + len(some.refused))
    whole = _joined([described[first] for first in sorted(described)])
    if not whole.chosen:
        raise InputError(f"{evalset.where} holds no readable picture: {whole.refused[0]}")
    return whole


def describe_share(task: DescribeTask) -> tuple[int, Described]:
    """Describe the pictures of a task; runs in a worker."""
    model = _load(task.model, task.device) if task.model else None
    chosen, hashes, refused = [], [], []
    words, quality, squares = [], [], []
    for place, data in read_chosen(task.evalset, task.chosen):
        try:
            rgb = decode(data).rgb
        except ImageRefused as error:
            refused.append(f"{place.item}, {error}")
            continue
        chosen.append(place)
        hashes.append(pixel_hash(rgb))
        copies = [read_copy(edit, rgb, place.item) for edit in task.edits]
        found = [pdq(some) for some in (rgb, np.ascontiguousarray(rgb[:, ::-1]), *copies)]
        words.append([np.frombuffer(code, np.uint64) for code, _ in found])
        quality.append([value for _, value in found])
        if model is not None:
            squares += [model.preparation.square(some) for some in (rgb, *copies)]
    shape = (len(chosen), FIRST_COPY + len(task.edits))
    vectors = np.empty((0, 0), np.float16)
    if model is not None:
        sides = (model.side, model.side, 3)
        pictures = np.array(squares, np.uint8).reshape(-1, *sides)
        vectors = model.embed_squares(pictures).astype(np.float16)
    return task.first, Described(
        chosen=tuple(chosen),
        refused=tuple(refused),
        pixel_hash=tuple(hashes),
        words=np.array(words, np.uint64).reshape(*shape, 4),
        quality=np.array(quality, np.int32).reshape(shape),
        vectors=vectors.reshape(shape[0], shape[1] - 1, vectors.shape[1]),
    )


def read_chosen(evalset: EvalSet, chosen: Iterable[Chosen]) -> Iterator[tuple[Chosen, bytes]]:
    """Yield pictures and their bytes, in the order of the set."""
    ordered = sorted(chosen, key=attrgetter("piece", "number"))
    every = pieces(evalset)
    for piece, some in groupby(ordered, attrgetter("piece")):
        wanted = {place.number: place for place in some}
        for number, entry in enumerate(entries(evalset, every[piece])):
            if number in wanted and entry.read is not None:
                yield wanted.pop(number), entry.read()
            if not wanted:
                break


def read_pictures(evalset: EvalSet, chosen: Iterable[Chosen]) -> dict[Chosen, Pixels]:
    """Return the pixels of pictures that are known to be readable."""
    return {place: decode(data).rgb for place, data in read_chosen(evalset, chosen)}


def _shares(chosen: Sequence[Chosen], size: int) -> Iterator[tuple[int, tuple[Chosen, ...]]]:
    """Yield runs of pictures of one piece, and where they begin."""
    first = 0
    for _, group in groupby(chosen, attrgetter("piece")):
        some = tuple(group)
        for start in range(0, len(some), size):
            yield first + start, some[start : start + size]
        first += len(some)


def _joined(shares: Sequence[Described]) -> Described:
    def whole(name: str) -> Any:
        return np.concatenate([getattr(share, name) for share in shares])

    return Described(
        chosen=sum((share.chosen for share in shares), ()),
        refused=sum((share.refused for share in shares), ()),
        pixel_hash=sum((share.pixel_hash for share in shares), ()),
        words=whole("words"),
        quality=whole("quality"),
        vectors=whole("vectors"),
    )


def _load(model: str, device: Device) -> Any:
    # Here, because it brings in a library for models, which hashing alone needs none of.
    from dedup.embedding.embedding_models import loaded_model

    return loaded_model(model, device)
