"""What a calibration says in words and figures: the table that is printed, the lines for `evalsets.toml`."""

from typing import Final

from dedup.calibration.calibrate import (
    MILLION,
    TOGETHER,
    Measured,
    Thresholds,
    bound,
    count_alarms,
    found,
    methods_of,
)
from dedup.calibration.distances import EMBEDDING, MIRRORED, PDQ

HEADINGS: Final = {
    PDQ: "PDQ upright",
    MIRRORED: "PDQ",
    EMBEDDING: "embedding",
    TOGETHER: "together",
}


def print_report(measured: Measured, thresholds: Thresholds, budget: float) -> None:
    """Print recall by edit and method at the proposed thresholds, false alarms, and what to set."""
    methods = methods_of(measured)
    _print_sizes(measured)
    print()
    print(f"{'copies found':<32}" + "".join(f"{HEADINGS[method]:>13}" for method in methods))
    for edit, distances in measured.copies.items():
        shares = [found(distances, thresholds, method).mean() for method in methods]
        print(f"{edit:<32}" + "".join(f"{share:>13.1%}" for share in shares))
    pairs = measured.unrelated.pairs
    print()
    alarms = [count_alarms(measured.unrelated.counts, thresholds, method) for method in methods]
    print(f"{'false alarms':<32}" + "".join(f"{count:>13,}" for count in alarms))
    print(
        f"{'  per million, at most (95%)':<32}"
        + "".join(f"{bound(count, pairs) or MILLION * count / pairs:>13.3g}" for count in alarms)
    )
    edited = sum(int(counts[PDQ].sum()) for counts in measured.strange.values())
    strange = [
        sum(count_alarms(counts, thresholds, method) for counts in measured.strange.values())
        for method in methods
    ]
    print(f"{'  with edited copies of others':<32}" + "".join(f"{count:>13,}" for count in strange))
    print(f"  of {pairs:,} pairs, and of {edited:,} of an edited copy and another's original")
    print()
    for line in toml_lines(measured, thresholds, budget):
        print(line)


def toml_lines(measured: Measured, thresholds: Thresholds, budget: float) -> list[str]:
    """Return the proposed settings, as lines of a set's table in `evalsets.toml`, and what they rest on."""
    pairs = measured.unrelated.pairs
    method = TOGETHER if EMBEDDING in measured.unrelated.counts else MIRRORED
    alarms = count_alarms(measured.unrelated.counts, thresholds, method)
    most = bound(alarms, pairs)
    rate = f"at most {most:.3g}" if most is not None else f"{MILLION * alarms / pairs:,.0f}"
    lines = [
        f"# {alarms:,} of {pairs:,} unrelated pairs count as copies: {rate} per million (95% confidence)"
    ]
    if most is not None and most > budget:
        lines.append(f"# more unrelated pictures are needed to vouch for {budget:g} per million")
    if thresholds.max_distance is not None:
        lines.append(f"max_distance = {thresholds.max_distance}")
    else:
        lines.append("# no max_distance keeps to the budget: unrelated pairs have equal PDQ hashes")
    if thresholds.min_similarity is not None:
        lines.append(f"min_similarity = {thresholds.min_similarity}")
    elif EMBEDDING in measured.unrelated.counts:
        lines.append(
            "# no min_similarity keeps to the budget: unrelated pairs have equal embeddings"
        )
    return lines


def _print_sizes(measured: Measured) -> None:
    seen = measured.unrelated
    print(f"{len(measured.sampled.chosen):,} pictures, each under {len(measured.copies)} edits")
    if measured.others:
        sides = f"{len(measured.pictures.chosen):,} pictures with {len(measured.others.chosen):,}"
    else:
        sides = f"{len(measured.pictures.chosen):,} pictures with each other"
    print(f"{seen.pairs:,} pairs of unrelated pictures: {sides}")
    if seen.same:
        print(
            f"{seen.same:,} more pairs have the same pixels, or are said to be the same: not counted"
        )
    refused = [*measured.pictures.refused, *(measured.others.refused if measured.others else ())]
    if refused:
        print(f"{len(refused):,} pictures cannot be decoded, the first: {refused[0]}")
