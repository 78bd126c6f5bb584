import os
from pathlib import Path

import pyarrow.compute as pc
import pytest

from pipeline.downloading import journal
from pipeline.downloading.journal import MEASURED, Journal
from pipeline.downloading.via_img2dataset import Refusal
from pipeline.errors import CorruptWorkspace
from pipeline.pictures.examine import StoredImage, examine
from tests.pipeline.download_runs import png, settings


def image(seed: int) -> StoredImage:
    return examine(png(seed), settings())


def contents(kept: Journal) -> dict[int, StoredImage | Refusal]:
    """Return what a journal holds, read from its files."""
    found = {}
    with kept.images() as read:
        for row in kept.answers().to_pylist():
            if row["reason"] is not None:
                found[row["rank"]] = Refusal(row["reason"], row["detail"])
                continue
            data = read(row["file"], row["image_offset"], row["image_length"])
            measured = [row[name] for name in MEASURED]
            found[row["rank"]] = (measured, row["extension"], data)
    return found


def expected(answers: dict[int, StoredImage | Refusal]) -> dict[int, object]:
    return {
        rank: answer
        if isinstance(answer, Refusal)
        else ([getattr(answer.measured, name) for name in MEASURED], answer.extension, answer.data)
        for rank, answer in answers.items()
    }


@pytest.fixture(params=["local", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "journal")
    return f"{request.getfixturevalue('s3_bucket')}/journal"


def test_what_was_flushed_is_known_to_the_next_run(folder):
    answers = {5: image(5), 2: Refusal("dns", "h.example"), 9: image(9), 0: Refusal("empty")}
    first = Journal(folder)
    for rank in (5, 2):
        first.add(rank, answers[rank])
    first.flush()
    first.add(9, image(9))
    second = Journal(folder)
    assert second.known().tolist() == [2, 5]
    for rank in (9, 0):
        second.add(rank, answers[rank])
    second.flush()
    assert contents(second) == expected(answers)
    assert contents(Journal(folder)) == expected(answers)


def test_an_empty_one_knows_nothing(folder):
    kept = Journal(folder)
    kept.flush()
    assert kept.known().tolist() == []
    assert contents(kept) == {}
    assert kept.answers().num_rows == 0


def test_it_is_written_as_bytes_or_seconds_come_together(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH_BYTES", 2 * len(png()))
    kept = Journal(str(tmp_path))
    for rank in range(5):
        kept.add(rank, image(rank))
    assert len(Journal(str(tmp_path)).known()) == 4
    monkeypatch.setattr(journal, "FLUSH_S", 0)
    kept.add(5, Refusal("dns"))
    assert len(Journal(str(tmp_path)).known()) == 6


def test_images_without_a_table_do_not_count(tmp_path):
    kept = Journal(str(tmp_path))
    kept.add(0, image(0))
    kept.flush()
    [table] = tmp_path.glob("*.parquet")
    table.unlink()
    assert Journal(str(tmp_path)).known().tolist() == []


def test_two_that_worked_on_the_same_agree(tmp_path):
    one, other = Journal(str(tmp_path)), Journal(str(tmp_path))
    for kept in (one, other):
        for rank in (3, 1):
            kept.add(rank, image(rank))
        kept.flush()
    both = Journal(str(tmp_path))
    assert both.answers().column("rank").to_pylist() == [1, 3]
    assert contents(both) == expected({1: image(1), 3: image(3)})


def test_images_that_were_cut_are_noticed(tmp_path):
    kept = Journal(str(tmp_path))
    kept.add(0, image(0))
    kept.flush()
    [images] = tmp_path.glob("*.images")
    os.truncate(images, 100)
    with pytest.raises(CorruptWorkspace, match="ends within the image at byte 0"):
        contents(kept)


def test_rows_are_of_ranks_and_each_has_one(tmp_path):
    kept = Journal(str(tmp_path))
    for rank in (2, 0, 1):
        kept.add(rank, Refusal("dns"))
        kept.flush()
    table = kept.answers()
    assert table.column("rank").to_pylist() == [0, 1, 2]
    assert pc.all(pc.equal(table.column("reason"), "dns")).as_py()
