import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dedup.calibration import calibrate
from dedup.calibration.calibrate import (
    TOGETHER,
    Thresholds,
    bound,
    count_alarms,
    found,
    measure,
    propose,
)
from dedup.calibration.distances import EMBEDDING, LEVELS, MIRRORED, PDQ, Closest, Unrelated
from dedup.calibration.edits import EDITS
from dedup.calibration.samples import choose, read_chosen
from dedup.evaluation.evalsets import EvalSet
from pipeline import schemas
from pipeline.cli import main
from pipeline.errors import InputError
from pipeline.runtime.executor import Executor, InlineExecutor, make_executor
from tests.dedup.pictures import png
from tests.reference import calibration as slow

COUNT = 12


def picture(number: int, width: int = 96, height: int = 80) -> np.ndarray:
    few = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
    return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, one of them twice, and a file that is no picture."""
    (tmp_path / "set").mkdir()
    for number in range(COUNT):
        (tmp_path / "set" / f"{number:02d}.png").write_bytes(png(picture(number)))
    (tmp_path / "set" / "again.png").write_bytes(png(picture(3)))
    (tmp_path / "set" / "broken.png").write_bytes(b"<html>")
    return tmp_path / "set"


@pytest.fixture
def evalset(folder: Path) -> EvalSet:
    return EvalSet(name="set", path=str(folder))


def measured(
    evalset: EvalSet, executor: Executor | None = None, **options: object
) -> calibrate.Measured:
    given_options = {"sample": 5, "unrelated": 100, **options}
    against = given_options.pop("against", None)
    return measure(evalset, against, executor or InlineExecutor(), **given_options)  # type: ignore[arg-type]


def unrelated(pairs: list[tuple[int, int]]) -> Unrelated:
    """Return what is seen of pairs with these distances by PDQ and by embedding."""
    bits, steps = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    counts = {
        PDQ: np.bincount(bits, minlength=LEVELS[PDQ]),
        MIRRORED: np.bincount(bits, minlength=LEVELS[MIRRORED]),
        EMBEDDING: np.bincount(steps, minlength=LEVELS[EMBEDDING]),
    }
    none = np.empty(0, np.int64)
    closest = dict.fromkeys(counts, Closest(ours=none, theirs=none, distance=none))
    return Unrelated(pairs=len(pairs), same=0, counts=counts, closest=closest)


@given(
    pairs=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 1000)), min_size=1, max_size=40),
    budget=st.sampled_from([0.0, 1.0, 100_000.0, 300_000.0]),
)
def test_thresholds_are_the_loosest_within_the_budget(
    pairs: list[tuple[int, int]], budget: float
) -> None:
    seen = unrelated(pairs)
    proposed = propose(seen, budget)
    each = int(budget * len(pairs) / 1_000_000) // 2
    assert proposed.allowed == {
        PDQ: slow.loosest([bits for bits, _ in pairs], each, 63),
        MIRRORED: slow.loosest([bits for bits, _ in pairs], each, 63),
        EMBEDDING: slow.loosest([steps for _, steps in pairs], each, 1000),
    }
    alarms = count_alarms(seen.counts, proposed, TOGETHER)
    assert alarms <= budget * len(pairs) / 1_000_000


def test_where_unrelated_pictures_are_equal_no_threshold_is_proposed() -> None:
    proposed = propose(unrelated([(0, 0), (90, 500)]), 1)
    assert (proposed.max_distance, proposed.min_similarity) == (None, None)


def test_thresholds_are_told_as_evalsets_toml_has_them() -> None:
    thresholds = Thresholds(allowed={PDQ: 47, MIRRORED: 47, EMBEDDING: 275})
    assert (thresholds.max_distance, thresholds.min_similarity) == (47, 0.725)


@pytest.mark.parametrize(("alarms", "pairs"), [(0, 10), (0, 400), (1, 50), (3, 60), (7, 8)])
def test_bounds_are_those_of_the_binomial_distribution(alarms: int, pairs: int) -> None:
    assert bound(alarms, pairs) == pytest.approx(1e6 * slow.upper_bound(alarms, pairs), rel=1e-6)


def test_of_no_alarm_in_n_pairs_the_bound_is_three_over_n() -> None:
    assert bound(0, 3_000_000) == pytest.approx(1.0, rel=0.002)
    assert bound(0, 50_000_000) == pytest.approx(0.06, rel=0.002)


def test_together_finds_what_either_finds() -> None:
    thresholds = Thresholds(allowed={PDQ: 20, MIRRORED: 20, EMBEDDING: 300})
    distances = {
        PDQ: np.array([10, 90, 90, 90], np.int16),
        MIRRORED: np.array([10, 20, 90, 90], np.int16),
        EMBEDDING: np.array([900, 900, 300, 301], np.int16),
    }
    by = {
        method: found(distances, thresholds, method).tolist()
        for method in (PDQ, MIRRORED, EMBEDDING, TOGETHER)
    }
    assert by == {
        PDQ: [True, False, False, False],
        MIRRORED: [True, True, False, False],
        EMBEDDING: [False, False, True, False],
        TOGETHER: [True, True, True, False],
    }


def test_pictures_are_chosen_by_their_names_in_the_order_of_the_set(evalset: EvalSet) -> None:
    everything, some = choose(evalset, 100), choose(evalset, 5)
    assert [place.item for place in everything] == sorted(place.item for place in everything)
    assert set(some) < set(choose(evalset, 7)) < set(everything)
    for place, data in read_chosen(evalset, some):
        assert data == (Path(evalset.path) / place.item).read_bytes()


def test_all_pairs_of_different_pictures_are_counted(evalset: EvalSet) -> None:
    seen = measured(evalset)
    assert len(seen.pictures.chosen) == COUNT + 1
    assert [refusal.split(",")[0] for refusal in seen.pictures.refused] == ["broken.png"]
    assert seen.unrelated.same == 1
    assert seen.unrelated.pairs == 13 * 12 // 2 - 1
    assert seen.unrelated.counts[PDQ].sum() == seen.unrelated.pairs


def test_pictures_are_compared_with_those_of_another_set(evalset: EvalSet, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for number in range(2, 6):
        (tmp_path / "other" / f"x{number}.png").write_bytes(png(picture(number)))
    other = EvalSet(name="other", path=str(tmp_path / "other"))
    seen = measured(evalset, against=other)
    # 3 is there twice.
    assert (seen.unrelated.pairs, seen.unrelated.same) == (13 * 4 - 5, 5)


def test_light_copies_are_found_and_flips_by_the_mirrored_hash_alone(evalset: EvalSet) -> None:
    seen = measured(evalset)
    thresholds = Thresholds(allowed={PDQ: 31, MIRRORED: 31})
    for edit in ("jpeg 90", "jpeg 50", "half size", "grey"):
        assert found(seen.copies[edit], thresholds, PDQ).all()
    assert not found(seen.copies["flip"], thresholds, PDQ).any()
    assert found(seen.copies["flip"], thresholds, MIRRORED).all()
    assert not found(seen.copies["crop 60%"], thresholds, MIRRORED).any()


def test_workers_and_blocks_change_nothing(
    evalset: EvalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = calibrate.tabulate(measured(evalset), "a", "b")
    executor = make_executor("local", workers=2)
    monkeypatch.setattr("dedup.calibration.samples.EDITED", 2)
    monkeypatch.setattr("dedup.calibration.samples.PLAIN", 3)
    try:
        spread = calibrate.tabulate(measured(evalset, executor), "a", "b")
    finally:
        executor.close()
    assert spread.equals(alone)


def test_pairs_that_a_person_calls_the_same_are_no_false_alarms(
    evalset: EvalSet, folder: Path
) -> None:
    near = picture(5).copy()
    near[:8, :8] = 255
    (folder / "near.png").write_bytes(png(near))
    seen = measured(evalset)
    rows = list(csv.DictReader(io.StringIO(calibrate.closest_csv(seen).decode())))
    assert (rows[0]["item"], rows[0]["other"]) == ("05.png", "near.png")
    assert count_alarms(seen.unrelated.counts, Thresholds(allowed={PDQ: 40}), PDQ) == 1
    judged = folder.parent / "same.csv"
    judged.write_text("item,other\nnear.png,05.png\nunknown.png,01.png\n")
    again = measured(evalset, same=str(judged))
    assert count_alarms(again.unrelated.counts, Thresholds(allowed={PDQ: 40}), PDQ) == 0
    assert again.unrelated.pairs == seen.unrelated.pairs - 1


def test_a_list_of_the_same_without_its_columns_is_refused(
    evalset: EvalSet, tmp_path: Path
) -> None:
    (tmp_path / "same.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"same\.csv has columns a, b, expected item and other"):
        measured(evalset, same=str(tmp_path / "same.csv"))


def test_a_single_picture_has_no_unrelated_one(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(picture(1)))
    with pytest.raises(InputError, match="holds one picture, expected two or more, or --against"):
        measured(EvalSet(name="one", path=str(tmp_path)))
    (tmp_path / "2.png").write_bytes(png(picture(1)))
    with pytest.raises(InputError, match="all pictures are the same"):
        measured(EvalSet(name="two", path=str(tmp_path)))


def test_blank_pictures_are_far_from_all_by_pdq(tmp_path: Path) -> None:
    for number, grey in enumerate((40, 90, 200)):
        (tmp_path / f"{number}.png").write_bytes(png(np.full((80, 80, 3), grey, np.uint8)))
    seen = measured(EvalSet(name="blank", path=str(tmp_path)))
    assert seen.unrelated.counts[MIRRORED][256] == 3
    assert propose(seen.unrelated, 1).max_distance == 63


def test_the_command_writes_tables_and_sheets(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml, model = tmp_path / "sets.toml", tmp_path / "grid.onnx"
    toml.write_text('[small]\npath = "set"\n')
    save_grid(model)
    output = tmp_path / "out"
    arguments = ["small", "--evalsets", str(toml), "--model", str(model), "--sample", "6"]
    command = ["dedup", "calibrate", *arguments, "--workers", "0", "-o", str(output)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "6 pictures, each under 24 edits" in told
    assert "77 pairs of unrelated pictures: 13 pictures with each other" in told
    assert "1 pictures cannot be decoded, the first: broken.png, not_an_image: html" in told
    assert "# more unrelated pictures are needed to vouch for 1 per million" in told
    table = pq.read_table(output / "calibration.parquet")
    schemas.check(table, schemas.CALIBRATION, source="test")
    assert set(table.column("method").to_pylist()) == {PDQ, MIRRORED, EMBEDDING, TOGETHER}
    assert set(table.column("edit").to_pylist()) == set(EDITS)
    for name in ("hits", "near_misses", "false_alarms", "recall"):
        with Image.open(output / f"{name}.png") as sheet:
            assert min(sheet.size) > 200
    lines = (output / "thresholds.toml").read_text().splitlines()
    assert lines[0] == "[small]"
    assert any(line.startswith("min_similarity = ") for line in lines)
    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == first


def test_a_path_is_a_set_by_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "some pictures.v2.zip", "w") as archive:
        for path in sorted(folder.glob("0*.png")):
            archive.write(path, path.name)
    monkeypatch.chdir(tmp_path)
    assert (
        main(["dedup", "calibrate", "some pictures.v2.zip", "--sample", "2", "--workers", "0"]) == 0
    )
    written = {path.name for path in (tmp_path / "calibration" / "some_pictures").iterdir()}
    assert written == {
        "calibration.parquet", "closest.csv", "thresholds.toml", "recall.png", "hits.png",
        "near_misses.png", "false_alarms.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.tar"], "nothing.tar is no file or folder; expected one, or a set that"),
        (["--sample", "0", "."], "sample is 0, expected 1 to 5000"),
        (["--unrelated", "1", "."], "unrelated is 1, expected 2 or more"),
        (["--budget", "-1", "."], "budget is -1.0, expected 0 to 1000"),
        (["--model", "no.onnx", "."], 'embedding model is "no.onnx", expected'),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dedup", "calibrate", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def save_grid(path: Path) -> None:
    """Write a model that embeds a picture by the means of an eight by eight grid."""
    from onnx import TensorProto, helper

    pictures = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", 3, 64, 64])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 192])
    nodes = [
        helper.make_node(
            "AveragePool", ["pictures"], ["grid"], kernel_shape=[8, 8], strides=[8, 8]
        ),
        helper.make_node("Flatten", ["grid"], ["features"]),
    ]
    graph = helper.make_graph(nodes, "grid", [pictures], [features])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
