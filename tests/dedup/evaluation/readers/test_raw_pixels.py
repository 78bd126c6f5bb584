import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dedup.evaluation.evalsets import EvalItem, EvalSet, format_of, items, pieces
from pipeline.errors import InputError
from pipeline.runtime import storage
from tests.dedup.evaluation.readers.made import cifar_pixels, idx, old_pickle, protocol_2, tarred

DIGITS = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


def mnist(folder: Path, *, images: bytes = idx(DIGITS), labels: bytes = idx(LABELS)) -> EvalSet:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(images)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return EvalSet(name="m", path=str(folder))


def cifar_10(pickled: Any = old_pickle) -> dict[str, bytes]:
    names = ["airplane", "automobile", "bird"]
    batches = {
        name: {"data": cifar_pixels(3, seed), "labels": [0, 2, 1]}
        for seed, name in enumerate(("data_batch_4", "test_batch", "data_batch_1"))
    }
    files = {**batches, "batches.meta": {"label_names": names, "num_vis": 3072}}
    return {f"cifar-10-batches-py/{name}": pickled(values) for name, values in files.items()}


def pixels(item: EvalItem) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(item.data)))


def test_mnist_files_are_found_by_name_compressed_or_not(tmp_path: Path) -> None:
    evalset = mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(DIGITS[:2])))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    assert (format_of(evalset), len(pieces(evalset))) == ("idx", 2)
    found = list(items(evalset))
    assert [(i.item, i.split, i.label) for i in found[:2]] == [
        ("t10k-images-idx3-ubyte#0", "test", "3"),
        ("t10k-images-idx3-ubyte#1", "test", "1"),
    ]
    assert [i.split for i in found[5:]] == ["train", "train"]
    assert all(np.array_equal(pixels(i), digit) for i, digit in zip(found, DIGITS, strict=False))
    assert not any(item.is_original for item in found)


def test_one_file_of_pictures_finds_the_labels_beside(tmp_path: Path) -> None:
    mnist(tmp_path)
    labels = {"3": "three", "1": "one", "4": "four", "5": "five"}
    path = f"{tmp_path}/t10k-images-idx3-ubyte"
    found = items(EvalSet(name="m", path=path, labels=labels))
    assert [i.label for i in found] == ["three", "one", "four", "one", "five"]


def test_exchanged_rows_and_columns_are_put_right(tmp_path: Path) -> None:
    evalset = mnist(tmp_path).model_copy(update={"transposed": True})
    assert np.array_equal(pixels(next(items(evalset))), DIGITS[0].T)


@pytest.mark.parametrize(
    ("images", "labels", "problem"),
    [
        (idx(DIGITS)[:-1], idx(LABELS), "t10k-images-idx3-ubyte ends early"),
        (idx(DIGITS)[:10], idx(LABELS), "t10k-images-idx3-ubyte ends early"),
        (idx(DIGITS), idx(LABELS)[:-1], "t10k-labels-idx1-ubyte.gz ends early"),
        (idx(DIGITS), idx(LABELS[:4]), "has 5 pictures and 4 labels"),
        (idx(DIGITS), idx(DIGITS), "is no idx file of labels"),
        (idx(DIGITS)[:8] + b"\xff" * 8, idx(LABELS), "pictures of 4294967295x4294967295"),
        (idx(DIGITS)[:8] + bytes(8), idx(LABELS), "pictures of 0x0 pixels"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, images: bytes, labels: bytes, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        list(items(mnist(tmp_path, images=images, labels=labels)))


def test_pictures_without_labels_are_refused(tmp_path: Path) -> None:
    evalset = mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"has no labels, expected t10k-labels-idx1-ubyte or t10k"):
        list(items(evalset))


def test_a_label_without_a_name_is_refused(tmp_path: Path) -> None:
    evalset = mnist(tmp_path).model_copy(update={"labels": {"0": "zero", "3": "three"}})
    with pytest.raises(InputError, match=r"#1 is of class 1, which labels do not name; .* 0 to 3"):
        list(items(evalset))


@pytest.mark.parametrize("pickled", [old_pickle, protocol_2])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_cifar_10_is_read_out_of_its_archive(tmp_path: Path, mode: str, pickled: Any) -> None:
    path = tarred(tmp_path / "cifar-10-python.tar.gz", cifar_10(pickled), mode=mode)
    evalset = EvalSet(name="c", path=path)
    assert format_of(evalset) == "cifar"
    found = list(items(evalset))
    assert [(i.item, i.split) for i in found[::3]] == [
        ("cifar-10-batches-py/data_batch_4#0", "train"),
        ("cifar-10-batches-py/test_batch#0", "test"),
        ("cifar-10-batches-py/data_batch_1#0", "train"),
    ]
    assert [i.label for i in found[:3]] == ["airplane", "bird", "automobile"]
    expected = cifar_pixels(3, 1)[2].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(pixels(found[5]), expected)


def test_cifar_100_is_read_out_of_its_folder(tmp_path: Path) -> None:
    files = {
        "train": {"data": cifar_pixels(2), "fine_labels": [1, 0], "coarse_labels": [0, 0]},
        "meta": {"fine_label_names": ["apple", "aquarium_fish"], "coarse_label_names": ["x"]},
    }
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, values in files.items():
        (folder / name).write_bytes(old_pickle(values))
    (folder / "file.txt~").write_bytes(b"")
    for path in (folder, tmp_path):
        evalset = EvalSet(name="c", path=str(path), split=("train",))
        assert [i.label for i in items(evalset)] == ["aquarium fish", "apple"]


def test_a_hostile_pickle_is_one_line(tmp_path: Path) -> None:
    files = {"cifar-10-batches-py/data_batch_1": b"\x80\x02cos\nsystem\nU\x04true\x85R."}
    evalset = EvalSet(name="c", path=tarred(tmp_path / "a.tar", files))
    with pytest.raises(InputError) as caught:
        list(items(evalset))
    assert str(caught.value) == (
        f"evaluation set c: {tmp_path}/a.tar: cifar-10-batches-py/data_batch_1 is no pickle of CIFAR: "
        "it asks for os.system"
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"data": cifar_pixels(2), "labels": [1]}, "has 2 pictures, expected as many labels"),
        ({"data": cifar_pixels(2)}, "has 2 pictures, expected as many labels"),
        ({"data": cifar_pixels(1), "labels": [3]}, "test_batch#0 is of class 3, expected 0 to 2"),
        ({"data": cifar_pixels(1), "labels": ["x"]}, "expected a number"),
        ({"labels": [1]}, "test_batch: data is nonetype, expected an array"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    tmp_path: Path, values: dict[str, Any], problem: str
) -> None:
    files = {**cifar_10(), "cifar-10-batches-py/test_batch": old_pickle(values)}
    with pytest.raises(InputError, match=problem):
        list(items(EvalSet(name="c", path=tarred(tmp_path / "a.tar", files))))


def test_files_of_one_name_in_two_folders_have_names_of_their_own(tmp_path: Path) -> None:
    mnist(tmp_path / "letters")
    mnist(tmp_path / "digits")
    found = [item.item for item in items(EvalSet(name="m", path=str(tmp_path)))]
    assert found[::5] == ["digits/t10k-images-idx3-ubyte#0", "letters/t10k-images-idx3-ubyte#0"]


def test_a_class_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    files = {**cifar_10(), "cifar-10-batches-py/batches.meta": old_pickle({"label_names": [1]})}
    with pytest.raises(InputError, match=r"batches\.meta: a name is int, expected text"):
        list(items(EvalSet(name="c", path=tarred(tmp_path / "a.tar", files))))


def test_raw_sets_are_read_from_object_storage(tmp_path: Path, s3_bucket: str) -> None:
    local = mnist(tmp_path / "mnist")
    tarred(tmp_path / "cifar.tar.gz", cifar_10(), mode="w:gz")
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            name = path.relative_to(tmp_path)
            storage.write_bytes(f"{s3_bucket}/{name}", path.read_bytes())
    storage.write_bytes(
        f"{s3_bucket}/mnist/t10k-images-idx3-ubyte",
        (tmp_path / "mnist/t10k-images-idx3-ubyte").read_bytes(),
    )
    assert list(items(EvalSet(name="m", path=f"{s3_bucket}/mnist"))) == list(items(local))
    remote = EvalSet(name="c", path=f"{s3_bucket}/cifar.tar.gz")
    assert len(list(items(remote))) == 9
