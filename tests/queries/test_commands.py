import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.cli import main


def test_page_views_are_counted_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"en Dog 5 0\nen Talk:Dog 1 0\n"))
    output = str(tmp_path / "views.parquet")
    assert main(["queries", "pageviews", str(tmp_path / "a.gz"), "--output", output, "--workers", "0"]) == 0  # fmt: skip
    assert f"5  views of 1 titles in {output}" in capsys.readouterr().out


def test_a_source_alone_is_written_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "numbers.parquet")
    assert main(["queries", "source", "number", "--output", output, "--numbers", "7"]) == 0
    assert "number: 7 of 7 candidates" in capsys.readouterr().out
    assert pq.read_table(output).num_rows == 7


def test_a_list_is_built_described_and_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("Red Panda\n7\n")
    output = str(tmp_path / "list.parquet")
    build = ["queries", "build", "--output", output, "--size", "11", "--numbers", "10"]
    build += ["--lists", str(tmp_path / "mine.txt"), "--priority", "user", "number"]
    assert main(build) == 0
    assert "user               2                 2           2" in capsys.readouterr().out
    assert main(["queries", "stats", output]) == 0
    assert "number and user" in capsys.readouterr().out
    assert main(["queries", "explain", "red pandas", "7", "--list", output]) == 0
    answer = capsys.readouterr().out
    assert "close to it: 'red panda'" in answer
    assert "'7' is in the list: id 1, from user, number" in answer


def test_a_preset_is_chosen_on_the_command_line_and_options_win(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "list.parquet")
    build = ["queries", "build", "--output", output, "--preset", "paper", "--size", "3", "--numbers", "3"]  # fmt: skip
    assert main([*build, "--priority", "number"]) == 0
    assert pq.read_table(output)["source"].to_pylist() == ["number"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--preset", "laion"], "laion"),
        (["build", "--priority", "number", "number"], "each source once"),
        (["build", "--priority", "number", "--output", "x/list.parquet"], "the sources give 100 queries"),
        (["build", "--priority", "wordnet", "--wordnet", "nowhere"], "nowhere/data.noun"),
        (["build", "--priority", "title", "--pageviews", "nowhere.parquet"], "nowhere.parquet"),
        (["build", "--priority", "unigram", "--wikipedia", "nowhere"], "no witmill workspace"),
        (["build", "--priority", "user", "--lists", "nowhere.txt"], "nowhere.txt"),
        (["source", "web", "--output", "x"], "web"),
        (["pageviews"], "no files were given"),
        (["pageviews", "nowhere/*.gz"], "nowhere"),
        (["stats", "nowhere.parquet"], "nowhere.parquet"),
        (["explain", "dog", "--list", "nowhere.parquet"], "nowhere.parquet"),
        (["explain", ""], "has no letter, digit or mark"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["queries", *arguments]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
