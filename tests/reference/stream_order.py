"""Which samples a stream gives, said plainly: everything in memory, one sample after the other.

Sources are lists of shards, shards are lists of names.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import count, pairwise

from train.samples.order import RUNS_IN_WINDOW, permute

Shards = Sequence[Sequence[str]]
Run = tuple[int, int, list[str]]


def samples_in_order(
    sources: Sequence[tuple[Shards, Fraction]], *, window: int, seed: int
) -> Iterator[tuple[int, int, str]]:
    """Yield epoch, turn of the source and name of every sample, without end."""
    for epoch in count():
        pieces: list[tuple[int, list[str]]] = []
        for number, (shards, weight) in enumerate(sources):
            pieces += pieces_of_source(number, shards, weight, window, seed, epoch)
        shuffled = [pieces[i] for i in permute(len(pieces), f"{seed}:{epoch}:shards")]
        place, held = 0, []
        for i, (turn, names) in enumerate(shuffled):
            held += [(epoch, turn, name) for name in names]
            if len(held) >= window or i == len(shuffled) - 1:
                yield from (held[j] for j in permute(len(held), f"{seed}:{epoch}:{place}"))
                place, held = place + len(held), []


def pieces_of_source(
    number: int, shards: Shards, weight: Fraction, window: int, seed: int, epoch: int
) -> list[tuple[int, list[str]]]:
    """Return what an epoch reads of one source: turn and names of each run."""
    runs = [run for shard in range(len(shards)) for run in runs_of(shard, shards[shard], window)]
    total = sum(len(names) for _, _, names in runs)
    begin, end = int(epoch * weight * total), int((epoch + 1) * weight * total)
    pieces = []
    for turn in range(begin // total if total else 0, -(-end // total) if total else 0):
        low, high = turn * total, (turn + 1) * total
        if begin <= low and high <= end:
            pieces += [(turn, names) for _, _, names in runs]
            continue
        # The turn's own sequence, of which the epoch has a part.
        place = low
        kept: dict[int, list[str]] = {}
        for i in permute(len(runs), f"{seed}:{turn}:{number}:turn"):
            shard, first, names = runs[i]
            inside = [max(begin - place, 0), min(end - place, len(names))]
            place += len(names)
            if inside == [0, len(names)]:
                kept[i] = names
            elif inside[0] < inside[1]:
                order = permute(len(names), f"{seed}:{turn}:{number}:{shard}:{first}")
                kept[i] = [names[j] for j in order][slice(*inside)]
        pieces += [(turn, kept[i]) for i in sorted(kept)]
    return pieces


def runs_of(shard: int, names: Sequence[str], window: int) -> list[Run]:
    """Cut a shard into equal runs of at most an eighth of a window."""
    parts = -(-len(names) // max(window // RUNS_IN_WINDOW, 1))
    edges = [i * len(names) // parts for i in range(parts + 1)] if parts else []
    return [(shard, first, list(names[first:last])) for first, last in pairwise(edges)]
