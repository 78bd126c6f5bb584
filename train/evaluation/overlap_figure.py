"""The paper's picture of overlap: what seen pictures gain, against how many of a set are seen (figure 17)."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from train.evaluation.overlap import CONFIDENCE, SIGNIFICANCE, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Highest p-value, its name and colour; no two told apart by hue alone.
LEVELS: Final = (
    (0.001, "p < 0.001", "#1b1b1b"),
    (SIGNIFICANCE, "p < 0.05", "#d1495b"),
    (2.0, "p ≥ 0.05", "#b3b7bd"),
)
RING: Final = "#2e6f95"
GREY: Final = "#5f6368"
# With so few sets each is named; of more, those that a test or an interval singles out.
NAMED: Final = 8
# Of a panel; what a name takes.
LABEL_WIDTH, LABEL_HEIGHT = 0.25, 0.035


def draw(table: pa.Table) -> bytes:
    """Return a PNG of OVERLAP_ACCURACY.

    Left, accuracy on Overlap less that on Clean with its interval; right, that on All less Clean, which is
    the same times the share of overlap. The same table and version of matplotlib give the same bytes.
    """
    # Half a second to import, which the command line need not wait for.
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.figure import Figure

    rows = [row for row in table.to_pylist() if row["p_value"] is not None]
    with rc_context(dict(rcParamsDefault)):
        figure = Figure(figsize=(11.5, 5.2), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2)
        titles = {
            "difference": "Overlap − Clean, points of accuracy",
            "gain": "All − Clean, points of accuracy",
        }
        for axes, column in ((left, "difference"), (right, "gain")):
            _prepare(axes, titles[column])
            _draw_sets(axes, rows, column)
        if rows:
            handles, labels = left.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        else:
            left.text(0.5, 0.6, "no set has pictures of both kinds", transform=left.transAxes, ha="center", color=GREY)  # fmt: skip
        figure.suptitle(_headline(table), x=0.008, ha="left", fontsize=12)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw_sets(axes: "Axes", rows: Sequence[dict[str, Any]], column: str) -> None:
    least = 0.0
    for order, (most, name, colour) in enumerate(LEVELS):
        some = [row for row in rows if least <= row["p_value"] and row["p_value"] < most]
        least = most
        if some:
            # Where an end is the value itself, rounding may put it on the other side.
            below = [max(0.0, row[column] - row[f"{column}_low"]) for row in some]
            above = [max(0.0, row[f"{column}_high"] - row[column]) for row in some]
            ends = 100 * np.array([below, above])
            axes.errorbar(
                *_places(some, column), ends, fmt="o", color=colour, markersize=6,
                elinewidth=1.2, capsize=2.5, label=f"{name} ({len(some)})", zorder=5 - order,
            )  # fmt: skip
    ringed = [row for row in rows if row["p_bonferroni"] < SIGNIFICANCE]
    if ringed:
        axes.plot(
            *_places(ringed, column), "o", markersize=12, markerfacecolor="none",
            markeredgecolor=RING, zorder=6, label=f"p < {SIGNIFICANCE:g} / {len(rows)} (Bonferroni, {len(ringed)})",
        )  # fmt: skip
    widest = max([1.0, *_places(rows, column)[0]])
    axes.set_xlim(-0.02 * widest, 1.35 * widest)
    _name(axes, rows if len(rows) <= NAMED else list(filter(_stands_out, rows)), column)


def _places(rows: Sequence[dict[str, Any]], column: str) -> tuple[list[float], list[float]]:
    return [100 * row["overlap_share"] for row in rows], [100 * row[column] for row in rows]


def _name(axes: "Axes", rows: Sequence[dict[str, Any]], column: str) -> None:
    """Write names beside the points, from below, each above those it would cover.

    They lie over what is not significant, and under what is.
    """
    from matplotlib.patheffects import withStroke

    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    taken: list[tuple[float, float]] = []
    places = sorted(zip(*_places(rows, column), rows, strict=True), key=lambda place: place[:2][::-1])  # fmt: skip
    for x, y, row in places:
        at, height = (x - left) / (right - left), (y - bottom) / (top - bottom)
        for other, used in taken:
            if abs(at - other) < LABEL_WIDTH and abs(height - used) < LABEL_HEIGHT:
                height = used + LABEL_HEIGHT
        taken.append((at, height))
        text = f"{row['evalset']}, p {row['p_value']:.2g}"
        axes.text(
            at + 0.012, height + 0.012, text, transform=axes.transAxes, fontsize=8.5, color=GREY, zorder=3.5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _stands_out(row: dict[str, Any]) -> bool:
    outside = row["difference_low"] > 0 or row["difference_high"] < 0
    return bool(outside or row["p_value"] < SIGNIFICANCE)


def _headline(table: pa.Table) -> str:
    facts = summarise(table)
    return (
        f"Sets: {facts.sets}, without overlap {facts.without_overlap}; share of overlap: median "
        f"{facts.median_share:.1%}, mean {facts.mean_share:.1%}. Bars: {CONFIDENCE:.1%} Clopper-Pearson; "
        f"above 0: {facts.above}, below: {facts.below}"
    )


def _prepare(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", color=GREY, fontsize=11)
    axes.axhline(0, color="#c4c7cc", linewidth=1)
    axes.set_xlabel("pictures of the set that the corpus shows, %", color=GREY)
    axes.margins(y=0.1)
    axes.grid(visible=True, color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color="#c4c7cc")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c4c7cc")
