"""Where one shard ends and the next begins: after so many samples, or before too many bytes."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.pictures.tar import END
from pipeline.runtime.manifest import Part

I64 = npt.NDArray[np.int64]

MOST_SAMPLES = 1_000_000
"""Samples in any shard; a shard's index is held in memory."""

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` of a part."""

    part: Part
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many these are."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a shard is full; `bytes` is the most its tar may have, None for no limit."""

    samples: int = MOST_SAMPLES
    bytes: int | None = None


def parse_bytes(text: str) -> int:
    """Return the number that a size such as "1GB", "500 MiB" or "1000000" means.

    Raises:
        ValueError: if it means none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise ValueError("a size such as 1GB or 500MiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def cut(
    parts: Iterable[Part], limits: Limits, sizes: Callable[[Part], I64]
) -> list[tuple[Slice, ...]]:
    """Return the slices of each shard: the parts' rows one after another, without gaps.

    A sample that is larger than a shard may be gets one of its own.

    Args:
        sizes: returns the bytes that each row of a part takes in a tar; asked if there is a limit.
    """
    room_of_all = None if limits.bytes is None else limits.bytes - len(END)
    shards: list[tuple[Slice, ...]] = []
    current: list[Slice] = []
    samples = used = 0
    for part in parts:
        ends = None if room_of_all is None else np.cumsum(sizes(part))
        start = 0
        while start < part.rows:
            stop = min(part.rows, start + limits.samples - samples)
            if ends is not None and room_of_all is not None:
                before = int(ends[start - 1]) if start else 0
                last = before + room_of_all - used
                stop = min(stop, int(np.searchsorted(ends, last, side="right")))
                if stop <= start and not current:
                    stop = start + 1
                used += max(0, int(ends[stop - 1]) - before) if stop > start else 0
            if stop > start:
                current.append(Slice(part, start, stop))
                samples += stop - start
                start = stop
            if start < part.rows or samples == limits.samples:
                shards.append(tuple(current))
                current, samples, used = [], 0, 0
    return [*shards, tuple(current)] if current else shards
