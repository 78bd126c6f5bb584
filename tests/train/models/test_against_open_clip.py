"""Outputs of open_clip's own models with the same weights; see tests/reference/open_clip_outputs.py."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tests.reference.drawn_weights import draw, fill, pictures, texts
from tests.reference.open_clip_outputs import names_digest, summary
from train.models.clip import Clip, normalize_pixels
from train.models.export import save_as
from train.models.initial import load_any
from train.models.layouts import resize_places
from train.models.recipes import find_recipe

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures/open_clip.json").read_text())
MODELS: dict[str, Any] = FIXTURE["models"]
QUICK = ("RN50", "ViT-B/32")


def cases(*names: str, quick: Sequence[str]) -> list[Any]:
    """Return test parameters; all but the quick ones take several seconds each."""
    return [
        pytest.param(name, marks=[] if name.partition(" ")[0] in quick else [pytest.mark.slow])
        for name in names
    ]


def build(case: str) -> Clip:
    name, _, gelu = case.partition(" with ")
    spec = find_recipe(name).model  # type: ignore[arg-type]
    with torch.device("meta"):
        model = Clip(replace(spec, quick_gelu=not gelu))
    return model.to_empty(device="cpu")


@pytest.mark.parametrize("case", MODELS)
def test_weights_have_open_clips_names_and_shapes(case: str) -> None:
    with torch.device("meta"):
        assert (
            names_digest(Clip(find_recipe(case.partition(" ")[0]).model)) == MODELS[case]["names"]
        )  # type: ignore[arg-type]


@pytest.mark.parametrize("case", cases(*MODELS, quick=QUICK))
@torch.inference_mode()
def test_the_same_weights_give_open_clips_embeddings(case: str) -> None:
    expected, model = MODELS[case], build(case).eval()
    fill(model)
    pixels = pictures(expected["pictures"], model.spec.resolution)
    norms = model.visual(normalize_pixels(pixels)).norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor(expected["image_norms"]), rtol=1e-5, atol=0)
    found = {"image": model.encode_image(pixels), "text": model.encode_text(texts(2, 77))}
    for tower, embedded in found.items():
        difference = torch.tensor(summary(embedded)) - torch.tensor(expected[tower])
        assert difference.abs().max() < 2e-6, tower


@pytest.mark.parametrize("layout", ["open_clip", "openai"])
@pytest.mark.parametrize(
    "name", cases(*(name for name in MODELS if "GELU" not in name), quick=["ViT-B/32"])
)
@torch.inference_mode()
def test_a_file_of_either_layout_gives_the_same_embeddings(
    tmp_path: Path, name: str, layout: Literal["open_clip", "openai"]
) -> None:
    model, path = build(name), str(tmp_path / "weights.pt")
    fill(model)
    save_as(model, path, layout)
    loaded = load_any(path, quick_gelu=True).eval()
    assert loaded.spec == find_recipe(name).model  # type: ignore[arg-type]
    found = {
        "image": loaded.encode_image(pictures(MODELS[name]["pictures"], loaded.spec.resolution)),
        "text": loaded.encode_text(texts(2, 77)),
    }
    for tower, embedded in found.items():
        difference = torch.tensor(summary(embedded)) - torch.tensor(MODELS[name][tower])
        assert difference.abs().max() < 2e-6, tower


@pytest.mark.parametrize("grids", FIXTURE["places"])
def test_places_are_interpolated_as_open_clip_does(grids: str) -> None:
    before, after = map(int, grids.split(" to "))
    places = torch.from_numpy(draw("places", 2 * (before**2 + 1))).view(-1, 2)
    resized = resize_places(places, after**2 + 1).flatten()
    torch.testing.assert_close(resized, torch.tensor(FIXTURE["places"][grids]), atol=2e-6, rtol=0)
