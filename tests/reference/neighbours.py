"""What dedup decides, the slow and obvious way: every pair of pictures is compared."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


def distance(a: bytes, b: bytes) -> int:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def find_near(
    queries: Sequence[bytes], targets: Sequence[bytes], radius: int
) -> list[tuple[int, int, int]]:
    """Return (query, target, distance) of all pairs within `radius`, in order."""
    return [
        (i, j, distance(query, target))
        for i, query in enumerate(queries)
        for j, target in enumerate(targets)
        if distance(query, target) <= radius
    ]


def keep_first(hashes: Sequence[bytes], radius: int) -> list[int]:
    """Return for each hash the first kept one within `radius` before it, or -1 if it is kept."""
    leaders: list[int] = []
    for i, candidate in enumerate(hashes):
        near = [j for j in range(i) if leaders[j] < 0 and distance(candidate, hashes[j]) <= radius]
        leaders.append(near[0] if near else -1)
    return leaders


@dataclass(frozen=True, kw_only=True)
class Pair:
    pair_id: str
    url: str
    sha256: str
    pixels: str
    pdq: bytes | None
    width: int
    height: int
    caption: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    duplicate_of: str
    method: str
    distance: int


def preference(pair: Pair) -> tuple[int, int, str]:
    return -pair.width * pair.height, -len(pair.caption), pair.pair_id


def deduplicate(
    pairs: Sequence[Pair], radius: int, earlier: Collection[str] = ()
) -> dict[str, Verdict]:
    """Return what each dropped pair is dropped for, by pair id; those of `earlier` are preferred."""
    left = sorted(pairs, key=lambda pair: (pair.pair_id not in earlier, *preference(pair)))
    dropped_for: dict[str, tuple[Pair, str]] = {}
    for method, is_same in (
        ("same_url", lambda a, b: a.url == b.url),
        ("same_bytes", lambda a, b: a.sha256 == b.sha256),
        ("same_pixels", lambda a, b: a.pixels == b.pixels),
        ("near_duplicate", lambda a, b: _is_near(a, b, radius)),
    ):
        kept: list[Pair] = []
        for pair in left:
            better = next((other for other in kept if is_same(pair, other)), None)
            if better is None:
                kept.append(pair)
            else:
                dropped_for[pair.pair_id] = (better, method)
        left = kept
    by_id = {pair.pair_id: pair for pair in pairs}
    return {pair_id: _end_of_chain(by_id[pair_id], dropped_for) for pair_id in dropped_for}


def _is_near(a: Pair, b: Pair, radius: int) -> bool:
    return a.pdq is not None and b.pdq is not None and distance(a.pdq, b.pdq) <= radius


def _end_of_chain(pair: Pair, dropped_for: dict[str, tuple[Pair, str]]) -> Verdict:
    methods, bits, at = [], 0, pair
    while at.pair_id in dropped_for:
        better, method = dropped_for[at.pair_id]
        if method == "near_duplicate" and at.pdq and better.pdq:
            bits = distance(at.pdq, better.pdq)
        methods.append(method)
        at = better
    order = ["same_bytes", "same_pixels", "near_duplicate", "same_url"]
    loosest = max(methods, key=order.index)
    return Verdict(
        duplicate_of=at.pair_id, method=loosest, distance=0 if loosest == "same_url" else bits
    )
