from dataclasses import replace

import pytest
import torch

from pipeline.errors import InputError
from tests.train.small_models import RESNET, VIT, build
from train.models.layouts import fit_places, in_half, resize_places
from train.models.recipes import ModelSpec


def test_places_keep_their_order_when_they_are_resized() -> None:
    rows = torch.arange(4.0).repeat_interleave(4)
    columns = torch.arange(4.0).repeat(4)
    places = torch.cat([torch.tensor([[-1.0, -1.0]]), torch.stack([rows, columns], dim=1)])
    resized = resize_places(places, 65)
    assert resized[0].tolist() == [-1.0, -1.0]
    grid = resized[1:].view(8, 8, 2)
    assert (grid[1:, :, 0] > grid[:-1, :, 0]).all()
    assert (grid[:, 1:, 1] > grid[:, :-1, 1]).all()
    assert resize_places(places, 17) is places


@pytest.mark.parametrize("spec", [VIT, RESNET], ids=["vit", "resnet"])
def test_only_places_change_with_the_resolution(spec: ModelSpec) -> None:
    larger = replace(spec, resolution=2 * spec.resolution)
    weights = build(spec).state_dict()
    fitted = fit_places(weights, larger)
    model = build(larger)
    model.load_state_dict(fitted)
    assert (
        model.encode_image(torch.zeros(1, 3, larger.resolution, larger.resolution)).isfinite().all()
    )
    changed = [name for name in weights if weights[name] is not fitted[name]]
    assert [name for name in changed if "positional_embedding" not in name] == []
    assert len(changed) == 1


@pytest.mark.parametrize("spec", [VIT, RESNET], ids=["vit", "resnet"])
def test_matrices_are_halved_and_norms_and_embeddings_are_not(spec: ModelSpec) -> None:
    weights = in_half(build(spec))
    kinds = ("ln_", "bn", "downsample.1", "embedding", "logit_scale")
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            whole = any(kind in name for kind in kinds)
            assert tensor.dtype == (torch.float32 if whole else torch.float16), name


def test_a_weight_beyond_half_precision_is_one_line() -> None:
    model = build(VIT)
    torch.nn.init.constant_(model.text_projection, 1e6)
    with pytest.raises(InputError, match=r"text_projection has values beyond 65,504"):
        in_half(model)
