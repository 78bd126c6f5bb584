"""Cutting samples into shards, as one would by hand."""

from collections.abc import Sequence

END = 1024


def cut_by_bytes(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Put sample after sample into a shard until the next would make it too large."""
    shards: list[list[int]] = []
    for sample, size in enumerate(sizes):
        if shards and END + sum(sizes[i] for i in shards[-1]) + size <= most:
            shards[-1].append(sample)
        else:
            shards.append([sample])
    return shards
