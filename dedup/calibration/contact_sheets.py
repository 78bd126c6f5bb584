"""Contact sheets for a person to look at: the original beside what was, or was not, taken for its copy."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from dedup.calibration.calibrate import TOGETHER, Measured, Thresholds, found, methods_of
from dedup.calibration.distances import EMBEDDING, FARTHEST, MIRRORED, PDQ, THOUSAND
from dedup.calibration.edits import read_copy
from dedup.calibration.samples import Chosen, read_pictures
from dedup.evaluation.evalsets import EvalSet
from pipeline.pictures.contact_sheet import Section, Tile, draw_sheet
from pipeline.pictures.images import Pixels

_NAMES: Final = {MIRRORED: "PDQ, either way round", EMBEDDING: "embedding"}

SHOWN: Final = 12
# Copies of one edit that a sheet shows by a method: it is to show what each edit does.
OF_AN_EDIT: Final = 2


def draw_hits(measured: Measured, evalset: EvalSet, thresholds: Thresholds) -> bytes:
    """Return a PNG of the copies that were only just found, by each method."""
    chosen = [
        (_heading(method, thresholds), _pick(measured, method, thresholds, method, hits=True))
        for method in _methods(measured)
    ]
    return _draw_copies("Hits: the copies that were only just found", chosen, measured, evalset)


def draw_near_misses(measured: Measured, evalset: EvalSet, thresholds: Thresholds) -> bytes:
    """Return a PNG of the copies that were nearly found by each method, and of those found by none."""
    chosen = [
        (_heading(method, thresholds), _pick(measured, method, thresholds, method, hits=False))
        for method in _methods(measured)
    ]
    if TOGETHER in methods_of(measured):
        missed = _pick(measured, EMBEDDING, thresholds, TOGETHER, hits=False)
        chosen.append(("found by neither", missed))
    return _draw_copies("Near misses: copies that were just not found", chosen, measured, evalset)


def draw_false_alarms(
    measured: Measured, evalset: EvalSet, against: EvalSet, thresholds: Thresholds
) -> bytes:
    """Return a PNG of the unrelated pictures that are closest by each method."""
    others = measured.others or measured.pictures
    pairs = {
        method: [
            (measured.pictures.chosen[a], others.chosen[b], int(d))
            for a, b, d in list(zip(closest.ours, closest.theirs, closest.distance, strict=True))[
                :SHOWN
            ]
        ]
        for method, closest in measured.unrelated.closest.items()
        if method != PDQ
    }
    ours = read_pictures(evalset, {a for some in pairs.values() for a, _, _ in some})
    theirs = read_pictures(against, {b for some in pairs.values() for _, b, _ in some})
    sections = []
    for method, some in pairs.items():
        allowed = thresholds.allowed[method]
        tiles = [
            Tile(
                pictures=(ours[a], theirs[b]),
                lines=(
                    f"{_amount(method, far)}: {'TAKEN FOR A COPY' if far <= allowed else 'not taken for one'}",
                    f"{_short(a.item)} | {_short(b.item)}",
                ),
            )
            for a, b, far in some
        ]
        sections.append(Section(heading=_heading(method, thresholds), tiles=tiles))
    return draw_sheet("Closest of the unrelated pictures: are they really unrelated?", sections)


def _methods(measured: Measured) -> list[str]:
    return [method for method in _NAMES if method in measured.unrelated.counts]


def _heading(method: str, thresholds: Thresholds) -> str:
    allowed = _amount(method, thresholds.allowed[method])
    side = "from" if method == EMBEDDING else "up to"
    return f"by {_NAMES[method]}: copies are {side} {allowed}"


def _pick(
    measured: Measured, method: str, thresholds: Thresholds, by: str, *, hits: bool
) -> list[tuple[int, str, int]]:
    """Return the farthest copies that `by` finds, or the closest that it misses, by `method`.

    As picture, edit and distance; a picture once, an edit not too often.
    """
    ranked = []
    for edit, distances in measured.copies.items():
        is_found = found(distances, thresholds, by)
        for number in np.flatnonzero(is_found if hits else ~is_found).tolist():
            far = int(distances[method][number])
            ranked.append((-far if hits else far, edit, number))
    ranked.sort()
    edits: dict[str, int] = {}
    pictures: set[int] = set()
    picked: list[tuple[int, str, int]] = []
    for signed, edit, number in ranked:
        if len(picked) < SHOWN and number not in pictures and edits.get(edit, 0) < OF_AN_EDIT:
            edits[edit] = edits.get(edit, 0) + 1
            pictures.add(number)
            picked.append((number, edit, abs(signed)))
    return picked


def _draw_copies(
    title: str,
    chosen: Sequence[tuple[str, list[tuple[int, str, int]]]],
    measured: Measured,
    evalset: EvalSet,
) -> bytes:
    places = measured.sampled.chosen
    originals = read_pictures(evalset, {places[n] for _, some in chosen for n, _, _ in some})
    sections = [
        Section(heading=heading, tiles=list(_copies(some, places, originals, measured)))
        for heading, some in chosen
    ]
    return draw_sheet(title, sections)


def _copies(
    some: Sequence[tuple[int, str, int]],
    places: Sequence[Chosen],
    originals: dict[Chosen, Pixels],
    measured: Measured,
) -> Iterator[Tile]:
    for number, edit, _ in some:
        place = places[number]
        amounts = [
            _amount(method, int(distances[number]))
            for method, distances in measured.copies[edit].items()
            if method != PDQ
        ]
        yield Tile(
            pictures=(originals[place], read_copy(edit, originals[place], place.item)),
            lines=(edit, ", ".join(amounts)),
        )


def _amount(method: str, distance: int) -> str:
    if distance < 0:
        return "none"
    if method == EMBEDDING:
        return f"cosine {1 - distance / THOUSAND:.3f}"
    # No two clear pictures have ever been opposites.
    return f"{distance} bits" if distance < FARTHEST else "too blank for PDQ"


def _short(item: str, limit: int = 18) -> str:
    name = item.rpartition("/")[2]
    return name if len(name) <= limit else f"…{name[1 - limit :]}"
