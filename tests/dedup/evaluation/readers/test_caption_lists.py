import gzip
import json
import zipfile
from pathlib import Path

import pytest

from dedup.evaluation.evalsets import EvalSet, entries, format_of, is_labelled, items
from pipeline.errors import InputError
from tests.dedup.evaluation.readers.made import tarred

COCO = {
    "info": {"year": 2017},
    "images": [{"id": 9, "file_name": "b.jpg"}, {"id": 4, "file_name": "a.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 4, "caption": "A cat sleeps."},
        {"id": 2, "image_id": 9, "caption": "Ein Hund."},
        {"id": 3, "image_id": 4, "caption": "Cat on a sofa."},
    ],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filename": "b.jpg", "filepath": "val2014", "split": "test", "sentids": [1],
            "sentences": [{"raw": "Ein Hund.", "tokens": ["ein", "hund"]}],
        },
        {"filename": "a.jpg", "split": "val", "sentences": [{"raw": "A cat sleeps."}, {"raw": "Cat on a sofa."}]},
    ],
}  # fmt: skip
FLICKR = "b.jpg#0\tEin Hund.\na.jpg#0\tA cat sleeps.\na.jpg#1\tCat on a sofa.\n"
FLICKR_TABLES = {
    "commas": 'image,caption\nb.jpg,Ein Hund.\na.jpg,A cat sleeps.\na.jpg,"Cat on a sofa."\n',
    "bars": "image_name| comment_number| comment\nb.jpg| 0| Ein Hund.\na.jpg| 0   A cat sleeps.\na.jpg| 1| Cat on a sofa.\n",
    "lists": 'raw,sentids,split,filename,img_id\n"[""Ein Hund.""]","[0]",test,b.jpg,0\n"[""A cat sleeps."", ""Cat on a sofa.""]","[1, 2]",train,a.jpg,1\n',
}
CAPTIONS = {"a.jpg": ("A cat sleeps.", "Cat on a sofa."), "b.jpg": ("Ein Hund.",)}


def listed(folder: Path, **settings: object) -> EvalSet:
    path = folder / "captions_val2017.json"
    path.write_text(json.dumps(COCO))
    return EvalSet.model_validate({"name": "c", "path": str(path), **settings})


def pictures(folder: Path) -> dict[str, str]:
    """Put the same two pictures, and one that is not listed, into a folder, a zip and tars."""
    names = {"val2017/a.jpg": b"cat", "val2017/b.jpg": b"dog", "val2017/c.jpg": b"other"}
    for name, data in names.items():
        (folder / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "folder" / name).write_bytes(data)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    tarred(folder / "images.tar", names)
    tarred(folder / "images.tgz", names, mode="w:gz")
    return {
        kind: str(folder / kind) for kind in ("folder", "images.zip", "images.tar", "images.tgz")
    }


@pytest.mark.parametrize("kind", ["coco", "karpathy", "flickr"])
@pytest.mark.parametrize("packed", [False, True])
def test_each_kind_of_list_gives_the_captions_of_pictures(
    tmp_path: Path, kind: str, packed: bool
) -> None:
    texts = {"coco": json.dumps(COCO), "karpathy": json.dumps(KARPATHY), "flickr": FLICKR}
    data = texts[kind].encode()
    (tmp_path / "list").write_bytes(gzip.compress(data) if packed else data)
    evalset = EvalSet(name="c", path=str(tmp_path / "list"))
    assert format_of(evalset) == kind
    found = {entry.item.rpartition("/")[2]: entry for entry in entries(evalset)}
    assert {name: entry.captions for name, entry in found.items()} == CAPTIONS
    assert all(entry.read is None for entry in found.values())
    assert list(items(evalset)) == []
    assert not is_labelled(evalset)


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("kind", FLICKR_TABLES)
def test_tables_of_captions_are_read_by_their_columns(
    tmp_path: Path, kind: str, start: str
) -> None:
    (tmp_path / "captions.csv").write_text(start + FLICKR_TABLES[kind])
    evalset = EvalSet(name="c", path=str(tmp_path / "captions.csv"))
    assert format_of(evalset) == "flickr"
    assert {entry.item: entry.captions for entry in entries(evalset)} == CAPTIONS
    splits = {entry.item: entry.split for entry in entries(evalset)}
    assert splits == (
        {"a.jpg": "train", "b.jpg": "test"} if kind == "lists" else {"a.jpg": "", "b.jpg": ""}
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image_name| comment_number| comment\na.jpg A cat\n", "line 2 is not FILE"),
        ("filename,raw\na.jpg,A cat\n", "unexpected character"),
        ("image,caption\n", "holds no caption"),
        ("image,caption\na.jpg\n", "NoneType"),
        ("image,caption\na.jpg," + "x" * 200_000, "field larger than field limit"),
    ],
)
def test_a_broken_table_of_captions_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        list(entries(EvalSet(name="c", path=str(tmp_path / "captions.csv"))))
    assert "\n" not in str(caught.value)


def test_splits_of_karpathy_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps(KARPATHY))
    evalset = EvalSet(name="c", path=str(tmp_path / "list.json"), split=("test",))
    assert [(e.item, e.split) for e in entries(evalset)] == [("val2014/b.jpg", "test")]


@pytest.mark.parametrize("kind", ["folder", "images.zip", "images.tar", "images.tgz"])
def test_pictures_beside_are_found_by_name(tmp_path: Path, kind: str) -> None:
    evalset = listed(tmp_path, images=pictures(tmp_path)[kind])
    found = [(i.item, i.data, i.captions, i.label, i.split) for i in items(evalset)]
    assert found == [
        ("a.jpg", b"cat", CAPTIONS["a.jpg"], None, "val2017"),
        ("b.jpg", b"dog", CAPTIONS["b.jpg"], None, "val2017"),
    ]


def test_captions_whose_picture_is_missing_are_kept(tmp_path: Path) -> None:
    places = pictures(tmp_path)
    (tmp_path / "folder/val2017/b.jpg").unlink()
    found = list(entries(listed(tmp_path, images=places["folder"])))
    assert [(e.item, e.read is None) for e in found] == [("a.jpg", False), ("b.jpg", True)]


def test_images_that_hold_none_of_the_pictures_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/z.jpg").write_bytes(b"other")
    for split in ((), ("val2017",)):
        evalset = listed(tmp_path, images=str(tmp_path / "other"), split=split)
        with pytest.raises(
            InputError, match=r"lists 2 pictures, none of which is in .*other; .* a\.jpg"
        ):
            list(entries(evalset))


def test_pictures_that_are_nowhere_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images are not at .*none"):
        list(entries(listed(tmp_path, images=str(tmp_path / "none"))))


def test_images_are_relative_to_the_toml_file(tmp_path: Path) -> None:
    from dedup.evaluation.evalsets import files_of, read_evalsets

    listed(tmp_path)
    pictures(tmp_path)
    toml = tmp_path / "sets.toml"
    toml.write_text('[c]\npath = "captions_val2017.json"\nimages = "folder"\n')
    (evalset,) = read_evalsets(str(toml))
    assert len(list(items(evalset))) == 2
    assert files_of(str(toml), [evalset])["c: images"] == f"{tmp_path}/folder"


@pytest.mark.parametrize(
    "text",
    [
        '{"images": []',
        '{"images": {}, "annotations": []}',
        '{"annotations": []}',
        '{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}',
        '{"images": [3], "annotations": []}',
        '{"images": [], "annotations": []}',
        "[" * 5000,
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(InputError, match=r"list\.json") as caught:
        list(entries(EvalSet(name="c", path=str(tmp_path / "list.json"), format="coco")))
    assert "\n" not in str(caught.value)


def test_a_line_without_a_tab_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(FLICKR + "broken\n")
    with pytest.raises(InputError, match="line 4 has no tab"):
        list(entries(EvalSet(name="c", path=str(tmp_path / "list.txt"))))


def test_one_name_for_two_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a/1.jpg#0\tx\nb/1.jpg#0\ty\n")
    with pytest.raises(InputError, match="lists two pictures of one name"):
        list(entries(EvalSet(name="c", path=str(tmp_path / "list.txt"))))


def test_real_lists_are_read(shared_data: Path) -> None:
    coco = EvalSet(name="c", path=str(shared_data / "captions/coco_captions_val2017.json.gz"))
    found = list(entries(coco))
    assert (len(found), sum(len(entry.captions) for entry in found)) == (5000, 25_014)
    assert {entry.split for entry in found} == {"val2017"}
    flickr = EvalSet(name="f", path=str(shared_data / "captions/flickr8k.token.txt.gz"))
    assert sum(len(entry.captions) for entry in entries(flickr)) == 40_460
