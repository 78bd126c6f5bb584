"""Results for programs and people: results.json, results.md, and report.html, all of the same content."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.runtime import storage
from pipeline.runtime.manifest import Outcome, Part
from pipeline.runtime.stage import StageRun
from train.evaluation.metrics import by_class, confusions
from train.evaluation.overview import notes_in_words, stands_out, variant_in_words
from train.evaluation.report import render
from train.evaluation.results import HeadResult
from train.evaluation.templates import shown
from train.models.clip import Clip, count_parameters

HEAD_RESULTS = "heads"
RESULTS = "results"

SHOWN_CLASSES = 10
"""Classes with the lowest accuracy, and confusions, that the files tell of; the tables hold all."""


def describe(result: HeadResult, common: Mapping[str, str], files: Sequence[str]) -> dict[str, Any]:
    """Return what results.json says of a head; classes by the first of its variants.

    Args:
        common: names of set and head.
        files: what the head drew, relative to the stage's folder.
    """
    described: dict[str, Any] = {**common, "rows": result.rows, "notes": result.notes}
    if files:
        described["files"] = list(files)
    if result.predictions:
        first = [p for p in result.predictions if p["variant"] == result.predictions[0]["variant"]]
        labels, predicted = [p["label"] for p in first], [p["predicted"] for p in first]
        wrong = [figure for figure in by_class(labels, predicted) if figure["value"] < 1]
        described["worst_classes"] = _named(wrong[:SHOWN_CLASSES])
        described["confusions"] = _named(confusions(labels, predicted)[:SHOWN_CLASSES])
    return described


def _named(figures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return figures with the first of each class's names."""
    names = ("label", "predicted", "taken_for")
    return [
        {key: shown(value) if key in names and value else value for key, value in figure.items()}
        for figure in figures
    ]


def write_results(
    stage: StageRun, outcomes: Sequence[Outcome], weights: str, model: Clip
) -> list[Part]:
    """Write results.json, results.md and report.html from what the heads left; return what was written."""
    sets: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        for part in outcome.parts.get(HEAD_RESULTS, []):
            head = json.loads(storage.read_bytes(stage.workspace.path(part.path)))
            sets.setdefault(head.pop("evalset"), []).append(head)
    results = {
        "model": {
            # Relative where it is the workspace's own, so that two runs in two folders are equal.
            "path": weights.removeprefix(storage.join(stage.workspace.root, "")),
            "sha256": _sha256(weights),
            "parameters": count_parameters(model),
            "resolution": model.spec.resolution,
            "embedding": model.spec.embed,
        },
        "sets": [{"evalset": name, "heads": heads} for name, heads in sets.items()],
    }
    parts = []
    for name, text in (
        ("results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n"),
        ("results.md", "\n".join(_markdown(results)) + "\n"),
        ("report.html", render(results, lambda name: _read(stage, name))),
    ):
        path = f"{stage.name}/{name}"
        storage.write_bytes(stage.workspace.path(path), text.encode("utf-8", "surrogatepass"))
        parts.append(stage.workspace.describe(path, rows=0))
    return parts


def _read(stage: StageRun, name: str) -> bytes:
    return storage.read_bytes(storage.join(stage.folder, name))


def _sha256(path: str) -> str:
    with storage.local_copy(path) as local, Path(local).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _markdown(results: Mapping[str, Any]) -> Iterator[str]:
    model = results["model"]
    yield f"# Evaluation of {_cell(model['path'])}"
    yield ""
    yield (
        f"{model['parameters']:,} parameters, pictures of {model['resolution']} pixels, "
        f"embeddings of {model['embedding']}; sha256 {model['sha256'][:16]}"
    )
    yield ""
    heading = "set", "head", "variant", "metric", "value", "95% interval", "chance", "pictures", "classes"  # fmt: skip
    yield from _table(
        heading,
        [
            _row(one["evalset"], head["head"], row)
            for one in results["sets"]
            for head in one["heads"]
            for row in head["rows"]
            if stands_out(head["head"], row["variant"])
        ],
    )
    for one in results["sets"]:
        for head in one["heads"]:
            if head["notes"] or head.get("files") or head.get("worst_classes"):
                yield from _details(one["evalset"], head)


def _row(evalset: str, head: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = "" if row["low"] is None else f"{row['low']:.1%} to {row['high']:.1%}"
    numbers = f"{row['value']:.2%}", interval, f"{row['chance']:.1%}", f"{row['images']:,}", f"{row['classes']:,}"  # fmt: skip
    return evalset, head, variant_in_words(head, row["variant"]), row["metric"], *numbers


def _details(evalset: str, head: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"## {evalset}, {head['head']}"
    if head["notes"]:
        yield ""
        yield "; ".join(f"{_cell(name)}: {_cell(v)}" for name, v in notes_in_words(head["notes"]))
    if head.get("worst_classes"):
        yield ""
        yield from _table(
            ("class", "right", "pictures", "most often taken for"),
            [
                (c["label"], f"{c['value']:.1%}", f"{c['images']:,}", _taken_for(c))
                for c in head["worst_classes"]
            ],
        )
    if head.get("confusions"):
        yield ""
        yield from _table(
            ("class", "taken for", "pictures", "of the class"),
            [
                (c["label"], c["predicted"], f"{c['images']:,}", f"{c['share']:.1%}")
                for c in head["confusions"]
            ],
        )
    for file in head.get("files", ()):
        yield ""
        yield f"{'!' if file.endswith('.png') else ''}[{file.rpartition('/')[2]}]({file})"


def _taken_for(figure: Mapping[str, Any]) -> str:
    if figure["taken_for"] is None:
        return ""
    return f"{figure['taken_for']} ({figure['taken_for_images']:,})"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (heading, ["---"] * len(heading), *rows):
        yield "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """Return text as it is meant, whatever Markdown would make of it."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
