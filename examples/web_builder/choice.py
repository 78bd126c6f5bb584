"""Choices that are the same on every machine and for every version of Python."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def number(*key: object) -> int:
    """Return a fixed number below 2**64 for `key`."""
    text = "\0".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def pick(options: Sequence[Item], *key: object) -> Item:
    """Return the option that `key` falls on."""
    return options[number(*key) % len(options)]


def shuffled(items: Sequence[Item], *key: object) -> list[Item]:
    """Return `items` in an order fixed by `key` and their positions."""
    order = sorted(range(len(items)), key=lambda position: number(*key, position))
    return [items[position] for position in order]
