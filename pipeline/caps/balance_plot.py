"""A picture of what a balance did to the distribution over queries, after those in MetaCLIP's paper."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

# In the order of drawing: name in QUERY_DISTRIBUTION, name in the picture, colour, width.
LINES = (
    ("matched", "matched, before", "#b3b7bd", 4.0),
    ("present", "present in the pairs kept", "#2e6f95", 2.0),
    ("selected", "selected by the query itself", "#d1495b", 2.0),
)
INCHES, DOTS_PER_INCH = (12.0, 5.6), 150
GREY = "#5f6368"
# Queries of one count are drawn as one step, whose sum a logarithmic axis bends.
BEND = np.linspace(0, 1, 17)


def draw(distribution: pa.Table, summary: pa.Table, stage: str) -> bytes:
    """Return a PNG of QUERY_DISTRIBUTION and BALANCE_SUMMARY.

    Queries stand in the order of their counts, those of each measure in its own. Left, the count of
    each; right, the counts summed from the rarest query on. The same tables and the same version of
    matplotlib give the same bytes.
    """
    # Half a second to import, which the command line need not wait for.
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.figure import Figure

    (facts,) = summary.to_pylist()
    most = max([facts["cap"], *distribution.column("count").to_pylist()])
    with rc_context(dict(rcParamsDefault)):
        figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
        each, summed = figure.subplots(1, 2)
        _prepare_counts(each, facts, most)
        _prepare_sums(summed, facts)
        for measure, label, colour, width in LINES:
            rows = distribution.filter(pc.equal(distribution.column("measure"), measure))
            style = {"color": colour, "linewidth": width, "solid_joinstyle": "round"}
            each.plot(*_counts(rows), **style, label=label)
            summed.plot(*_sums(rows, facts["matches"]), **style)
        each.legend(frameon=False, loc="lower right")
        figure.suptitle(_headline(facts, stage), x=0.008, ha="left", fontsize=12, linespacing=1.4)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _counts(rows: pa.Table) -> tuple[I64, I64]:
    """Return places and counts: each count at the first query that has it, and at the last."""
    count, below, up_to, queries = _steps(rows)
    places = np.stack([queries - below, queries - up_to + 1], axis=1).ravel()
    return places, np.repeat(count, 2)


def _sums(rows: pa.Table, matches: int) -> tuple[F64, F64]:
    """Return places and the counts summed up to there, as a share of `matches`."""
    count, below, up_to, queries = _steps(rows)
    first, last = (queries - below)[:, None], (queries - up_to + 1)[:, None]
    places = first ** (1 - BEND) * last**BEND
    before = rows.column("pairs_up_to").to_numpy() - count * (up_to - below)
    sums = before[:, None] + count[:, None] * (first - places + 1)
    return places.ravel(), (sums / max(matches, 1)).ravel()


def _steps(rows: pa.Table) -> tuple[I64, I64, I64, int]:
    up_to = rows.column("queries_up_to").to_numpy()
    below = up_to - rows.column("queries").to_numpy()
    return rows.column("count").to_numpy(), below, up_to, int(up_to[-1]) if len(up_to) else 0


def _prepare_counts(axes: "Axes", facts: Mapping[str, Any], most: int) -> None:
    _prepare(axes, facts)
    axes.set_title("pairs of each query", loc="left", color=GREY)
    # Limits before anything is drawn: matplotlib would look for them, and warn where all counts are 0.
    axes.set_ylim(0.8, 2 * most)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.axhline(facts["cap"], color="black", linewidth=1, linestyle=(0, (4, 3)), zorder=3)
    axes.annotate(
        f"cap {facts['cap']:,}",
        (0.02, facts["cap"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, 5),
        textcoords="offset points",
    )


def _prepare_sums(axes: "Axes", facts: Mapping[str, Any]) -> None:
    _prepare(axes, facts)
    axes.set_title(
        "pairs of all queries up to here, as a share of all matches", loc="left", color=GREY
    )
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    if facts["queries_over_cap"]:
        axes.axvspan(facts["queries_over_cap"], 1, color="#f4f1ea", zorder=0)
        axes.text(0.985, 0.015, "over the cap", transform=axes.transAxes, ha="right", color=GREY)


def _prepare(axes: "Axes", facts: Mapping[str, Any]) -> None:
    axes.set_xlim(max(facts["queries"] - facts["queries_unmatched"], 2), 1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("queries, the rarest first, by how many have as many pairs or more", color=GREY)
    axes.grid(visible=True, color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color="#c4c7cc")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c4c7cc")


def _headline(facts: Mapping[str, Any], stage: str) -> str:
    lines = [
        f"{stage}: {facts['kept']:,} of {facts['pairs']:,} pairs kept, at most {facts['cap']:,} on "
        "account of a query"
    ]
    if facts["matches"]:
        lines.append(
            f"{facts['queries'] - facts['queries_unmatched']:,} of {facts['queries']:,} queries have a "
            f"match; {facts['queries_over_cap']:,} are over the cap and hold "
            f"{1 - facts['tail_share']:.1%} of all matches"
        )
    return "\n".join(lines)
