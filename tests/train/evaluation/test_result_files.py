import json
from pathlib import Path

import numpy as np

from pipeline.runtime.manifest import Outcome
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from tests.train.small_models import VIT, build
from train.evaluation.config import EvaluateConfig
from train.evaluation.features import Features
from train.evaluation.result_files import HEAD_RESULTS, describe, write_results
from train.evaluation.results import HeadResult, Prediction, Row, classified
from train.running.checkpoint import save_model

LABELS = ["a|x", "a|x", "b\n<b>", "c"]
CLASSES = ["a|x", "b\n<b>", "c"]


def result() -> HeadResult:
    test = Features(
        evalset="toy",
        items=list("1234"),
        splits=[""] * 4,
        labels=list(LABELS),
        captions=[()] * 4,
        vectors_ND=np.zeros((4, 2), np.float32),
    )
    scores = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    found = classified(test, scores, CLASSES, variant="own")
    notes: dict[str, object] = {"strength": 0.1 + 0.2, "converged": False}
    return HeadResult(rows=found.rows, predictions=found.predictions, notes=notes)


def written(
    workspace: Workspace, model: Path, found: HeadResult | None = None, head: str = "zero_shot"
) -> dict[str, str]:
    save_model(str(model), build(VIT))
    stage = begin("evaluate", EvaluateConfig(), workspace)
    common = {"evalset": "toy", "head": head}
    path = Path(workspace.path("evaluate/heads/00000.json"))
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps(describe(found or result(), common, ["files/toy/zero_shot/worst.txt"]))
    )
    part = workspace.describe("evaluate/heads/00000.json", rows=1)
    outcomes = [Outcome(), Outcome(parts={HEAD_RESULTS: [part]})]
    parts = write_results(stage, outcomes, str(model), build(VIT))
    return {p.path: Path(workspace.path(p.path)).read_text() for p in parts}


def test_results_hold_rows_notes_and_classes(workspace: Workspace, tmp_path: Path) -> None:
    files = written(workspace, tmp_path / "model.pt")
    assert list(files) == [f"evaluate/{n}" for n in ("results.json", "results.md", "report.html")]
    results = json.loads(files["evaluate/results.json"])
    assert results["model"]["path"] == str(tmp_path / "model.pt")
    assert len(results["model"]["sha256"]) == 64
    ((head,),) = [of_set["heads"] for of_set in results["sets"]]
    assert head["rows"] == result().rows
    assert [c["label"] for c in head["worst_classes"]] == ["b\n<b>", "a"]
    assert head["worst_classes"][1]["taken_for"] == "b\n<b>"
    assert {(c["label"], c["predicted"]) for c in head["confusions"]} == {
        ("a", "b\n<b>"),
        ("b\n<b>", "a"),
    }


def test_the_markdown_table_survives_any_name(workspace: Workspace, tmp_path: Path) -> None:
    text = written(workspace, tmp_path / "model.pt")["evaluate/results.md"]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| toy | zero_shot | own | top1 | 50.00% | 6.8% to 93.2% | 33.3% | 4 | 3 |" in rows
    assert "| b &lt;b> | 0.0% | 1 | a (1) |" in rows
    assert "strength: 0.3; converged: no" in text
    assert "[worst.txt](files/toy/zero_shot/worst.txt)" in text


def test_classes_that_share_their_first_name_stay_apart() -> None:
    predictions = [
        Prediction(variant="own", split="", item=item, label=label, predicted="a|x", rank=rank)
        for item, label, rank in (("1", "a|x", 1), ("2", "a|z", 2))
    ]
    described = describe(HeadResult(rows=[], predictions=predictions), {}, [])
    assert [(c["label"], c["value"]) for c in described["worst_classes"]] == [("a", 0.0)]
    assert [(c["label"], c["predicted"]) for c in described["confusions"]] == [("a", "a")]


def test_single_corruptions_stand_in_the_tables_alone(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        Row(variant=variant, metric="top1", value=0.25, low=None, high=None, chance=0.3, images=4, classes=3)
        for variant in ("corrupted", "fog", "fog/3")
    ]  # fmt: skip
    rows.append(Row({**rows[1], "metric": "drop"}))
    files = written(workspace, tmp_path / "model.pt", HeadResult(rows=rows), "robustness")
    assert "fog/3" in files["evaluate/results.json"]
    assert "| toy | robustness | corrupted | top1 |" in files["evaluate/results.md"]
    assert "fog" not in files["evaluate/results.md"]
