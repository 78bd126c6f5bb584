import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.errors import CorruptWorkspace, InputError, StorageError
from train.models.clip import Clip
from train.models.recipes import ModelSpec, ResNetSpec, TextSpec
from train.running.checkpoint import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_model,
    prune,
    save_checkpoint,
    save_model,
)


def test_a_file_by_another_name_is_not_said_to_be_for_deletion(tmp_path: Path) -> None:
    shard = tmp_path / "00000.tar"
    shard.write_bytes(bytes(2048))
    with pytest.raises(CorruptWorkspace, match="expected a checkpoint of a run") as told:
        load_checkpoint(str(shard))
    assert "delete" not in str(told.value)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    # No file may become longer: to its writer what a full disk is.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = replace(at_step(1), model={"weight": torch.ones(300, 1000)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*: File too large"):
            save_checkpoint(str(tmp_path), large, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def load_newest(folder: str) -> Checkpoint:
    return load_checkpoint(checkpoints(folder)[-1])


def at_step(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        spec={"embed": 8},
        model={"weight": torch.full((300,), float(step))},
        optimizer={"state": {0: {"step": torch.tensor(step)}}, "param_groups": [{"lr": 0.1}]},
        stream={"epoch": 1, "position": 2},
        records={"steps": {"loss": [0.5]}, "broken": []},
        average={"weight": torch.ones(2)},
    )


def tiny_model() -> Clip:
    spec = ModelSpec(
        embed=8,
        resolution=32,
        image=ResNetSpec(blocks=(1, 1, 1, 1), width=4, heads=2),
        text=TextSpec(width=8, heads=1, layers=1, context=8, vocabulary=50),
    )
    torch.manual_seed(0)
    model = Clip(spec)
    model.initialize()
    return model


def test_the_newest_checkpoint_comes_back_and_only_the_last_are_kept(tmp_path: Path) -> None:
    assert checkpoints(str(tmp_path / "none")) == []
    (tmp_path / "step-00000011.pt.123.part").write_bytes(b"left by a killed run")
    for step in (2, 9, 100_000_000, 10):
        save_checkpoint(str(tmp_path), at_step(step), keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-00000009.pt",
        "step-00000010.pt",
        "step-100000000.pt",
    ]
    newest = load_newest(str(tmp_path))
    assert newest.step == 100_000_000
    assert newest.model["weight"].tolist() == [100_000_000.0] * 300
    assert newest.optimizer["param_groups"] == [{"lr": 0.1}]
    assert newest.stream == {"epoch": 1, "position": 2}
    assert newest.average is not None
    prune(str(tmp_path), keep=5)
    assert len(checkpoints(str(tmp_path))) == 3
    prune(str(tmp_path), keep=0)
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(str(tmp_path), at_step(1), keep=1)

    def run_out_of_space(content: object, file: object) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", run_out_of_space)
    with pytest.raises(StorageError, match="No space left on device"):
        save_checkpoint(str(tmp_path), at_step(2), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001.pt"]
    newest = load_newest(str(tmp_path))
    assert newest.step == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_one_line_that_says_what_to_do(
    tmp_path: Path, share: float
) -> None:
    for step in (1, 2):
        save_checkpoint(str(tmp_path), at_step(step), keep=2)
    path = tmp_path / "step-00000002.pt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        CorruptWorkspace,
        match=r"00000002\.pt is truncated or damaged; delete it to go on from step 1",
    ):
        load_newest(str(tmp_path))


def test_a_file_of_other_content_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.pt"
    torch.save({"model": {}, "step": 1}, path)
    with pytest.raises(InputError, match=r"is no checkpoint of this version; .* train\.initial"):
        load_checkpoint(str(path))


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    save_checkpoint(str(tmp_path), at_step(1), keep=1)
    path = tmp_path / "step-00000001.pt"
    data = bytearray(path.read_bytes())
    data[data.index(torch.ones(4).numpy().tobytes()) + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptWorkspace, match="truncated or damaged"):
        load_newest(str(tmp_path))


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("open('/tmp/never-written', 'w')",))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"spec": Attack(), "state_dict": {}}, path)
    with pytest.raises(CorruptWorkspace, match="truncated or damaged"):
        load_model(str(path))


def test_a_model_comes_back_as_it_was_and_is_the_same_file_every_time(tmp_path: Path) -> None:
    model = tiny_model()
    for name in ("a.pt", "b.pt"):
        save_model(str(tmp_path / name), model)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    loaded = load_model(str(tmp_path / "a.pt"))
    assert loaded.spec == model.spec
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    torch.testing.assert_close(
        loaded.eval().encode_image(pixels), model.eval().encode_image(pixels)
    )
    assert set(torch.load(tmp_path / "a.pt")) == {"spec", "state_dict"}


def test_an_absent_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        load_model(str(tmp_path / "model.pt"))
