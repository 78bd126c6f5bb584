from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from dedup.evaluation.evalsets import EvalSet, read_evalsets
from pipeline.pictures.images import decode
from tests.train.shards import COLOURS, png
from tests.train.small_models import VIT, build
from train.evaluation.config import EvaluateConfig
from train.evaluation.corruptions import CORRUPTIONS, corrupt
from train.evaluation.embedder import make_embedder
from train.evaluation.features import Features
from train.evaluation.heads import zero_shot
from train.evaluation.robustness import choose, draw_corruptions, mean_accuracies, robustness
from train.evaluation.subject import Subject
from train.samples.augment import CENTRE, square_crop

SIDES = ((16, 16), (12, 12), (40, 30))


@pytest.fixture
def evalset(tmp_path: Path) -> EvalSet:
    rng = np.random.default_rng(1)
    for name, colour in COLOURS.items():
        (tmp_path / "colours" / name).mkdir(parents=True)
        for i in range(6):
            rgb = np.clip(np.array(colour) + rng.integers(-90, 90, (*SIDES[i % 3], 3)), 0, 255)
            (tmp_path / "colours" / name / f"{i}.png").write_bytes(png(rgb.astype(np.uint8)))
    (tmp_path / "sets.toml").write_text('[colours]\npath = "colours"\nprompts = ["{label}"]\n')
    (found,) = read_evalsets(str(tmp_path / "sets.toml"))
    return found


@pytest.fixture
def subject(evalset: EvalSet, tmp_path: Path) -> Subject:
    embedder = make_embedder(
        build(VIT),
        device=torch.device("cpu"),
        folder=str(tmp_path / "features"),
        batch_size=5,
        readers=2,
    )
    config = EvaluateConfig(corruption_pictures=18, severities=(1, 4), worst=0)
    return Subject(embedder=embedder, evalset=evalset, config=config)


@torch.inference_mode()
def counted_one_by_one(subject: Subject, chosen: list[str]) -> dict[str, int]:
    """Return hits by condition, each picture read, corrupted and classified by itself."""
    model, hits = subject.embedder.model, {}
    weights = torch.from_numpy(subject.classifier("own"))
    for name, severity in [("clean", 0), *((c, s) for c in CORRUPTIONS for s in (1, 4))]:
        right = 0
        for item in chosen:
            rgb = decode((Path(subject.evalset.path) / item).read_bytes()).rgb
            side = min(16, *rgb.shape[:2])
            rgb = np.ascontiguousarray(square_crop(rgb, side, CENTRE).transpose(1, 2, 0))
            rgb = corrupt(name, severity, rgb, item) if severity else rgb
            pixels = torch.from_numpy(square_crop(rgb, 16, CENTRE))[None]
            best = int((model.encode_image(pixels) @ weights.T).argmax())
            right += subject.classes[best] == item.split("/")[0]
        hits[f"{name}/{severity}" if severity else name] = right
    return hits


def test_every_accuracy_is_that_of_pictures_one_by_one(subject: Subject) -> None:
    chosen = list(choose(subject.test, 18))
    assert len(set(chosen)) == 18
    expected = counted_one_by_one(subject, chosen)
    result = robustness(subject)
    top1 = {row["variant"]: row for row in result.rows if row["metric"] == "top1"}
    drop = {row["variant"]: row for row in result.rows if row["metric"] == "drop"}
    assert {name: round(18 * top1[name]["value"]) for name in expected} == expected
    assert len(set(expected.values())) > 1
    for name in expected:
        low, high = top1[name]["low"], top1[name]["high"]
        assert low is not None
        assert high is not None
        assert low <= top1[name]["value"] <= high
        assert top1[name]["images"] == 18
    assert top1["fog"]["value"] == pytest.approx((expected["fog/1"] + expected["fog/4"]) / 36)
    every = [count for name, count in expected.items() if name != "clean"]
    assert top1["corrupted"]["value"] == pytest.approx(np.mean(every) / 18)
    assert drop["corrupted"]["value"] == pytest.approx((expected["clean"] - np.mean(every)) / 18)
    assert "clean" not in drop
    assert set(result.files) == {"corruptions.png", "robustness.md"}
    assert f"| fog | {expected['fog/1'] / 18:.1%} |" in result.files["robustness.md"].decode()


def test_clean_is_what_zero_shot_says_of_all_pictures(subject: Subject) -> None:
    config = subject.config.model_copy(update={"corruption_pictures": 0, "severities": (1,)})
    everything = Subject(embedder=subject.embedder, evalset=subject.evalset, config=config)
    clean = robustness(everything).rows[0]
    first = zero_shot(everything).rows[0]
    assert (clean["variant"], clean["metric"], clean["images"]) == ("clean", "top1", 24)
    assert clean["value"] == first["value"]


def test_the_same_pictures_are_chosen_whatever_their_order() -> None:
    items = [f"{i}.png" for i in range(50)]
    some = [choose(features(names), 7) for names in (items, items[::-1])]
    assert some[0] == some[1]
    assert len(some[0]) == 7
    # Not those that others choose by the plain hash, such as benchmarks of theirs.
    plain = sorted(items, key=lambda item: xxhash.xxh3_64_intdigest(item.encode()))
    assert set(some[0]) != set(plain[:7])
    assert len(choose(features(items), 0)) == 50


def test_means_are_over_severities_and_over_corruptions() -> None:
    accuracy = {f"{c}/{s}": i + s / 10 for i, c in enumerate(CORRUPTIONS) for s in (1, 3)}
    means = mean_accuracies(accuracy, (1, 3))
    assert means["gaussian_noise"] == pytest.approx(0.2)
    assert means["corrupted/3"] == pytest.approx(7.3)
    assert means["corrupted"] == pytest.approx(7.2)


def test_the_sheet_shows_all_corruptions() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    sheet = decode(draw_corruptions(rgb, "a.png")).rgb
    assert sheet.shape[0] > 15 * 150
    assert sheet.shape[1] > 6 * 150


def features(items: list[str]) -> Features:
    return Features(
        evalset="a",
        items=items,
        splits=[""] * len(items),
        labels=["x"] * len(items),
        captions=[()] * len(items),
        vectors_ND=np.zeros((len(items), 2), np.float32),
    )
