import gc
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import train.samples.tar_index
from pipeline.errors import StorageError
from train.samples.tar_headers import TarBytes
from train.samples.tar_index import REASONS, TAR_INDEX, read_summary, rows, write_tar_index

Members = list[tuple[str, bytes]]


def tar_of(members: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def rows_of(data: bytes) -> list[dict[str, Any]]:
    return list(rows(TarBytes(lambda start, count: data[start : start + count], len(data), 1000)))


def reasons(members: Members) -> dict[str, str | None]:
    return {row["key"]: row["reason"] for row in rows_of(tar_of(members))}


# webdataset leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_samples_are_grouped_and_placed_as_webdataset_groups_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is part of extra download")
    path = tmp_path / "0.tar"
    written = [
        {"__key__": f"a/{i:03d}", "jpg": b"\xff\xd8" + bytes(i), "txt": f"größe {i}", "cls": i}
        for i in range(40)
    ]
    with webdataset.TarWriter(str(path)) as tar:
        for sample in written:
            tar.write(sample)
    data = path.read_bytes()
    found = rows_of(data)
    read = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [row["key"] for row in found] == [sample["__key__"] for sample in read]
    gc.collect()
    for row, sample in zip(found, read, strict=True):
        image = data[row["image_offset"] : row["image_offset"] + row["image_length"]]
        assert image == sample["jpg"]
        assert row["caption"].encode() == sample["txt"]
        assert row["reason"] is None


def test_a_caption_is_the_text_or_else_stands_in_the_metadata() -> None:
    about = {"caption": "from json", "width": 3, "score": float("nan")}
    found = rows_of(
        tar_of(
            [
                ("1.jpg", b"x"),
                ("1.txt", "\ufeffa text".encode()),
                ("1.json", json.dumps(about).encode()),
                ("2.json", json.dumps(about).encode()),
                ("2.PNG", b"x"),
                ("3.jpg", b"x"),
                ("3.json", b"{"),
                ("3.txt", b"a text"),
            ]
        )
    )
    assert [row["caption"] for row in found] == ["a text", "from json", "a text"]
    assert [json.loads(row["metadata"] or "{}").get("width") for row in found] == [3, 3, None]
    assert "NaN" not in found[0]["metadata"]


def test_of_several_pictures_the_first_kind_is_taken() -> None:
    (row,) = rows_of(
        tar_of([("1.webp", b"w"), ("1.seg.png", b"s"), ("1.jpg", b"j"), ("1.txt", b"t")])
    )
    assert row["image_member"] == "1.jpg"


def test_each_sample_left_out_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.samples.tar_index, "LARGEST_IMAGE", 2000)
    monkeypatch.setattr(train.samples.tar_index, "LONGEST_TEXT", 1000)
    assert reasons(
        [
            ("whole.jpg", b"x"),
            ("whole.txt", b"a text"),
            ("no text.jpg", b"x"),
            ("blank.jpg", b"x"),
            ("blank.txt", b" \n"),
            ("number.jpg", b"x"),
            ("number.json", b'{"caption": 5}'),
            ("latin.jpg", b"x"),
            ("latin.txt", "größe".encode("latin-1")),
            ("long.jpg", b"x"),
            ("long.txt", b"x" * 1001),
            ("no picture.txt", b"a text"),
            ("empty.jpg", b""),
            ("empty.txt", b"a text"),
            ("packed.jpg.gz", b"x"),
            ("packed.txt", b"a text"),
            ("large.jpg", b"x" * 2001),
            ("large.txt", b"a text"),
            ("double.jpg", b"x"),
            ("double.JPG", b"y"),
            ("double.txt", b"a text"),
            ("deep.jpg", b"x"),
            ("deep.json", b"[" * 900),
            ("__about__/1.json", b"{}"),
            (".hidden.jpg", b"x"),
            ("no_suffix", b"x"),
        ]
    ) == {
        "whole": None,
        "no text": "no_caption",
        "blank": "no_caption",
        "number": "no_caption",
        "latin": "bad_caption",
        "long": "bad_caption",
        "no picture": "no_picture",
        "empty": "no_picture",
        "packed": "no_picture",
        "large": "large_picture",
        "double": "double_member",
        "deep": "no_caption",
    }


def test_a_key_that_comes_again_is_left_out() -> None:
    one = [("1.jpg", b"x"), ("1.txt", b"a text")]
    other = [("2.jpg", b"x"), ("2.txt", b"a text")]
    found = rows_of(tar_of([*one, *other, *one]))
    assert [row["reason"] for row in found] == [None, None, "double_key"]


def test_a_tar_that_is_cut_short_gives_what_is_before() -> None:
    whole = [
        ("1.jpg", b"x" * 600),
        ("1.txt", b"a text"),
        ("2.txt", b"a text"),
        ("2.jpg", b"y" * 5000),
    ]
    data = tar_of(whole)
    found = rows_of(data[: data.index(b"y" * 100) + 300])
    assert [(row["key"], row["reason"]) for row in found] == [
        ("1", None),
        ("2", "cut_short"),
        ("", "broken_tar"),
    ]
    assert "the tar ends at" in found[1]["detail"]


def test_a_lying_size_is_no_sample_and_takes_no_memory() -> None:
    data = bytearray(tar_of([("1.txt", b"a text"), ("1.jpg", b"x")]))
    data[1024 + 124 : 1024 + 136] = b"77777777777\0"
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    assert [row["reason"] for row in rows_of(bytes(data))] == ["cut_short", "broken_tar"]


@pytest.mark.parametrize(
    "data", [gzip.compress(b"x", mtime=0), b"BZh91", b"\x28\xb5\x2f\xfd" + bytes(600)]
)
def test_a_compressed_tar_is_told_as_such(data: bytes) -> None:
    (row,) = rows_of(data)
    assert row["reason"] == "compressed"


def test_an_index_has_the_usable_rows_first_and_sums_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.samples.tar_index, "ROWS_TOGETHER", 4)
    members = []
    for i in range(30):
        members += [(f"{i}.txt", b"a text")] if i % 3 else []
        members += [(f"{i}.jpg", b"x")] if i % 5 else []
        members += [(f"{i}.cls", b"x")]
    (tmp_path / "0.tar").write_bytes(tar_of(members))
    summary = write_tar_index(str(tmp_path / "0.tar"), str(tmp_path / "0.index.parquet"))
    assert summary == read_summary(str(tmp_path / "0.index.parquet"))
    assert (summary.usable, summary.without_picture) == (16, 4)
    assert summary.left_out == {"no_caption": 10, "no_picture": 4}
    assert summary.first_left_out == "0: no_caption"
    assert summary.bytes == (tmp_path / "0.tar").stat().st_size
    table = pq.read_table(tmp_path / "0.index.parquet")
    assert table.schema.equals(TAR_INDEX)
    expected = [None] * 16 + ["no_picture"] * 4 + ["no_caption"] * 10
    assert table.column("reason").to_pylist() == expected
    assert table.column("key").to_pylist()[:3] == ["1", "2", "4"]


def test_another_parquet_file_is_no_index(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TAR_INDEX.empty_table(), path)
    assert read_summary(str(path)) is None
    path.write_bytes(b"PAR1 no")
    assert read_summary(str(path)) is None


def test_every_reason_has_a_meaning() -> None:
    source = Path(train.samples.tar_index.__file__).read_text()
    given = {reason for reason in REASONS if source.count(f'"{reason}"') > 1}
    assert given | {"no_picture"} == set(REASONS)


def test_a_double_member_is_told_whatever_else_is_double() -> None:
    members = [("a.jpg", b"1"), ("a.jpg", b"2"), ("a.txt", b"t"), ("a.cls", b"1"), ("a.cls", b"1")]
    assert reasons(members) == {"a": "double_member"}


def test_a_tar_that_cannot_be_read_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tar: TarBytes) -> None:
        raise OSError(5, "")

    monkeypatch.setattr(train.samples.tar_index, "rows", fail)
    (tmp_path / "0.tar").write_bytes(tar_of([]))
    with pytest.raises(StorageError, match="Input/output error"):
        write_tar_index(str(tmp_path / "0.tar"), str(tmp_path / "0.index.parquet"))
    # A writer that is still open would complain here.
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["0.tar"]
