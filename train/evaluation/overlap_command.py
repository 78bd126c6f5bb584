"""The command `witmill overlap`: what pictures that the corpus shows do to the accuracy."""

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipeline import schemas
from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

ZERO_SHOT = "zero_shot"


def overlap(
    workspace: str,
    *,
    evaluation: str = "",
    only: Annotated[list[str] | None, Parameter(negative="")] = None,
    templates: str = "",
    output: Annotated[str, Parameter(name=["--output", "-o"])] = "overlap",
) -> int:
    """Compare the accuracy on pictures that the corpus shows with that on all others.

    The corpus must be one that `witmill dedup --evalsets SETS.toml --no-drop-overlaps` compared with
    the sets. Writes overlap.parquet, overlap.json, overlap.md and the figure overlap.png.

    Example: `witmill overlap runs/first`

    Example: `witmill overlap runs/first --evaluation other-model --only cifar10`

    Args:
        workspace: of the corpus.
        evaluation: workspace or folder in which `witmill evaluate` ran; default: the corpus's own.
        only: set to analyse, may be given several times; default: all that were evaluated.
        templates: which caption templates' predictions to take; default: the first of the evaluation.
        output: folder to write.
    """
    corpus = Workspace(root=workspace)
    measured = Workspace(root=evaluation) if evaluation else corpus
    corpus.require()
    measured.require()
    from train.evaluation.shown import check_sets, compared, read_shown

    dedup = compared(corpus)
    evaluated = measured.finished("evaluate")
    predictions = _predictions(measured, evaluated, templates)
    present = list(dict.fromkeys(predictions.column("evalset").to_pylist()))
    evalsets = _chosen(present, only)
    check_sets(evalsets, dedup, evaluated, corpus.root)
    shown = read_shown(corpus, dedup)
    from train.evaluation.overlap import analyse, count_hits

    table = analyse(count_hits(predictions, shown.items, evalsets))
    gone = shown.met - shown.left
    notes = [
        f"Evaluation pictures that pairs of {shown.stage} show: {shown.left:,}"
        + (f"; that only pairs showed which were dropped: {gone:,}" if gone else ""),
        *_about_model(corpus, measured),
    ]
    _write(table, notes, output)
    return 0


def _predictions(measured: Workspace, evaluated: Manifest, templates: str) -> "pa.Table":
    """Return PREDICTIONS of the zero-shot classifier by one choice of templates."""
    import pyarrow.compute as pc

    table = measured.read_table("evaluate", "predictions", schemas.PREDICTIONS)
    table = table.filter(pc.equal(table.column("head"), ZERO_SHOT))
    if not len(table):
        raise ConfigError(
            f"evaluate in {measured.root} has no zero-shot predictions; run `witmill evaluate` with them"
        )
    variants = list(dict.fromkeys(table.column("variant").to_pylist()))
    chosen = templates or variants[0]
    if chosen not in variants:
        raise ConfigError(f"templates is {chosen}, expected one of: {', '.join(variants)}")
    return table.filter(pc.equal(table.column("variant"), chosen))


def _chosen(present: list[str], only: list[str] | None) -> list[str]:
    missing = [name for name in only or () if name not in present]
    if missing:
        raise ConfigError(
            f"only is {', '.join(missing)}, expected sets that were evaluated: {', '.join(present)}"
        )
    return [name for name in present if not only or name in only]


def _about_model(corpus: Workspace, measured: Workspace) -> list[str]:
    """Return what is to be known of where the model comes from."""
    train = corpus.manifest("train")
    ours = train.tables["model"][0].sha256 if train else ""
    if measured.root != corpus.root and ours != _weights(measured):
        return ["The model was not trained on this corpus; it may have seen other copies elsewhere"]
    settings = train.settings if train else {}
    given = [name for name in ("initial", "sources") if settings.get(name)]
    return [f"The model has seen other pictures, too: train.{name} was set" for name in given]


def _weights(measured: Workspace) -> str:
    """Return the sha256 of the weights that were evaluated."""
    model = json.loads(storage.read_bytes(measured.path("evaluate", "results.json")))["model"]
    return str(model["sha256"])


def _write(table: "pa.Table", notes: list[str], folder: str) -> None:
    import pyarrow.parquet as pq

    from train.evaluation.overlap import as_plain
    from train.evaluation.overlap_figure import draw
    from train.evaluation.overlap_report import markdown

    plain: dict[str, Any] = {**as_plain(table), "notes": notes}
    text = markdown(table, notes)
    with storage.atomic_output(storage.join(folder, "overlap.parquet")) as file:
        pq.write_table(table, file, compression="zstd")
    files = {
        "overlap.json": json.dumps(plain, indent=1, ensure_ascii=False).encode() + b"\n",
        "overlap.md": text.encode(),
        "overlap.png": draw(table),
    }
    for name, data in files.items():
        storage.write_bytes(storage.join(folder, name), data)
    print(text)
    print(f"in {folder}: overlap.parquet, overlap.json, overlap.md, overlap.png")
