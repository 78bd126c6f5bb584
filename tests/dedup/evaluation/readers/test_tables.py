import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup.evaluation.evalsets import EvalSet, format_of, is_labelled, items, pieces
from pipeline.errors import InputError
from pipeline.runtime import storage

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def hub(path: Path, rows: int, *, names: list[str] | None = None, **columns: Any) -> str:
    """Write a file as the hub has them: pictures in a struct, classes described in the metadata."""
    pictures = [{"bytes": b"%d" % i, "path": "same.png"} for i in range(rows)]
    table = pa.table({"image": pa.array(pictures, IMAGE), **columns})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({b"huggingface": about.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return str(path)


def test_a_folder_from_the_hub_is_read_by_its_own_description(tmp_path: Path) -> None:
    names = ["aquarium_fish", "T - shirt / top"]
    hub(tmp_path / "data/test-00000-of-00001.parquet", 3, names=names, label=[1, 0, 1])
    hub(tmp_path / "data/train-00000-of-00002.parquet", 1, names=names, label=[0])
    hub(tmp_path / "data/train-00001-of-00002.parquet", 1, names=names, label=[1])
    (tmp_path / "README.md").write_text("about")
    evalset = EvalSet(name="h", path=str(tmp_path))
    assert (format_of(evalset), len(pieces(evalset))) == ("parquet", 3)
    found = list(items(evalset))
    assert [(i.item, i.split, i.label, i.data) for i in found[:3]] == [
        ("data/test-00000-of-00001.parquet#0", "test", "T - shirt / top", b"0"),
        ("data/test-00000-of-00001.parquet#1", "test", "aquarium fish", b"1"),
        ("data/test-00000-of-00001.parquet#2", "test", "T - shirt / top", b"2"),
    ]
    assert [i.split for i in found[3:]] == ["train", "train"]
    train = evalset.model_copy(update={"split": ("train",)})
    assert [i.item for i in items(train)] == [i.item for i in found[3:]]


def test_one_file_and_a_pattern_of_files_are_read(tmp_path: Path) -> None:
    path = hub(tmp_path / "pictures.bin", 2)
    assert [i.label for i in items(EvalSet(name="h", path=path))] == [None, None]
    hub(tmp_path / "a-test.parquet", 2)
    pattern = EvalSet(name="h", path=f"{tmp_path}/*-test.parquet")
    assert [(i.item, i.split) for i in items(pattern)] == [
        ("a-test.parquet#0", "test"),
        ("a-test.parquet#1", "test"),
    ]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_plain_column_of_bytes_is_a_picture(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(
        pa.table({"id": [7], "jpg": pa.array([b"x"], kind), "cls": [3]}), tmp_path / "a.parquet"
    )
    (item,) = items(EvalSet(name="h", path=str(tmp_path / "a.parquet")))
    assert (item.data, item.label) == (b"x", "3")


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = hub(
        tmp_path / "a.parquet",
        1,
        fine_label=[4],
        coarse=["fish"],
        thumb=[b"small"],
        note=[["a", "b"]],
    )
    found = EvalSet(name="h", path=path)
    (item,) = items(found)
    assert (item.data, item.label, item.captions) == (b"0", "4", ())
    other = EvalSet(
        name="h", path=path, image_column="thumb", label_column="coarse", caption_column="note"
    )
    (item,) = items(other)
    assert (item.data, item.label, item.captions) == (b"small", "fish", ("a", "b"))
    with pytest.raises(InputError, match="has no column 'x', expected one of: image, fine_label"):
        list(items(EvalSet(name="h", path=path, label_column="x")))


@pytest.mark.parametrize("captions", [["A dog."], [["A dog.", "A brown dog."]]])
def test_captions_are_a_text_or_a_list(tmp_path: Path, captions: list[Any]) -> None:
    evalset = EvalSet(name="h", path=hub(tmp_path / "a.parquet", 1, caption=captions))
    assert not is_labelled(evalset)
    (item,) = items(evalset)
    assert item.captions[0] == "A dog."


def test_a_class_beyond_the_names_is_refused(tmp_path: Path) -> None:
    for label in (2, -2):
        path = hub(tmp_path / "a.parquet", 1, names=["a", "b"], label=[label])
        with pytest.raises(InputError, match=rf"a\.parquet#0 is of class {label}, expected 0 to 1"):
            list(items(EvalSet(name="h", path=path)))


def test_a_class_that_is_withheld_is_none(tmp_path: Path) -> None:
    for names in (["a", "b"], None):
        path = hub(tmp_path / "a.parquet", 2, names=names, label=[-1, -1])
        assert [i.label for i in items(EvalSet(name="h", path=path))] == [None, None]


def test_files_of_one_name_in_two_folders_have_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        hub(tmp_path / folder / "test.parquet", 1)
    for path in (str(tmp_path), f"{tmp_path}/[ab]/test.parquet", f"{tmp_path}/?/test.parquet"):
        found = [item.item for item in items(EvalSet(name="h", path=path))]
        assert found == ["a/test.parquet#0", "b/test.parquet#0"]


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    caption = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    path = hub(tmp_path / "a.parquet", 1, caption=caption)
    with pytest.raises(InputError, match=r"a\.parquet cannot be read: .*codec can't decode"):
        list(items(EvalSet(name="h", path=path)))


def test_a_row_without_its_picture_is_refused(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([{"bytes": None, "path": "elsewhere.png"}], IMAGE)})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet#0 has no bytes of a picture"):
        list(items(EvalSet(name="h", path=str(tmp_path / "a.parquet"))))


@pytest.mark.parametrize(
    "about",
    [
        b"",
        b"{",
        b"[]",
        b'{"info": 3}',
        b'{"info": {"features": []}}',
        b'{"info": {"features": {"label": 3}}}',
    ],
)
def test_a_description_of_another_kind_says_nothing(tmp_path: Path, about: bytes) -> None:
    table = pa.table({"image": [b"x"], "label": [5]}).replace_schema_metadata(
        {b"huggingface": about}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (item,) = items(EvalSet(name="h", path=str(tmp_path / "a.parquet")))
    assert item.label == "5"


def test_a_table_without_pictures_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a path"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has no column of pictures"):
        list(items(EvalSet(name="h", path=str(tmp_path / "a.parquet"))))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = Path(hub(tmp_path / "a.parquet", 50))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        list(items(EvalSet(name="h", path=str(path))))


def test_a_folder_without_parquet_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="holds no Parquet file"):
        list(items(EvalSet(name="h", path=str(tmp_path), format="parquet")))


def test_parquet_is_read_from_object_storage(tmp_path: Path, s3_bucket: str) -> None:
    local = hub(tmp_path / "test-00000-of-00001.parquet", 2, names=["a", "b"], label=[0, 1])
    storage.write_bytes(f"{s3_bucket}/h/test-00000-of-00001.parquet", Path(local).read_bytes())
    remote = EvalSet(name="h", path=f"{s3_bucket}/h")
    assert list(items(remote)) == list(items(EvalSet(name="h", path=local)))
