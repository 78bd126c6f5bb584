from pathlib import Path

import pytest

from dedup.evaluation.evalsets import items, read_evalsets
from pipeline.errors import ConfigError


def written(folder: Path, text: str) -> str:
    path = folder / "sets.toml"
    path.write_text(text)
    return str(path)


def test_probes_learn_from_other_splits_of_the_set(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "val/a/2.png", "val/a/3.png", "test/a/4.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"")
    text = '[pets]\npath = "set"\nsplit = "test"\ntrain = ["train", "val"]\nvalidation = "val"\n'
    (evalset,) = read_evalsets(written(tmp_path, text + 'labels = { a = "A" }\n'))
    train, validation = evalset.learns_from("train"), evalset.learns_from("validation")
    assert train is not None
    assert validation is not None
    assert [i.item for i in items(evalset)] == ["test/a/4.png"]
    assert [i.item for i in items(train)] == ["train/a/1.png", "val/a/2.png", "val/a/3.png"]
    assert [i.item for i in items(validation)] == ["val/a/2.png", "val/a/3.png"]
    assert {i.label for i in items(train)} == {"A"}
    assert train.learns_from("train") is None


def test_what_differs_of_the_training_pictures_may_be_their_place(tmp_path: Path) -> None:
    text = '[pets]\npath = "a.zip"\npattern = "(?P<label>x)"\ntrain = { path = "more/b.zip", pattern = "(?P<label>y)" }\n'
    (evalset,) = read_evalsets(written(tmp_path, text))
    train = evalset.learns_from("train")
    assert train is not None
    assert (train.path, train.pattern) == (str(tmp_path / "more" / "b.zip"), "(?P<label>y)")
    assert (train.name, evalset.path) == ("pets", str(tmp_path / "a.zip"))
    assert evalset.learns_from("validation") is None


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("train = { splt = 'train' }", r"train\.splt is not a setting"),
        ("train = 3", r"train\.split is 3, expected"),
        ("validation = { name = 'x' }", r"pets\.validation has name, expected what says where"),
        ("train = { train = 'x' }", r"pets\.train has train, expected"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(tmp_path: Path, part: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_evalsets(written(tmp_path, f"[pets]\npath = 'a.zip'\n{part}\n"))
