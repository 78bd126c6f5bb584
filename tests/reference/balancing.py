"""The cap as design says it: sort each query's pairs by priority and keep the first ones."""

from dataclasses import dataclass

Pairs = dict[str, list[int]]

_BITS = (1 << 64) - 1


def mix(number: int) -> int:
    """Return SplitMix64's output after one step from the state `number`."""
    z = (number + 0x9E3779B97F4A7C15) & _BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _BITS
    return z ^ (z >> 31)


def priority(pair_id: str, query: int, seed: int) -> int:
    high, low = int(pair_id[:16], 16), int(pair_id[16:], 16)
    return mix(mix(mix(query ^ mix(seed)) ^ low) ^ high)


def holders(pairs: Pairs, query: int, seed: int) -> list[tuple[int, str]]:
    """Return priority and id of every pair that the query matches, in the order of preference."""
    return sorted((priority(p, query, seed), p) for p, queries in pairs.items() if query in queries)


def selection(pairs: Pairs, cap: int, seed: int) -> dict[str, list[int]]:
    """Return, per kept pair, the queries that chose it."""
    chosen: dict[str, list[int]] = {}
    for query in sorted({q for ids in pairs.values() for q in ids}):
        for _, pair in holders(pairs, query, seed)[:cap]:
            chosen.setdefault(pair, []).append(query)
    return chosen


@dataclass(frozen=True)
class Counts:
    """One query's line of the report."""

    query_id: int
    matched: int
    selected: int
    present: int
    threshold: int | None


def counts(pairs: Pairs, cap: int, seed: int, queries: int) -> list[Counts]:
    """Return the report of a cap."""
    kept = selection(pairs, cap, seed)
    lines = []
    for query in range(queries):
        found = holders(pairs, query, seed)
        present = sum(query in pairs[pair] for pair in kept)
        threshold = found[cap - 1][0] if len(found) > cap else None
        lines.append(Counts(query, len(found), len(found[:cap]), present, threshold))
    return lines


def tail_share(pairs: Pairs, cap: int, queries: int) -> tuple[int, int]:
    """Return the matches of the queries with at most `cap`, and all matches."""
    matched = [sum(q in ids for ids in pairs.values()) for q in range(queries)]
    return sum(n for n in matched if n <= cap), sum(matched)
