"""Measure which edited copies are found, and how many unrelated pictures are taken for copies.

Pictures of a set are edited and compared with themselves, and with unrelated pictures. Each threshold
of each method then has a recall for each edit and a number of false alarms, from which thresholds for a
budget of false alarms follow.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.calibration.distances import (
    EMBEDDING,
    LEVELS,
    MIRRORED,
    PDQ,
    THOUSAND,
    Counts,
    Distances,
    Looks,
    Unrelated,
    compare,
    count_unrelated,
)
from dedup.calibration.edits import EDITS
from dedup.calibration.samples import (
    AS_IS,
    FIRST_COPY,
    REVERSED,
    Described,
    choose,
    describe,
    priority,
)
from dedup.embedding.networks import Device
from dedup.evaluation.evalsets import EvalSet
from pipeline import schemas
from pipeline.errors import InputError
from pipeline.intervals import clopper_pearson, upper_end
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.progress import Progress

TOGETHER: Final = "together"
"""PDQ, upright or mirrored, or the embedding: what `dedup --evalsets` drops for where a model is named."""

MILLION: Final = 1_000_000
# The largest `max_distance` that an evaluation set may have.
MOST_BITS: Final = 63
CLOSEST: Final = 1000
# Looser thresholds are of no use to anybody.
MOST_SHARE: Final = 0.001
# Beyond, a rate is known to within two percent, and its bounds would take long.
MOST_BOUNDED: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Distances up to which pictures count as copies, by method; -1 where none does."""

    allowed: Mapping[str, int]

    @property
    def max_distance(self) -> int | None:
        """Differing PDQ bits, as in a table of `evalsets.toml`."""
        bits = self.allowed.get(MIRRORED, self.allowed.get(PDQ, -1))
        return bits if bits >= 0 else None

    @property
    def min_similarity(self) -> float | None:
        """Cosine, likewise."""
        steps = self.allowed.get(EMBEDDING, -1)
        return round(1 - steps / THOUSAND, 3) if steps >= 0 else None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that a calibration has seen.

    Attributes:
        pictures: the pictures of the set, `sampled` those of them that were edited.
        others: the unrelated pictures; None where they are those of the set themselves.
        unrelated: what was seen of pairs of both.
        copies: distances of each edited copy to its original, by edit and method.
        strange: by edit and method, how many copies are at each distance from another's original.
    """

    pictures: Described
    sampled: Described
    others: Described | None
    unrelated: Unrelated
    copies: Mapping[str, Mapping[str, Distances]]
    strange: Mapping[str, Mapping[str, Counts]]


def measure(
    evalset: EvalSet,
    against: EvalSet | None,
    executor: Executor,
    *,
    sample: int,
    unrelated: int,
    model: str = "",
    device: Device = "auto",
    min_quality: int = 50,
    same: str = "",
) -> Measured:
    """Edit, hash, embed and compare.

    Args:
        against: set of unrelated pictures; None for all pairs of different pictures of `evalset`.
        sample: pictures to edit.
        unrelated: pictures of either side to compare at most.
        min_quality: pictures whose PDQ quality is lower are not compared by PDQ.
        same: CSV file of pairs that are not unrelated, with columns `item` and `other`.

    Raises:
        InputError: a set, or `same`, cannot be read, or there is but one picture.
        ConfigError: the model cannot be used.
        TaskFailed: a set cannot be read to its end.
    """
    if model:
        from dedup.embedding.embedding_models import check_model

        check_model(model)
    chosen = choose(evalset, max(sample, unrelated))
    first = set(sorted(chosen, key=priority)[:sample])
    describe_by = partial(describe, executor=executor, model=model, device=device)
    plain = describe_by(evalset, chosen, title="pictures")
    edited = [place for place in plain.chosen if place in first]
    sampled = describe_by(evalset, edited, edits=tuple(EDITS), title="copies")
    others = None
    if against is not None:
        others = describe_by(against, choose(against, unrelated), title="unrelated")
    if not others and len(plain.chosen) < 2:
        raise InputError(f"{evalset.where} holds one picture, expected two or more, or --against")
    known = _known_same(same, plain, others)
    seen = _count_unrelated(plain, others, known, min_quality)
    copies, strange = _compare_copies(sampled, min_quality)
    return Measured(
        pictures=plain,
        sampled=sampled,
        others=others,
        unrelated=seen,
        copies=copies,
        strange=strange,
    )


def propose(unrelated: Unrelated, budget: float) -> Thresholds:
    """Return the loosest thresholds with at most `budget` false alarms per million pairs seen.

    PDQ and the embedding, if there is one, have an equal share of it, so that both together keep to it.
    Where the pairs are fewer than a million over the budget, no pair seen may be a false alarm.
    """
    allowed = int(budget * unrelated.pairs / MILLION)
    return _thresholds(unrelated, allowed)


def tabulate(measured: Measured, evalset: str, against: str) -> pa.Table:
    """Return CALIBRATION: each method and edit at each threshold that anybody may want."""
    unrelated = measured.unrelated
    rows: list[dict[str, Any]] = []
    for thresholds, methods in _grid(unrelated):
        for method in methods:
            alarms = count_alarms(unrelated.counts, thresholds, method)
            about = {
                "evalset": evalset,
                "against": against,
                "method": method,
                "max_distance": thresholds.max_distance if method != EMBEDDING else None,
                "min_similarity": thresholds.min_similarity
                if method in (EMBEDDING, TOGETHER)
                else None,
                "unrelated": unrelated.pairs,
                "false_alarms": alarms,
                "per_million": MILLION * alarms / unrelated.pairs,
                "per_million_high": bound(alarms, unrelated.pairs),
            }
            rows += [
                about | _of_edit(measured, edit, thresholds, method) for edit in measured.copies
            ]
    return pa.Table.from_pylist(rows, schemas.CALIBRATION)


def found(
    distances: Mapping[str, npt.NDArray[np.int16]], thresholds: Thresholds, method: str
) -> npt.NDArray[np.bool_]:
    """Return which pairs, whose distances are given by method, count as copies."""
    parts = (MIRRORED, EMBEDDING) if method == TOGETHER else (method,)
    is_found = np.zeros(len(distances[parts[0]]), np.bool_)
    for part in parts:
        is_found |= distances[part] <= thresholds.allowed.get(part, -1)
    return is_found


def count_alarms(counts: Mapping[str, Counts], thresholds: Thresholds, method: str) -> int:
    """Return how many pairs count as copies; together: what either says, summed, so at most so many."""
    parts = (MIRRORED, EMBEDDING) if method == TOGETHER else (method,)
    return sum(int(counts[part][: thresholds.allowed.get(part, -1) + 1].sum()) for part in parts)


def bound(alarms: int, pairs: int) -> float | None:
    """Return the rate per million that is not exceeded with 95% confidence; None for many alarms.

    Of none in n that is 3/n. Exact for independent pairs (Clopper and Pearson, 1934).
    """
    if alarms > MOST_BOUNDED:
        return None
    return MILLION * upper_end(alarms, pairs, 0.05)


def methods_of(measured: Measured) -> tuple[str, ...]:
    """Return the methods that were compared, and `TOGETHER` where there are two kinds."""
    methods = tuple(measured.unrelated.counts)
    return (*methods, TOGETHER) if EMBEDDING in methods else methods


def closest_csv(measured: Measured) -> bytes:
    """Return the closest unrelated pairs as CSV: what a person judges, and `same` then reads."""
    others = measured.others or measured.pictures
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "distance", "item", "other"])
    for method, pairs in measured.unrelated.closest.items():
        for ours, theirs, distance in zip(pairs.ours, pairs.theirs, pairs.distance, strict=True):
            shown = distance / THOUSAND if method == EMBEDDING else distance
            names = measured.pictures.chosen[ours].item, others.chosen[theirs].item
            writer.writerow([method, shown, *names])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _looks(described: Described, version: int, min_quality: int) -> Looks:
    """Return one version of the pictures: the originals, or the copies under one edit."""
    upright = version if version >= FIRST_COPY else AS_IS
    return Looks(
        upright=described.words[:, upright],
        mirrored=described.words[:, REVERSED],
        is_clear=described.quality[:, upright] >= min_quality,
        vectors=described.vectors[:, max(0, upright - 1)],
    )


def _count_unrelated(
    plain: Described, others: Described | None, same: npt.NDArray[np.int64], min_quality: int
) -> Unrelated:
    ours = _looks(plain, AS_IS, min_quality)
    theirs = _looks(others, AS_IS, min_quality) if others else None
    hashes = [*plain.pixel_hash, *(others.pixel_hash if others else ())]
    numbers = np.unique(np.array(hashes), return_inverse=True)[1].astype(np.int64)
    alike = (numbers[: len(ours)], numbers[len(ours) :] if others else numbers)
    seen = None
    with Progress("compared", 1, unit="") as progress:
        for seen in count_unrelated(ours, theirs, same, alike, keep=CLOSEST):
            progress.advance(0, pairs=f"{seen.pairs:,}")
        progress.advance()
    if seen is None or not seen.pairs:
        raise InputError("all pictures are the same, expected unrelated ones to compare with")
    return seen


def _compare_copies(
    sampled: Described, min_quality: int
) -> tuple[dict[str, dict[str, Distances]], dict[str, dict[str, Counts]]]:
    originals = _looks(sampled, AS_IS, min_quality)
    own = np.eye(len(originals), dtype=np.bool_)
    hashes = np.array(sampled.pixel_hash)
    others = hashes[:, None] != hashes[None]
    copies: dict[str, dict[str, Distances]] = {}
    strange: dict[str, dict[str, Counts]] = {}
    for number, edit in enumerate(EDITS):
        distances = compare(originals, _looks(sampled, FIRST_COPY + number, min_quality))
        copies[edit] = {method: distance[own] for method, distance in distances.items()}
        strange[edit] = {
            method: np.bincount(distance[others], minlength=LEVELS[method])
            for method, distance in distances.items()
        }
    return copies, strange


def _known_same(path: str, plain: Described, others: Described | None) -> npt.NDArray[np.int64]:
    """Return the positions of pairs that a file says are of the same picture."""
    if not path:
        return np.empty((0, 2), np.int64)
    rows = list(
        csv.DictReader(io.StringIO(storage.read_bytes(path).decode("utf-8", "surrogateescape")))
    )
    if rows and not {"item", "other"} <= rows[0].keys():
        raise InputError(
            f"{path} has columns {', '.join(map(str, rows[0]))}, expected item and other"
        )
    ours = _positions(plain)
    theirs = _positions(others or plain)
    pairs = [
        (a, b)
        for row in rows
        for a in ours.get(row["item"], [])
        for b in theirs.get(row["other"], [])
    ]
    # Of one set, each pair is compared once, the earlier picture first.
    pairs = pairs if others else [(min(pair), max(pair)) for pair in pairs]
    return np.array(sorted(set(pairs)), np.int64).reshape(-1, 2)


def _positions(described: Described) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for position, place in enumerate(described.chosen):
        positions.setdefault(place.item, []).append(position)
    return positions


def _thresholds(unrelated: Unrelated, alarms: int) -> Thresholds:
    """Return the loosest thresholds with so many false alarms in all."""
    parts = [method for method in unrelated.counts if method != PDQ]
    each = alarms // len(parts)
    loosest = {
        method: int(np.searchsorted(np.cumsum(unrelated.counts[method]), each, side="right")) - 1
        for method in parts
    }
    loosest[MIRRORED] = min(MOST_BITS, loosest[MIRRORED])
    if EMBEDDING in loosest:
        loosest[EMBEDDING] = min(THOUSAND, loosest[EMBEDDING])
    return Thresholds(allowed={PDQ: loosest[MIRRORED], **loosest})


def _grid(unrelated: Unrelated) -> Iterator[tuple[Thresholds, Sequence[str]]]:
    """Yield thresholds and the methods to which they belong."""
    most = MOST_SHARE * unrelated.pairs
    for method, counts in unrelated.counts.items():
        end = int(np.searchsorted(np.cumsum(counts), most, side="right"))
        step = 5 if method == EMBEDDING else 1
        for distance in range(0, max(end, 1), step):
            yield Thresholds(allowed={method: distance}), (method,)
    if EMBEDDING in unrelated.counts:
        alarms = 0
        before: Thresholds | None = None
        while alarms <= most:
            thresholds = _thresholds(unrelated, alarms)
            if thresholds != before:
                yield thresholds, (TOGETHER,)
            before, alarms = thresholds, max(alarms + 1, int(1.2 * alarms))


def _of_edit(measured: Measured, edit: str, thresholds: Thresholds, method: str) -> dict[str, Any]:
    is_found = found(measured.copies[edit], thresholds, method)
    hits = int(is_found.sum())
    low, high = _interval(hits, len(is_found))
    strange = measured.strange[edit]
    return {
        "edit": edit,
        "copies": len(is_found),
        "found": hits,
        "recall": hits / len(is_found),
        "recall_low": low,
        "recall_high": high,
        "edited_unrelated": int(strange[PDQ].sum()),
        "edited_false_alarms": count_alarms(strange, thresholds, method),
    }


@cache
def _interval(hits: int, trials: int) -> tuple[float, float]:
    return clopper_pearson(hits, trials)
