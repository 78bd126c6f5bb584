import pytest

from dedup.evaluation.readers.entries import Place, clean, place_of, split_of


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/test-00000-of-00001.parquet", "test"),
        ("data/train_2014-00003-of-00010.parquet", "train_2014"),
        ("captions_val2017.json", "val2017"),
        ("w/validation/0.tar", "validation"),
        ("w/0.tar", ""),
        ("cc12m-train-0000.tar", "train"),
        ("latest.parquet", ""),
        ("devices.parquet", ""),
        ("trainset/contest.parquet", ""),
        ("s3://bucket/set/dev/a.parquet", "dev"),
    ],
)
def test_a_split_is_a_word_in_the_name_or_the_folder(path: str, split: str) -> None:
    assert split_of(path) == split


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("coat/1.PNG", Place("coat", "")),
        ("1.png", Place(None, "")),
        ("val2017/coat/1.png", Place("coat", "val2017")),
        ("train/1.png", Place(None, "train")),
        ("wear/test/1.png", Place(None, "test")),
        ("test/train/1.png", Place("train", "test")),
        ("coat/1.txt", None),
        ("coat/.1.png", None),
        ("__MACOSX/coat/1.png", None),
    ],
)
def test_the_place_of_a_picture_is_its_class_and_split(name: str, place: Place | None) -> None:
    assert place_of(name, "") == place


def test_names_of_archives_become_text() -> None:
    names = ("./a/b", "/a", "a//b", "\udcff", "../a/./../b", "..", "..a/...")
    assert [clean(name) for name in names] == [
        "a/b", "a", "a/b", "\\udcff", "a/b", "", "..a/...",
    ]  # fmt: skip
