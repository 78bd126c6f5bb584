"""The results of an evaluation as one HTML page that opens anywhere, without a network."""

import base64
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from train.evaluation.overview import notes_in_words, stands_out, variant_in_words
from train.evaluation.templates import shown


def render(results: Mapping[str, Any], read: Callable[[str], bytes]) -> str:
    """Return the page.

    Args:
        results: what results.json holds.
        read: returns the content of a file that `results` names.
    """
    # Classes and files are named by anybody: every text is escaped.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("train.evaluation").joinpath("report.html.jinja")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    sets = [_set(found, read) for found in results["sets"]]
    return template.render(model=results["model"], sets=sets, overview=_overview(sets))


def _overview(sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the top-1 accuracies; single corruptions, of which there are many, have their place below."""
    return [
        row | {"name": " · ".join(filter(None, (found["name"], head["name"], row["words"])))}
        for found in sets
        for head in found["heads"]
        for row in head["rows"]
        if row["metric"] == "top1" and stands_out(head["head"], row["variant"])
    ]


def _set(found: Mapping[str, Any], read: Callable[[str], bytes]) -> dict[str, Any]:
    heads = [
        {
            "head": head["head"],
            "name": head["head"].replace("_", " "),
            "rows": [_row(head["head"], row) for row in head["rows"]],
            "grid": _grid(head["rows"]) if head["head"] == "robustness" else [],
            "notes": notes_in_words(head["notes"]),
            "worst_classes": head.get("worst_classes", []),
            "confusions": head.get("confusions", []),
            "pictures": [
                {"name": name.rpartition("/")[2], "data": base64.b64encode(read(name)).decode()}
                for name in head.get("files", [])
                if name.endswith(".png")
            ],
        }
        for head in found["heads"]
    ]
    return {"name": found["evalset"], "heads": heads}


def _grid(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return accuracies by corruption and severity, with the mean and the drop, a heading first."""
    values = {(row["variant"], row["metric"]): row["value"] for row in rows}
    pairs = [
        variant.split("/") for variant, metric in values if metric == "top1" and "/" in variant
    ]
    names, severities = (list(dict.fromkeys(column)) for column in zip(*pairs, strict=True))
    grid = [["corruption", *(f"severity {s}" for s in severities), "mean", "drop, points"]]
    for name in names:
        accuracies = [values[f"{name}/{s}", "top1"] for s in severities] + [values[name, "top1"]]
        drop = f"{100 * values[name, 'drop']:.1f}"
        grid.append([name.replace("_", " "), *(f"{a:.1%}" for a in accuracies), drop])
    return grid


def _row(head: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with where its bar lies, in percent of the track."""
    words = variant_in_words(head, shown(row["variant"]))
    name = " · ".join(filter(None, (words, row["metric"].replace("_", " "))))
    at = 100 * row["value"] if 0 <= row["value"] <= 1 else None
    placed = {**row, "words": words, "name": name, "at": at}
    if row["low"] is not None:
        left, right = (100 * min(max(edge, 0), 1) for edge in (row["low"], row["high"]))
        placed |= {"left": left, "width": right - left}
    return placed
