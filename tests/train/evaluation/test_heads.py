from pathlib import Path

import numpy as np
import pytest
import torch

from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import InputError
from tests.train.evaluation.pictures import coloured_set
from tests.train.shards import COLOURS
from tests.train.small_models import VIT, build
from train.evaluation.config import EvaluateConfig, HeadName
from train.evaluation.embedder import make_embedder
from train.evaluation.heads import HEADS, choose
from train.evaluation.subject import Subject

QUICK = {
    "shots": (1,),
    "repeats": 1,
    "tower_epochs": 1,
    "corruption_pictures": 2,
    "severities": (1,),
    "threads": 1,
}


def subject(tmp_path: Path, evalset: EvalSet, **settings: object) -> Subject:
    embedder = make_embedder(
        build(VIT), device=torch.device("cpu"), folder=str(tmp_path / "features")
    )
    config = EvaluateConfig.model_validate({**QUICK, **settings})
    return Subject(embedder=embedder, evalset=evalset, config=config)


@pytest.fixture
def colours(tmp_path: Path) -> EvalSet:
    coloured_set(tmp_path / "set" / "train", 3, seed=1)
    return coloured_set(tmp_path / "set" / "test", 2).model_copy(
        update={
            "path": str(tmp_path / "set"),
            "split": ("test",),
            "train": {"split": "train"},
        }
    )


@pytest.mark.parametrize("name", [name for name in HEADS if name != "retrieval"])
def test_every_head_measures_a_labelled_set(
    tmp_path: Path, colours: EvalSet, name: HeadName
) -> None:
    result = HEADS[name].measure(subject(tmp_path, colours))
    assert result.rows
    assert {row["classes"] for row in result.rows} == {4}
    assert {p["label"] for p in result.predictions} <= set(COLOURS)


def test_zero_shot_is_the_nearest_class_embedding(tmp_path: Path, colours: EvalSet) -> None:
    measured = subject(tmp_path, colours, templates=("plain", "own"), worst=0)
    result = HEADS["zero_shot"].measure(measured)
    assert result.files == {}
    for variant in ("plain", "own"):
        weights_CD = measured.classifier(variant)
        np.testing.assert_allclose(np.linalg.norm(weights_CD, axis=1), 1, atol=1e-6)
        predictions = [p for p in result.predictions if p["variant"] == variant]
        for vector_D, prediction in zip(measured.test.unit_ND, predictions, strict=True):
            similar = {
                label: float(vector_D @ weight_D)
                for label, weight_D in zip(sorted(COLOURS), weights_CD, strict=True)
            }
            assert prediction["predicted"] == max(similar, key=lambda label: similar[label])


def test_a_classifier_is_computed_once(tmp_path: Path, colours: EvalSet) -> None:
    first = subject(tmp_path, colours).classifier("own")
    other = subject(tmp_path, colours)
    other.embedder.model.token_embedding.weight.data.zero_()
    assert np.array_equal(other.classifier("own"), first)
    assert not np.array_equal(other.classifier("plain"), first)


def test_probes_learn_from_pictures_before_the_projection(
    tmp_path: Path, colours: EvalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []

    def probe(train: object, validation: object, test: object, *, seed: int) -> None:
        widths.append((train.vectors_ND.shape, validation, test.vectors_ND.shape))  # type: ignore[attr-defined]

    monkeypatch.setattr("train.evaluation.heads.linear_probe", probe)
    HEADS["linear_probe"].measure(subject(tmp_path, colours))
    assert widths == [((12, 32), None, (8, 32))]


def test_a_set_has_the_heads_that_it_suits(
    colours: EvalSet, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = colours.model_copy(update={"train": {}, "name": "alone"})
    chosen = choose([alone, colours], ["linear_probe", "zero_shot", "retrieval"])
    assert [(e.name, heads) for e, heads in chosen] == [
        ("alone", ["zero_shot"]),
        ("colours", ["linear_probe", "zero_shot"]),
    ]
    assert "no linear_probe on alone: it does not say what to learn" in capsys.readouterr().err
    choose([alone, colours], ["linear_probe"])
    assert "leaves out alone: it does not say what to learn from (train)" in capsys.readouterr().err
    with pytest.raises(
        InputError, match="no evaluation set suits retrieval: expected one with captions"
    ):
        choose([colours], ["retrieval"])
