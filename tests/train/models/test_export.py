import json
from pathlib import Path

import pytest
import torch

from pipeline import cli
from pipeline.errors import ConfigError
from tests.train.models.test_initial import mini
from tests.train.small_models import RESNET, VIT, build
from train.models.export import save_as
from train.models.initial import load_any, load_weights
from train.models.recipes import ModelSpec
from train.running.checkpoint import load_model, save_model


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("layout", ["open_clip", "openai"])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_model_comes_back_from_either_layout(tmp_path: Path, layout: str, name: str) -> None:
    model, path = mini(), str(tmp_path / name)
    save_as(model, path, layout)  # type: ignore[arg-type]
    loaded = load_any(path, quick_gelu=True)
    assert loaded.spec == model.spec
    assert same(loaded, model)
    save_model(str(tmp_path / "again.pt"), loaded)
    assert same(load_model(str(tmp_path / "again.pt")), model)


@pytest.mark.parametrize("layout", ["open_clip", "openai"])
@pytest.mark.parametrize("spec", [VIT, RESNET], ids=["vit", "resnet"])
def test_half_of_a_model_is_rounded_once(tmp_path: Path, layout: str, spec: ModelSpec) -> None:
    model, path = build(spec), str(tmp_path / "model.pt")
    save_as(model, path, layout, half=True)  # type: ignore[arg-type]
    loaded = build(spec, 1)
    load_weights(path, loaded)
    torch.testing.assert_close(loaded.text_projection, model.text_projection.half().float())
    assert torch.equal(loaded.token_embedding.weight, model.token_embedding.weight)
    again = str(tmp_path / "again.pt")
    save_as(loaded, again, layout, half=True)  # type: ignore[arg-type]
    twice = build(spec, 2)
    load_weights(again, twice)
    assert same(twice, loaded)


def test_openais_layout_says_resolution_context_and_vocabulary(tmp_path: Path) -> None:
    save_as(mini(), str(tmp_path / "model.pt"), "openai")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    numbers = [content.pop(n).item() for n in ("input_resolution", "context_length", "vocab_size")]
    assert numbers == [28, 24, 49_408]
    assert set(content) == set(mini().state_dict())
    assert load_any(str(tmp_path / "model.pt")).spec == mini().spec


def test_a_hub_folder_needs_not_be_told_its_activation(tmp_path: Path) -> None:
    model = mini(quick_gelu=False)
    path = str(tmp_path / "open_clip_model.safetensors")
    save_as(model, path, "open_clip")
    config = json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]
    assert config["vision_cfg"] == {
        "image_size": 28,
        "width": 96,
        "layers": 4,
        "patch_size": 7,
        "head_width": 32,
    }
    assert load_any(path).spec == model.spec


def test_the_bias_of_the_sigmoid_loss_is_kept_where_there_is_a_place(tmp_path: Path) -> None:
    model = mini(logit_bias=True)
    torch.nn.init.constant_(model.logit_bias, -3.0)
    save_as(model, str(tmp_path / "open_clip_pytorch_model.bin"), "open_clip")
    loaded = load_any(str(tmp_path / "open_clip_pytorch_model.bin"))
    assert loaded.spec == model.spec
    assert loaded.logit_bias is not None
    assert loaded.logit_bias.item() == -3.0
    with pytest.raises(ConfigError, match="bias of the logits, which OpenAI's layout lacks"):
        save_as(model, str(tmp_path / "openai.pt"), "openai")


def test_gelu_has_no_place_in_openais_layout(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"activation is GELU.*expected --layout open_clip"):
        save_as(mini(quick_gelu=False), str(tmp_path / "openai.pt"), "openai")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_earlier_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"earlier")

    def run_out_of_space(content: object, file: object) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", run_out_of_space)
    with pytest.raises(KeyboardInterrupt):
        save_as(mini(), str(path), "open_clip")
    assert path.read_bytes() == b"earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_the_command_exports_at_another_resolution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(str(tmp_path / "model.pt"), mini())
    output = str(tmp_path / "large.safetensors")
    arguments = ["export", str(tmp_path / "model.pt"), "--output", output, "--resolution", "56"]
    assert cli.main([*arguments, "--half"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert load_any(output, quick_gelu=True).spec.resolution == 56
    assert cli.main([*arguments[:-1], "57"]) == 1
    assert capsys.readouterr().err.startswith("witmill: resolution is 57, expected a multiple of 7")
