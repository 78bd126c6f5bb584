from pathlib import Path

import pytest
import torch

from pipeline.cli import main
from tests.train.evaluation.pictures import coloured_set
from tests.train.small_models import VIT, build
from train.running.checkpoint import save_model


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Return what evaluates a model of random weights on coloured pictures, but for the output."""
    save_model(str(tmp_path / "model.pt"), build(VIT))
    coloured_set(tmp_path / "colours", 2)
    (tmp_path / "sets.toml").write_text('[colours]\npath = "colours"\n')
    files = [str(tmp_path / "model.pt"), "--sets", str(tmp_path / "sets.toml")]
    return ["evaluate", *files, "--threads", "1", "--device", "cpu"]


def test_a_models_file_is_measured_into_a_folder_of_its_own(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results"
    assert main([*arguments, "--output", str(output), "--templates", "own,plain"]) == 0
    shown = capsys.readouterr().out
    assert "zero_shot own top1" in shown
    assert "zero_shot plain mean_per_class" in shown
    assert {path.name for path in output.iterdir()} == {"evaluate", "features", "witmill.json"}
    assert main(["sql", str(output), "SELECT count(*) FROM predictions"]) == 0
    assert "16" in capsys.readouterr().out


def test_heads_are_named_with_commas_or_one_by_one(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "results")]
    assert main([*arguments, *output, "--heads", "zero_shot,linear_probe"]) == 0
    assert "no linear_probe on colours" in capsys.readouterr().err
    assert main([*arguments, *output, "--heads", "zero_shot", "linear_probe"]) == 0
    assert "evaluate   is done" in capsys.readouterr().err
    assert main([*arguments, *output, "--heads", "juggling"]) == 1
    assert "juggling" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 no weights", "no whole file of weights"),
        ({"fc.weight": torch.zeros(2)}, "no image tower and text tower of CLIP's"),
        ({"spec": {"image": 3}, "state_dict": {}}, "has a spec that is none of ours"),
    ],
)
def test_a_wrong_file_is_one_line(
    tmp_path: Path,
    arguments: list[str],
    content: object,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "model.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "model.pt")
    assert main([*arguments, "--quick-gelu", "--output", str(tmp_path / "results")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_a_model_a_workspace_is_needed(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    without = [arguments[0], *arguments[2:]]
    assert main([*without, "--workspace", str(tmp_path / "none")]) == 1
    assert "is no witmill workspace" in capsys.readouterr().err
    assert main(arguments) == 1
    assert "evaluate has nowhere to write; give --output" in capsys.readouterr().err


def test_without_a_place_for_results_it_says_which_option_names_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", "model.pt", "--sets", "sets.toml"]) == 1
    assert "give --output, a folder for the results" in capsys.readouterr().err
