from pathlib import Path

import pytest

from dedup.evaluation.evalsets import (
    EvalSet,
    entries,
    files_of,
    format_of,
    is_labelled,
    items,
    pieces,
    prompts_of,
)
from dedup.evaluation.readers import entries as reading
from pipeline.errors import InputError
from pipeline.runtime import storage
from tests.dedup.evaluation.readers.made import tarred

CLASSES = {
    "test/coat/2.png": b"two",
    "test/coat/1.png": b"one",
    "train/ankle_boot/3.png": b"3",
    "README": b"no",
}


def webdataset(folder: Path, **texts: str) -> EvalSet:
    """Make a set as CLIP_benchmark does: two splits, the test split in eleven shards."""
    for shard in range(11):
        name = f"s{shard:07d}"
        tarred(
            folder / f"test/{shard}.tar",
            {f"{name}.webp": b"%d" % shard, f"{name}.cls": b"%d" % (shard % 2)},
        )
    tarred(folder / "train/0.tar", {"s0000000.cls": b"1", "s0000000.webp": b"train"})
    (folder / "test/nshards.txt").write_text("11\n")
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return EvalSet(name="w", path=str(folder))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_of_class_folders_is_read_in_its_order(tmp_path: Path, mode: str) -> None:
    evalset = EvalSet(name="a", path=tarred(tmp_path / "a", CLASSES, mode=mode))
    assert format_of(evalset) == "tar"
    assert [(i.item, i.split, i.label, i.data) for i in items(evalset)] == [
        ("test/coat/2.png", "test", "coat", b"two"),
        ("test/coat/1.png", "test", "coat", b"one"),
        ("train/ankle_boot/3.png", "train", "ankle boot", b"3"),
    ]


def test_pieces_of_a_tar_give_together_what_the_whole_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE_ITEMS", 2)
    evalset = EvalSet(name="a", path=tarred(tmp_path / "a.tar", CLASSES))
    shares = [[entry.item for entry in entries(evalset, piece)] for piece in pieces(evalset)]
    assert shares == [["test/coat/2.png", "test/coat/1.png"], ["train/ankle_boot/3.png"]]


def test_a_label_for_a_class_that_a_tar_lacks_is_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a", CLASSES)
    with pytest.raises(InputError, match="no class folder 'boot' that its labels name"):
        list(items(EvalSet(name="a", path=path, labels={"boot": "a boot"})))


def test_a_webdataset_is_read_by_split_and_number_of_shard(tmp_path: Path) -> None:
    evalset = webdataset(tmp_path, classnames="T-shirt/top\nankle_boot\n")
    assert format_of(evalset) == "webdataset"
    found = list(items(evalset))
    assert [i.data for i in found] == [*(b"%d" % n for n in range(11)), b"train"]
    assert [i.split for i in found] == ["test"] * 11 + ["train"]
    # Names of the set's own list are words already.
    assert [i.label for i in found[:2]] == ["T-shirt/top", "ankle_boot"]
    assert found[10].item == "test/10.tar/s0000010.webp"
    renamed = evalset.model_copy(
        update={"labels": {"ankle_boot": "ankle boot"}, "split": ("train",)}
    )
    assert [i.label for i in items(renamed)] == ["ankle boot"]
    assert len(pieces(renamed)) == 1


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    evalset = webdataset(tmp_path)
    assert [i.label for i in items(evalset)][:3] == ["0", "1", "0"]
    named = evalset.model_copy(update={"labels": {"0": "zero", "1": "one"}})
    assert [i.label for i in items(named)][:3] == ["zero", "one", "zero"]


def test_a_class_beyond_the_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"test/1\.tar/s0000001\.webp is of class 1, expected 0 to 0"
    ):
        list(items(webdataset(tmp_path, classnames="coat\n")))
    short = webdataset(tmp_path / "b").model_copy(update={"labels": {"0": "zero"}})
    with pytest.raises(InputError, match="is of class 1, which labels do not name"):
        list(items(short))


def test_the_sets_own_templates_are_its_prompts(tmp_path: Path) -> None:
    evalset = webdataset(
        tmp_path,
        zeroshot_classification_templates="a photo of a {c}.\n\na {c}!\n",
        classnames="a\nb\n",
    )
    assert prompts_of(evalset) == ("a photo of a {label}.", "a {label}!")
    assert prompts_of(EvalSet(name="w", path=str(tmp_path), prompts=("{label}",))) == ("{label}",)
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo\n")
    with pytest.raises(InputError, match=r"has 'a photo', expected \{c\} in every line"):
        prompts_of(evalset)


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    evalset = webdataset(tmp_path)
    (tmp_path / "test/3.tar").unlink()
    with pytest.raises(InputError, match=r"nshards\.txt says '11', but 10 tars are there"):
        pieces(evalset)


def test_a_pattern_of_shards_is_a_webdataset(tmp_path: Path) -> None:
    webdataset(tmp_path, classnames="a\nb\n")
    evalset = EvalSet(name="w", path=f"{tmp_path}/test/1*.tar")
    assert [i.item for i in items(evalset)] == ["1.tar/s0000001.webp", "10.tar/s0000010.webp"]


def test_class_names_beside_a_pattern_or_a_tar_are_files_of_the_set(tmp_path: Path) -> None:
    webdataset(tmp_path)
    names = tmp_path / "test/classnames.txt"
    names.write_text("a\nb\n")
    for path in (f"{tmp_path}/test/1[0].tar", f"{tmp_path}/test/1?.tar", f"{tmp_path}/test/10.tar"):
        evalset = EvalSet(name="w", path=path)
        assert [i.label for i in items(evalset)] == ["a"]
        assert str(names) in files_of("s.toml", [evalset]).values()


def test_only_the_name_of_a_file_says_that_it_is_a_tar(tmp_path: Path) -> None:
    webdataset(tmp_path / "set.tar.d")
    assert (
        len(pieces(EvalSet(name="w", path=str(tmp_path / "set.tar.d"), format="webdataset"))) == 12
    )


def test_a_class_that_is_withheld_is_none(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {"1.jpg": b"", "1.cls": b"-1"})
    (tmp_path / "classnames.txt").write_text("a\nb\n")
    assert [i.label for i in items(EvalSet(name="w", path=path))] == [None]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_names_a_picture_twice_is_refused(tmp_path: Path, mode: str) -> None:
    files = {"coat/1.png": b"a", "./coat/1.png": b"b"}
    with pytest.raises(InputError, match=r"holds coat/1\.png twice"):
        list(items(EvalSet(name="a", path=tarred(tmp_path / "a", files, mode=mode))))


def test_captions_of_a_sample_are_its_lines(tmp_path: Path) -> None:
    members = {"1.jpg": b"p", "1.txt": b"A dog.\n\nEin Hund.\n", "2.txt": b"no picture"}
    for mode in ("w", "w:gz"):
        evalset = EvalSet(name="w", path=tarred(tmp_path / "val.tar", members, mode=mode))
        assert format_of(evalset) == "webdataset"
        assert not is_labelled(evalset)
        (item,) = items(evalset)
        assert (item.captions, item.split, item.data) == (("A dog.", "Ein Hund."), "val", b"p")


def test_a_huge_text_in_a_sample_is_refused(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {"1.jpg": b"", "1.cls": bytes(2 << 20)})
    with pytest.raises(InputError, match=r"1\.cls has 2097152 bytes, expected at most"):
        list(items(EvalSet(name="a", path=path)))


def test_shards_are_read_from_object_storage(tmp_path: Path, s3_bucket: str) -> None:
    local = webdataset(tmp_path, classnames="a\nb\n")
    for path in tmp_path.rglob("*.*"):
        storage.write_bytes(f"{s3_bucket}/w/{path.relative_to(tmp_path)}", path.read_bytes())
    assert list(items(EvalSet(name="w", path=f"{s3_bucket}/w"))) == list(items(local))


def test_the_real_shard_has_captions(shared_data: Path) -> None:
    evalset = EvalSet(name="w", path=str(shared_data / "images/cc12m-train-0000.tar"))
    found = list(items(evalset))
    assert len(found) == 32
    assert all(len(item.captions) == 1 and item.data.startswith(b"\xff\xd8") for item in found)
    assert {item.split for item in found} == {"train"}


def test_the_real_tars_give_classes(shared_data: Path) -> None:
    digits = EvalSet(name="d", path=str(shared_data / "images/mnist_test_png.tar.gz"))
    labels = [entry.label for entry in entries(digits)]
    assert (len(labels), set(labels)) == (10_000, set("0123456789"))
    photographs = EvalSet(
        name="p",
        path=str(shared_data / "images/imagenet_sample_600.tar"),
        pattern=r"n\d{8}_(?P<label>.+)\.JPEG",
    )
    assert [entry.label for entry in entries(photographs)][:3] == [
        "tench",
        "goldfish",
        "hammerhead",
    ]
