import shutil
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.runtime.workspace import Workspace
from tests.pipeline.shards.corpora import kept, pack, pair_id, rows


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Workspace:
    workspace = kept(tmp_path_factory.mktemp("original") / "W", 12)
    pack(workspace, 5)
    return workspace


@pytest.fixture
def packed(original, tmp_path) -> Workspace:
    shutil.copytree(original.root, tmp_path / "W")
    return Workspace(root=str(tmp_path / "W"))


def test_whole_shards_are_said_to_be_so(packed, capsys):
    assert main(["verify", packed.root, "--decode", "--workers", "0"]) == 0
    assert "3 shards, 12 samples" in capsys.readouterr().out


def test_each_fault_is_a_line_and_the_status_says_that_there_are_some(packed, capsys):
    path = Path(packed.path("shard/00001.tar"))
    path.write_bytes(path.read_bytes()[:-600])
    assert main(["verify", packed.root, "--workers", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("cut short" in line for line in lines)
    assert lines[-1].endswith(f": {len(lines) - 1} faults")


def test_a_subset_is_written_and_may_be_verified(packed, tmp_path, capsys):
    target = str(tmp_path / "N")
    options = ["--where", "language = 'en'", "--samples-per-shard", "3", "--workers", "0"]
    assert main(["reshard", packed.root, "--output", target, *options]) == 0
    assert "8 samples in 3 shards" in capsys.readouterr().out
    assert main(["verify", target, "--workers", "0"]) == 0


def test_pairs_are_removed(packed, tmp_path, capsys):
    (tmp_path / "urls").write_text("http://example.com/3.jpg\nhttp://example.com/4.jpg\n")
    (tmp_path / "ids").write_text(pair_id(5))
    lists = ["--urls", str(tmp_path / "urls"), "--pair-ids", str(tmp_path / "ids")]
    assert main(["remove", packed.root, *lists, "--workers", "0"]) == 0
    assert "3 pairs removed" in capsys.readouterr().out
    assert {row["list"] for row in rows(packed, "removed")} == {"urls", "ids"}
    assert main(["verify", packed.root, "--workers", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["verify", "nowhere"], "nowhere does not exist"),
        (["reshard", "W", "--output", "W"], "is what is read; choose another --output"),
        (["reshard", "W", "--output", "N", "--where", "size = 1"], 'column "size" not found'),
        (["reshard", "W", "--output", "N", "--where", "false"], "no sample is meant"),
        (["reshard", "W", "--output", "N", "--uids", "nowhere"], "nowhere"),
        (["reshard", "W", "--output", "N", "--shard-bytes", "big"], "a size such as 1GB"),
        (["remove", "W"], "no list is given"),
        (["remove", "W", "--urls", "nowhere"], "nowhere"),
        (["remove", "nowhere", "--urls", "x"], "is no witmill workspace"),
    ],
)
def test_bad_input_is_one_line(packed, monkeypatch, capsys, arguments, seen):
    monkeypatch.chdir(Path(packed.root).parent)
    assert main([*arguments, "--workers", "0"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert seen in said[-1]
    assert said[-1].startswith("witmill: ")
