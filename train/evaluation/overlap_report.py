"""The overlap analysis in words and figures, as Markdown that reads in a terminal, too."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from train.evaluation.overlap import CONFIDENCE, SIGNIFICANCE, summarise

HEADINGS: Final = (
    "set", "pictures", "overlap", "share", "All", "Clean", "Overlap",
    "Overlap − Clean", f"{CONFIDENCE:.1%} interval", "All − Clean", "p", "p, Bonferroni",
)  # fmt: skip
NONE: Final = "–"


def markdown(table: pa.Table, notes: Sequence[str] = ()) -> str:
    """Return OVERLAP_ACCURACY as a table of percentages and points, and what all sets amount to."""
    cells = [HEADINGS, *(_cells(row) for row in table.to_pylist())]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in cells]
    rule = "-" * widths[0] + " |" + "|".join(" " + "-" * width + ":" for width in widths[1:])
    lines.insert(1, f"| {rule}|")
    return "\n".join([*lines, "", *_sentences(table), *(f"{note}." for note in notes), ""])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    interval = NONE
    if row["p_value"] is not None:
        interval = f"{_points(row['difference_low'])} to {_points(row['difference_high'])}"
    return (
        row["evalset"],
        f"{row['images']:,}",
        f"{row['overlap_images']:,}",
        f"{row['overlap_share']:.2%}",
        _percent(row["accuracy"]),
        _percent(row["clean_accuracy"]),
        _percent(row["overlap_accuracy"]),
        _points(row["difference"]),
        interval,
        _points(row["gain"]),
        _chance(row["p_value"]),
        _chance(row["p_bonferroni"]),
    )


def _sentences(table: pa.Table) -> list[str]:
    facts = summarise(table)
    return [
        f"Sets: {facts.sets}, without overlap {facts.without_overlap}; share of overlap: median "
        f"{facts.median_share:.1%}, mean {facts.mean_share:.1%}.",
        f"Tested: {facts.tested}; p < {SIGNIFICANCE}: {facts.significant}, after Bonferroni "
        f"{facts.significant_bonferroni}; intervals above 0: {facts.above}, below: {facts.below}.",
    ]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]  # fmt: skip


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.2%}"


def _points(share: float | None) -> str:
    return NONE if share is None else f"{round(100 * share, 2) + 0.0:+.2f}"


def _chance(p: float | None) -> str:
    return NONE if p is None else f"{p:.2g}"
