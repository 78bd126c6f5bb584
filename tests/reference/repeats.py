"""Repeated pairs found the slow way: remember all that came before."""

from collections.abc import Sequence


def repeated_places(chunks: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Return chunk and row of every id that stood in an earlier place."""
    seen: set[str] = set()
    places = []
    for number, chunk in enumerate(chunks):
        for row, pair_id in enumerate(chunk):
            if pair_id in seen:
                places.append((number, row))
            seen.add(pair_id)
    return places
