import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import ConfigError, InputError
from tests.train.shards import COLOURS, png
from tests.train.small_models import RESNET, VIT, build
from train.evaluation.fine_tuned import FineTuning, epoch_batches, fine_tune, untrained
from train.evaluation.results import HeadResult
from train.learning.device import computing

CPU = torch.device("cpu")
QUICK = FineTuning(epochs=3, learning_rate=3e-3, batch_size=16)


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    with computing("cpu", 1):
        yield


def coloured(folder: Path, seed: int, count: int, names: list[str]) -> EvalSet:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            rgb = np.clip(np.array(COLOURS[name]) + rng.integers(-25, 25, (20, 30, 3)), 0, 255)
            (folder / name / f"{i}.png").write_bytes(png(rgb.astype(np.uint8)))
    return EvalSet(name=folder.name, path=str(folder))


@pytest.fixture
def train(tmp_path: Path) -> EvalSet:
    return coloured(tmp_path / "train_set", 0, 20, list(COLOURS))


@pytest.fixture
def test_set(tmp_path: Path) -> EvalSet:
    return coloured(tmp_path / "colours", 1, 6, list(COLOURS))


def top1(result: HeadResult) -> float:
    return next(row["value"] for row in result.rows if row["metric"] == "top1")


@pytest.mark.parametrize("spec", [VIT, replace(RESNET, resolution=32)], ids=["vit", "resnet"])
def test_a_tower_learns_to_tell_new_pictures_apart(
    spec: object, train: EvalSet, test_set: EvalSet
) -> None:
    model = build(spec)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = fine_tune(model, train, None, test_set, settings=replace(QUICK, epochs=8), device=CPU)
    assert top1(result) == 1
    assert len(result.predictions) == 6 * len(COLOURS)
    losses = result.notes["loss_by_epoch"]
    assert isinstance(losses, list)
    assert len(losses) == 8
    assert losses[-1] < losses[0] / 2
    assert result.notes["training_pictures"] == 20 * len(COLOURS)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_equal_runs_give_equal_bits_whatever_the_readers(train: EvalSet, test_set: EvalSet) -> None:
    model = build(VIT)
    results = [
        fine_tune(
            model,
            train,
            None,
            test_set,
            settings=replace(QUICK, readers=readers, seed=seed),
            device=CPU,
        )
        for readers, seed in ((1, 0), (3, 0), (1, 1))
    ]
    assert results[0] == results[1]
    assert results[0].notes["loss_by_epoch"] != results[2].notes["loss_by_epoch"]


def test_the_randomness_of_others_is_left_alone(train: EvalSet, test_set: EvalSet) -> None:
    model = build(VIT)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fine_tune(model, train, None, test_set, settings=replace(QUICK, epochs=1), device=CPU)
    assert torch.equal(torch.rand(3), expected)


def test_grey_pictures_become_rgb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, value in (("dark", 60), ("light", 190)):
            folder = tmp_path / "grey" / split / name
            folder.mkdir(parents=True)
            for i in range(12):
                pixels = np.uint8(value + rng.integers(-40, 40, (28, 28)))
                with io.BytesIO() as file:
                    Image.fromarray(pixels, mode=None).save(file, "PNG")
                    (folder / f"{i}.png").write_bytes(file.getvalue())
    grey = EvalSet(name="grey", path=str(tmp_path / "grey"), split=("train",))
    test = grey.model_copy(update={"split": ("test",)})
    settings = replace(QUICK, epochs=6, batch_size=6)
    assert top1(fine_tune(build(VIT), grey, None, test, settings=settings, device=CPU)) == 1


def test_validation_pictures_are_learnt_from_too(
    train: EvalSet, test_set: EvalSet, tmp_path: Path
) -> None:
    more = coloured(tmp_path / "more", 2, 5, list(COLOURS))
    result = fine_tune(
        build(VIT), train, more, test_set, settings=replace(QUICK, epochs=1), device=CPU
    )
    assert result.notes["training_pictures"] == 25 * len(COLOURS)


def test_a_class_that_was_never_learnt_is_a_miss_that_comes_last(
    tmp_path: Path, test_set: EvalSet
) -> None:
    some = coloured(tmp_path / "some", 0, 20, list(COLOURS)[:-1])
    result = fine_tune(
        build(VIT), some, None, test_set, settings=replace(QUICK, epochs=8), device=CPU
    )
    unlearnt = [p for p in result.predictions if p["label"] == list(COLOURS)[-1]]
    assert {p["rank"] for p in unlearnt} == {len(COLOURS)}
    assert top1(result) == pytest.approx(1 - 1 / len(COLOURS))


def test_broken_pictures_are_counted_and_left_out(train: EvalSet, test_set: EvalSet) -> None:
    name = next(iter(COLOURS))
    (Path(train.path) / name / "x.png").write_bytes(b"no picture")
    (Path(test_set.path) / name / "x.png").write_bytes(b"no picture")
    result = fine_tune(
        build(VIT), train, None, test_set, settings=replace(QUICK, epochs=1), device=CPU
    )
    assert result.notes["training_pictures"] == 20 * len(COLOURS)
    assert result.notes["training_pictures_refused"] == 1
    assert result.rows[0]["images"] == 6 * len(COLOURS)


@given(st.integers(2, 500), st.integers(4, 64), st.integers(0, 3))
def test_an_epoch_takes_each_picture_once_in_steps_of_nearly_one_size(
    count: int, batch_size: int, epoch: int
) -> None:
    names = [f"{i}.png" for i in range(count)]
    batches = epoch_batches(names, batch_size, seed=0, epoch=epoch)
    assert sorted(row for rows in batches for row in rows) == list(range(count))
    sizes = {len(rows) for rows in batches}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    assert max(sizes) <= batch_size
    assert len(batches) == -(-count // batch_size)


def test_each_epoch_has_its_own_order() -> None:
    names = [f"{i}.png" for i in range(50)]
    orders = {
        tuple(epoch_batches(names, 50, seed=seed, epoch=epoch)[0])
        for seed in range(2)
        for epoch in range(3)
    }
    assert len(orders) == 6


def test_recipes_have_random_weights_that_a_seed_gives() -> None:
    models = [untrained("ViT-mini", 14, seed=seed) for seed in (0, 0, 1)]
    weights = [model.visual.state_dict()["conv1.weight"] for model in models]
    assert models[0].spec.resolution == 14
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    with pytest.raises(ConfigError, match="resolution is 20, expected a multiple of 7"):
        untrained("ViT-mini", 20)


def test_what_cannot_be_fine_tuned_is_one_line(
    train: EvalSet, test_set: EvalSet, tmp_path: Path
) -> None:
    one = coloured(tmp_path / "one", 0, 3, list(COLOURS)[:1])
    with pytest.raises(InputError, match="3 whole training pictures of 1 classes"):
        fine_tune(build(VIT), one, None, test_set, settings=QUICK, device=CPU)
    with pytest.raises(
        ConfigError, match="the loss is nan in epoch 1; set the learning rate below"
    ):
        fine_tune(
            build(VIT),
            train,
            None,
            test_set,
            settings=replace(QUICK, learning_rate=1e30),
            device=CPU,
        )
    (tmp_path / "broken" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "1.png").write_bytes(b"no picture")
    broken = EvalSet(name="broken", path=str(tmp_path / "broken"))
    with pytest.raises(InputError, match=r"no whole test picture has a class \(1 are broken\)"):
        fine_tune(build(VIT), train, None, broken, settings=replace(QUICK, epochs=1), device=CPU)
    with pytest.raises(ConfigError, match="expected 1 epoch, 4 pictures and a positive rate"):
        FineTuning(batch_size=3)
