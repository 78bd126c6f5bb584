import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.errors import InputError
from pipeline.runtime.executor import make_executor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import coloured_pairs
from train import loop
from train.checkpoint import load_model, save_model
from train.clip import Clip
from train.config import TrainConfig
from train.initial import load_weights, resize_positions
from train.recipes import ModelSpec, TextSpec, VitSpec

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


def test_a_higher_resolution_begins_from_interpolated_places(tmp_path: Path) -> None:
    source = build(SPEC, 0)
    save_model(str(tmp_path / "low.pt"), source)
    model = build(replace(SPEC, resolution=32), 1)
    load_weights(str(tmp_path / "low.pt"), model)
    assert model.visual.positional_embedding.shape == (65, 8)
    assert torch.equal(model.visual.proj, source.visual.proj)


def test_places_keep_their_order_when_they_are_resized() -> None:
    rows = torch.arange(4.0).repeat_interleave(4)
    columns = torch.arange(4.0).repeat(4)
    positions = torch.cat([torch.tensor([[-1.0, -1.0]]), torch.stack([rows, columns], dim=1)])
    resized = resize_positions(positions, 65)
    assert resized[0].tolist() == [-1.0, -1.0]
    grid = resized[1:].view(8, 8, 2)
    assert (grid[1:, :, 0] > grid[:-1, :, 0]).all()
    assert (grid[:, 1:, 1] > grid[:, :-1, 1]).all()
    assert resize_positions(positions, 17) is positions


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
    with pytest.raises(InputError, match="no whole torch file of weights"):
        load_weights(str(tmp_path / "model.pt"), build(SPEC, 0))


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
