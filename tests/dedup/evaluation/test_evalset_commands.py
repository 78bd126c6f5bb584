from pathlib import Path

import pytest

from pipeline.cli import main
from tests.dedup.evaluation.readers.made import png, tarred


@pytest.fixture
def sets(tmp_path: Path) -> str:
    files = {"test/coat/1.png": png(1, side=80), "test/boot/2.png": png(2, side=80)}
    tarred(tmp_path / "wear.tar", files)
    (tmp_path / "list.txt").write_text("1.jpg#0\tA coat.\n1.jpg#1\tA warm coat.\n")
    toml = tmp_path / "sets.toml"
    toml.write_text('[wear]\npath = "wear.tar"\n[captions]\npath = "list.txt"\n')
    return str(toml)


def fields(line: str) -> list[str]:
    return line.split()


def test_sets_are_listed(sets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalsets", "list", sets]) == 0
    heading, wear, captions = capsys.readouterr().out.splitlines()
    assert fields(heading)[:3] == ["set", "format", "pictures"]
    assert fields(wear) == ["wear", "tar", "2", "2", "0", "test:2", "yes"]
    assert fields(captions) == ["captions", "flickr", "0", "0", "2", "-", "yes"]


def test_a_set_that_cannot_be_read_is_listed_with_the_reason(
    sets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(sets)
    tarred(path.parent / "broken.tar", {"a/1.png": b"<html>"})
    path.write_text(path.read_text() + '[none]\npath = "none"\n[broken]\npath = "broken.tar"\n')
    assert main(["evalsets", "list", sets]) == 1
    *_, none, broken = capsys.readouterr().out.splitlines()
    assert "no: evaluation set none: " in none
    assert none.endswith("does not exist, expected a file, a folder or a pattern")
    assert broken.endswith("no: not_an_image: html")


def test_an_index_is_written_once(sets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalsets", "index", sets, "--workers", "0"]) == 0
    wear, captions, place = capsys.readouterr().out.splitlines()
    assert fields(wear)[:3] == ["wear", "2", "pictures,"]
    assert fields(captions)[-3:] == ["2", "captions;", "indexed"]
    folder = sets.removesuffix(".toml") + ".index"
    assert place == f"in {folder}"
    assert len(list(Path(folder).rglob("*.parquet"))) == 2
    assert main(["evalsets", "index", sets, "--workers", "0"]) == 0
    assert [fields(line)[-1] for line in capsys.readouterr().out.splitlines()[:2]] == [
        "unchanged"
    ] * 2


def test_unreadable_pictures_are_told(sets: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(sets).parent
    tarred(folder / "wear.tar", {"a/1.png": b"<html>", "a/2.png": png(2, side=80)})
    assert main(["evalsets", "index", sets, "--workers", "0", "--output", str(folder / "i")]) == 0
    assert "1 unreadable: a/1.png is refused, not_an_image: html" in capsys.readouterr().out
    assert (folder / "i" / "wear").is_dir()


def test_pictures_that_a_list_names_in_vain_are_told(
    sets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(sets)
    tarred(path.parent / "images.tar", {"1.jpg": png(1, side=80)})
    (path.parent / "list.txt").write_text("1.jpg#0\tA coat.\n2.jpg#0\tA boot.\n")
    path.write_text('[captions]\npath = "list.txt"\nimages = "images.tar"\n')
    assert main(["evalsets", "index", sets, "--workers", "0"]) == 0
    assert "1 not among the images: their captions alone" in capsys.readouterr().out


def test_a_wrong_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalsets", "index", str(tmp_path / "none.toml")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
