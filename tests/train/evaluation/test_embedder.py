from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import InputError
from tests.train.evaluation.pictures import coloured_set
from tests.train.small_models import RESNET, VIT, build
from train.evaluation.embedder import Clock, Embedder, features_of, make_embedder
from train.evaluation.pictures import squares_ahead
from train.models.clip import Clip
from train.models.recipes import ModelSpec

CPU = torch.device("cpu")


def embedder(folder: Path, model: Clip, **settings: object) -> Embedder:
    return make_embedder(model, device=CPU, folder=str(folder), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [VIT, RESNET], ids=["vit", "resnet"])
def test_features_are_the_models_own_embeddings(tmp_path: Path, spec: ModelSpec) -> None:
    evalset = coloured_set(tmp_path / "set", 3)
    model = build(spec).eval()
    found = features_of(embedder(tmp_path / "kept", model, batch_size=5), evalset)
    (squares,) = squares_ahead(evalset, spec.resolution, 50)
    with torch.inference_mode():
        expected = model.encode_image(torch.from_numpy(squares.pixels_B3SS))
    np.testing.assert_allclose(found.unit_ND, expected, atol=2e-6)
    assert not np.allclose(np.linalg.norm(found.vectors_ND, axis=1), 1)
    assert found.items == squares.items
    assert found.splits == [""] * 12
    probed = found.before_projection().vectors_ND
    if spec is VIT:
        assert probed.shape == (12, 32)
        np.testing.assert_allclose(
            probed @ model.visual.proj.detach().numpy(), found.vectors_ND, atol=2e-6
        )
    else:
        assert probed is found.vectors_ND


def test_features_are_computed_once(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 3)
    (tmp_path / "set" / "grey" / "2.png").write_bytes(b"broken")
    first_clock, second_clock = Clock(), Clock()
    first = features_of(embedder(tmp_path / "kept", build(VIT)), evalset, clock=first_clock)
    second = features_of(embedder(tmp_path / "kept", build(VIT)), evalset, clock=second_clock)
    assert first_clock.model_s > 0 == second_clock.model_s
    assert 0 < first_clock.share < 1
    assert np.array_equal(first.vectors_ND, second.vectors_ND)
    assert (first.items, first.labels, first.drops) == (second.items, second.labels, second.drops)
    assert len(first.drops) == 1
    assert len(first.items) == 11


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_other_weights_sets_and_settings_have_features_of_their_own(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 2)
    kept = tmp_path / "kept"
    features_of(embedder(kept, build(VIT)), evalset)
    changed: list[tuple[Embedder, EvalSet]] = [
        (embedder(kept, build(VIT, seed=1)), evalset),
        (embedder(kept, build(replace(VIT, quick_gelu=not VIT.quick_gelu))), evalset),
        (embedder(kept, build(VIT), precision="bf16"), evalset),
        (embedder(kept, build(VIT)), evalset.model_copy(update={"labels": {"red": "crimson"}})),
    ]
    for count, (some, of_set) in enumerate(changed, 2):
        features_of(some, of_set)
        assert len(files(kept)) == count
    features_of(embedder(kept, build(VIT), batch_size=1, readers=1), evalset)
    features_of(embedder(kept, build(VIT)), evalset.model_copy(update={"prompts": ("{label}",)}))
    assert len(files(kept)) == 5
    (tmp_path / "set" / "red" / "0.png").unlink()
    assert len(features_of(embedder(kept, build(VIT)), evalset).items) == 7


def test_half_precision_is_close_to_full(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 2)
    full = features_of(embedder(tmp_path / "kept", build(VIT)), evalset)
    half = features_of(embedder(tmp_path / "kept", build(VIT), precision="bf16"), evalset)
    assert half.vectors_ND.dtype == np.float32
    assert 0 < np.abs(full.unit_ND - half.unit_ND).max() < 0.05


def test_progress_is_told_of_every_picture(tmp_path: Path) -> None:
    evalset = coloured_set(tmp_path / "set", 2)
    (tmp_path / "set" / "grey" / "1.png").write_bytes(b"broken")
    told: list[tuple[int, int]] = []
    features_of(
        embedder(tmp_path / "kept", build(VIT), batch_size=4),
        evalset,
        advance=lambda rows, drops: told.append((rows, drops)),
    )
    assert [sum(column) for column in zip(*told, strict=True)] == [8, 1]
    assert len(told) == 2


def test_a_set_without_a_whole_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "1.png").write_bytes(b"no picture")
    evalset = EvalSet(name="broken", path=str(tmp_path / "set"))
    message = r"broken: none of its 1 pictures can be decoded, such as broken/cat/1\.png: not_an"
    with pytest.raises(InputError, match=message):
        features_of(embedder(tmp_path / "kept", build(VIT)), evalset)


@pytest.mark.parametrize("place", ["visual.conv1.weight", "visual.proj"])
def test_weights_that_are_not_numbers_are_one_line(tmp_path: Path, place: str) -> None:
    model = build(VIT)
    with torch.no_grad():
        model.state_dict()[place].fill_(torch.nan)
    with pytest.raises(InputError, match=r"pictures of evaluation set .* for 12 of 12"):
        features_of(embedder(tmp_path / "kept", model), coloured_set(tmp_path / "set", 3))
