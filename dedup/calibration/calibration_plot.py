"""A picture of what each method finds at the price of how many false alarms."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Family, its edits, and its colour, that no two be told apart by hue alone.
FAMILIES: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "JPEG, size": (
        ("jpeg 90", "jpeg 70", "jpeg 50", "jpeg 30", "jpeg 20", "half size", "quarter size"),
        "#1b1b1b",
    ),
    "light, grey, blur, noise": (
        ("grey", "brighter 30%", "darker 30%", "blur", "noise"),
        "#8a8d91",
    ),
    "flip": (("flip",), "#2e6f95"),
    "crop to 90%, 80%": (("crop 90%", "crop 80%"), "#d1495b"),
    "crop to 70%, 60%": (("crop 70%", "crop 60%"), "#eda3ad"),
    "rotated by 5°": (("rotate 5°",), "#7a5195"),
    "caption bar, border, watermark": (("caption bar", "border", "watermark"), "#3f8f5b"),
    "several at once": (
        (
            "crop 90%, half size, jpeg 50",
            "flip, caption bar, jpeg 70",
            "brighter 30%, border, watermark",
        ),
        "#c98a1b",
    ),
}
TITLES: Final = {
    "pdq_mirrored": "PDQ, either way round",
    "embedding": "embedding",
    "together": "together",
}
GREY: Final = "#5f6368"
LEAST: Final = 0.3


def draw(table: pa.Table) -> bytes:
    """Return a PNG of CALIBRATION: recall of each family of edits against false alarms per million pairs.

    The same table and the same version of matplotlib give the same bytes.
    """
    # Half a second to import, which the command line need not wait for.
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.figure import Figure

    present = set(table.column("method").to_pylist())
    methods = [method for method in TITLES if method in present]
    # Where no alarm was seen, a rate of less than one pair is drawn.
    pairs = table.column("unrelated")[0].as_py()
    none_seen = LEAST * 1e6 / pairs
    with rc_context(dict(rcParamsDefault)):
        figure = Figure(figsize=(1.2 + 3.9 * len(methods), 4.8), dpi=150, layout="constrained")
        panels: Sequence[Axes] = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
        for axes, method in zip(panels, methods, strict=True):
            rows = table.filter(pc.equal(table.column("method"), method))
            _prepare(axes, TITLES[method], none_seen)
            for name, (edits, colour) in FAMILIES.items():
                rates, recalls = _curve(rows, edits, none_seen)
                axes.plot(
                    rates, recalls, "o-", color=colour, markersize=2.5, linewidth=1.6, label=name
                )
        panels[0].set_ylabel("share of edited copies found", color=GREY)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        facts = table.slice(0, 1).to_pylist()[0]
        figure.suptitle(
            f"{facts['copies']:,} pictures of {facts['evalset']}, each under every edit, and "
            f"{pairs:,} pairs of unrelated pictures of {facts['against']}",
            x=0.008,
            ha="left",
            fontsize=12,
        )
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _curve(
    rows: pa.Table, edits: Sequence[str], none_seen: float
) -> tuple[list[float], list[float]]:
    """Return rates, ascending, and the best mean recall of some edits at each."""
    some = rows.filter(pc.is_in(rows.column("edit"), pa.array(edits)))
    found: dict[float, float] = {}
    by_threshold = some.group_by(["max_distance", "min_similarity", "per_million"])
    for row in by_threshold.aggregate([("recall", "mean")]).to_pylist():
        rate = row["per_million"] or none_seen
        found[rate] = max(found.get(rate, 0.0), row["recall_mean"])
    rates = sorted(found)
    return rates, [found[rate] for rate in rates]


def _prepare(axes: "Axes", title: str, none_seen: float) -> None:
    axes.set_title(title, loc="left", color=GREY, fontsize=11)
    axes.set_ylim(-0.02, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xscale("log")
    axes.set_xlim(none_seen * 0.6, 2000)
    ticks = [tick for tick in (0.01, 0.1, 1, 10, 100, 1000) if tick > 2 * none_seen]
    axes.set_xticks([none_seen, *ticks], ["none", *(f"{tick:g}" for tick in ticks)])
    axes.minorticks_off()
    axes.set_xlabel("false alarms per million pairs", color=GREY)
    axes.grid(visible=True, color="#ececec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color="#c4c7cc")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c4c7cc")
