import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ConfigError, InputError
from pipeline.runtime.executor import make_executor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import coloured_pairs
from train import loop
from train.config import TrainConfig
from train.models.clip import Clip
from train.models.initial import load_any, load_weights
from train.models.layouts import find_spec, released_weights
from train.models.recipes import ModelName, ModelSpec, TextSpec, VitSpec, find_recipe
from train.running.checkpoint import load_model, save_model

SPEC = ModelSpec(
    embed=8,
    resolution=16,
    image=VitSpec(layers=1, width=8, heads=1, patch=4),
    text=TextSpec(width=8, heads=1, layers=1, context=8, vocabulary=50),
)


def build(spec: ModelSpec, seed: int) -> Clip:
    torch.manual_seed(seed)
    model = Clip(spec)
    model.initialize()
    return model


def test_weights_of_either_layout_are_copied(tmp_path: Path) -> None:
    source = build(SPEC, 0)
    save_model(str(tmp_path / "ours.pt"), source)
    wrapped = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "wrapped.pt")
    torch.save(source.state_dict(), tmp_path / "bare.pt")
    for name in ("ours.pt", "wrapped.pt", "bare.pt"):
        model = build(SPEC, 1)
        load_weights(str(tmp_path / name), model)
        for key, tensor in source.state_dict().items():
            assert torch.equal(model.state_dict()[key], tensor), key


def test_the_sigmoid_loss_may_begin_from_weights_of_the_other(tmp_path: Path) -> None:
    source = build(SPEC, 0)
    save_model(str(tmp_path / "ours.pt"), source)
    model = build(replace(SPEC, logit_bias=True), 1)
    load_weights(str(tmp_path / "ours.pt"), model)
    assert model.logit_bias is not None
    assert model.logit_bias.item() == -10
    assert torch.equal(model.visual.proj, source.visual.proj)


def test_a_higher_resolution_begins_from_interpolated_places(tmp_path: Path) -> None:
    source = build(SPEC, 0)
    save_model(str(tmp_path / "low.pt"), source)
    model = build(replace(SPEC, resolution=32), 1)
    load_weights(str(tmp_path / "low.pt"), model)
    assert model.visual.positional_embedding.shape == (65, 8)
    assert torch.equal(model.visual.proj, source.visual.proj)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SPEC, embed=16), r"text_projection is \[8, 8\], not \[8, 16\]"),
        (
            replace(SPEC, image=VitSpec(layers=2, width=8, heads=1, patch=4)),
            r"it lacks visual\.transformer\.resblocks\.1",
        ),
    ],
)
def test_another_models_weights_are_one_line(tmp_path: Path, spec: ModelSpec, message: str) -> None:
    save_model(str(tmp_path / "model.pt"), build(SPEC, 0))
    with pytest.raises(InputError, match=f"holds the weights of another model: .*{message}"):
        load_weights(str(tmp_path / "model.pt"), build(spec, 0))


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match="no whole file of weights"):
        load_weights(str(tmp_path / "model.pt"), build(SPEC, 0))


def mini(**changes: object) -> Clip:
    return build(replace(find_recipe("ViT-mini").model, **changes), 3)  # type: ignore[arg-type]


def save_custom_text(path: Path, model: Clip) -> None:
    towers = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_proj")
    renamed = {
        f"text.{name}" if name.startswith(towers) else name: tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in renamed.items()}}, path)


@pytest.mark.parametrize("layout", ["ours", "bare", "custom text", "compiled", "safetensors"])
def test_any_layout_gives_the_model_that_was_saved(tmp_path: Path, layout: str) -> None:
    model, path = mini(), tmp_path / "weights"
    if layout == "ours":
        save_model(str(path), model)
    elif layout == "custom text":
        save_custom_text(path, model)
    elif layout == "compiled":
        weights = {f"module._orig_mod.{n}": t for n, t in model.state_dict().items()}
        torch.save({"model": weights, "step": 5}, path)
    elif layout == "safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    loaded = load_any(str(path), quick_gelu=True)
    assert loaded.spec == model.spec
    pixels = torch.arange(2 * 3 * 28 * 28).remainder(251).to(torch.uint8).view(2, 3, 28, 28)
    assert torch.equal(loaded.encode_image(pixels), model.encode_image(pixels))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("name", [n for n in get_args(ModelName) if n.startswith("ViT")])
def test_a_transformer_is_known_by_its_shapes(name: ModelName) -> None:
    spec = replace(find_recipe(name).model, resolution=find_recipe(name).model.resolution * 2)
    with torch.device("meta"):
        weights = Clip(spec).state_dict()
    assert find_spec(weights, "file", quick_gelu=True) == spec
    assert not find_spec(weights, "file", quick_gelu=False).quick_gelu


@pytest.mark.parametrize("name", [n for n in get_args(ModelName) if n.startswith("RN")])
def test_a_resnet_is_known_by_its_shapes(name: ModelName) -> None:
    spec = find_recipe(name).model
    with torch.device("meta"):
        weights = Clip(spec).state_dict()
    assert find_spec(weights, "file", quick_gelu=True) == spec


def test_what_shapes_cannot_tell_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(mini().state_dict(), path)
    with pytest.raises(InputError, match=r"does not say its activation.*give --quick-gelu .* or"):
        load_any(str(path))
    assert not load_any(str(path), quick_gelu=False).spec.quick_gelu
    config = tmp_path / "open_clip_config.json"
    config.write_text('{"model_cfg": {"embed_dim": 64}}')
    assert not load_any(str(path)).spec.quick_gelu
    config.write_text('{"model_cfg": {"quick_gelu": true}}')
    assert load_any(str(path)).spec.quick_gelu
    config.write_text("[]")
    with pytest.raises(InputError, match=r"open_clip_config\.json is no configuration"):
        load_any(str(path))


def test_the_wrong_activation_is_refused(tmp_path: Path) -> None:
    save_model(str(tmp_path / "model.pt"), mini())
    with pytest.raises(
        InputError, match="was trained with the other activation; give --quick-gelu"
    ):
        load_any(str(tmp_path / "model.pt"), quick_gelu=False)
    with pytest.raises(
        InputError, match="was trained with the other activation; give --quick-gelu"
    ):
        load_weights(str(tmp_path / "model.pt"), mini(quick_gelu=False))


def test_openais_archive_is_read_in_float32(tmp_path: Path) -> None:
    model = mini().eval()
    for name, number in (("input_resolution", 28), ("context_length", 24), ("vocab_size", 49408)):
        model.register_buffer(name, torch.tensor(number))
    inputs = {
        "encode_image": torch.zeros(1, 3, 28, 28, dtype=torch.uint8),
        "encode_text": torch.zeros(1, 24, dtype=torch.long),
    }
    with warnings.catch_warnings():
        # Tracing remarks on the length of a batch, which no test uses.
        warnings.simplefilter("ignore")
        archive = torch.jit.trace_module(model, inputs)  # type: ignore[no-untyped-call]
        archive.half().save(str(tmp_path / "model.pt"))
    loaded = load_any(str(tmp_path / "model.pt"))
    assert loaded.spec == mini().spec
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.visual.proj, mini().visual.proj.half().float())


def test_a_model_is_loaded_at_another_resolution(tmp_path: Path) -> None:
    save_model(str(tmp_path / "model.pt"), mini())
    loaded = load_any(str(tmp_path / "model.pt"), resolution=56)
    assert loaded.spec == replace(mini().spec, resolution=56)
    assert loaded.encode_image(torch.zeros(1, 3, 56, 56)).shape == (1, 64)
    with pytest.raises(ConfigError, match="resolution is 50, expected a multiple of 7"):
        load_any(str(tmp_path / "model.pt"), resolution=50)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "holds no weights, expected those of a model"),
        ({"state_dict": 3}, "holds no weights by name"),
        ({"epoch": 3}, "holds no weights, expected"),
        (
            {"fc.weight": torch.zeros(2)},
            "no image tower and text tower of CLIP's, expected one of RN50",
        ),
        ({"vision_model.a": torch.zeros(2)}, "in the names of Hugging Face's transformers"),
        ({"visual.trunk.a": torch.zeros(2)}, "an image tower of timm's"),
        (
            {
                "visual.conv1.weight": torch.zeros(5, 3, 14, 14),
                "text_projection": torch.zeros(4, 4),
            },
            r"an image tower that begins with \[5, 3, 14, 14\] and a text tower that ends in \[4, 4\], expected",
        ),
        ({"spec": {"image": 3}, "state_dict": {}}, "has a spec that is none of ours"),
        ({"a": torch.zeros(1).expand(9)}, "a has fewer numbers than its shape says"),
    ],
)
def test_weights_of_no_model_of_ours_are_one_line(
    tmp_path: Path, weights: dict[str, object], message: str
) -> None:
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=message):
        load_any(str(tmp_path / "weights.pt"), quick_gelu=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ln_final.weight", None, "it lacks ln_final.weight"),
        ("extra", torch.zeros(1), "the model has no extra"),
        ("ln_final.weight", torch.zeros(9), r"ln_final.weight is \[9\], not \[64\]"),
        ("visual.positional_embedding", torch.zeros(4, 96), "is of 4 places, expected a square's"),
        ("visual.positional_embedding", None, "lacks embeddings of places"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(
    tmp_path: Path, name: str, value: torch.Tensor | None, message: str
) -> None:
    weights = {**mini().state_dict(), name: value}
    torch.save({n: t for n, t in weights.items() if t is not None}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=message):
        load_any(str(tmp_path / "weights.pt"), quick_gelu=True)


def test_resnets_from_before_batches_were_counted_are_read() -> None:
    weights = {"visual.bn1.running_mean": torch.zeros(2)}
    counted = released_weights(weights, "file")
    assert counted["visual.bn1.num_batches_tracked"].item() == 0


def test_training_begins_from_the_given_weights(
    workspace: Workspace, finish_shards: Callable[..., Manifest], tmp_path: Path
) -> None:
    finish_shards(coloured_pairs(20))
    executor = make_executor("local", workers=0)
    config = TrainConfig(
        model="ViT-mini", batch_size=8, steps=2, warmup_steps=1, threads=1, learning_rate=1e-9
    )
    loop.run(config, workspace, executor)
    first = tmp_path / "first.pt"
    Path(workspace.path("train/model.pt")).rename(first)
    shutil.rmtree(workspace.path("train"))
    again = config.model_copy(update={"seed": 5, "initial": str(first)})
    loop.run(again, workspace, executor)
    before, after = load_model(str(first)), load_model(workspace.path("train/model.pt"))
    torch.testing.assert_close(after.visual.proj, before.visual.proj, atol=1e-6, rtol=0)
