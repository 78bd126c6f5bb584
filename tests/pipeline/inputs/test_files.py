import gzip
import io
import lzma
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, StorageError
from pipeline.inputs.files import detect, expand, open_text
from tests.pipeline.archives import members, metadata, record, response

WET = record("conversion", b"text", "text/plain")
TABLE = io.BytesIO()
pq.write_table(pa.table({"url": ["http://x"]}), TABLE)


def tar_of(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (members(response(b"")), "warc"),
        (response(b""), "warc"),
        (pa.compress(response(b""), "zstd", asbytes=True), "warc"),
        (members(record("warcinfo", b"", "text/plain"), metadata({})), "wat"),
        (members(record("metadata", b"via: x", "application/warc-fields")), "warc"),
        (members(record("warcinfo", b"", "text/plain")), "warc"),
        (TABLE.getvalue(), "parquet"),
        (b"url,text\n", "csv"),
        (gzip.compress(b"url,text\n", mtime=0), "csv"),
        (b"\xef\xbb\xbfurl,text\n", "csv"),
        ("url,text\n".encode("utf-16"), "csv"),
        (b"url\ttext, more\n", "tsv"),
        (b' \n{"url": "x"}\n', "jsonl"),
        (tar_of("a.txt"), "tar"),
        (pa.compress(b'{"url": "x"}\n', "zstd", asbytes=True), "jsonl"),
    ],
)
def test_the_content_tells_the_kind(content: bytes, kind: str) -> None:
    assert detect(io.BytesIO(content), "misleading.jpg") == kind


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"url,text\n", "csv"),
        (b"http://x/a\tA do\0g\n", "tsv"),
        (b'{"url": "http://x/a"}\n', "jsonl"),
    ],
)
def test_a_zero_byte_here_and_there_is_no_reason_to_refuse_a_table(line: bytes, kind: str) -> None:
    assert detect(io.BytesIO(line + b"http://x/a,A\0dog\n" * 5), "x") == kind


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "x is empty; expected WARC"),
        (b"\x1f\x8b\x08 broken", "x cannot be decompressed"),
        (b"\x1f\x8b", "x cannot be decompressed"),
        (b"\x28\xb5\x2f\xfd broken", "x cannot be decompressed"),
        (gzip.compress(b"", mtime=0), "x is empty once unpacked; expected WARC"),
        (
            lzma.compress(b"url,text\n"),
            "x is compressed with xz, which is not read; unpack it first",
        ),
        (b"BZh9", "unknown kind, it begins with"),
        (b"<html>\n", "unknown kind"),
        (b"\0,\0", "unknown kind"),
        ("url,text\nhttp://x,A dog\n".encode("utf-16-le"), "unknown kind"),
        (b"a,b\n" + bytes(100), "unknown kind"),
        (b'{\n  "count": 1\n}\n', "unknown kind"),
        (gzip.compress(tar_of("a.txt"), mtime=0), "unknown kind"),
        (b"a,b\n" + random.Random(1).randbytes(100_000), "unknown kind"),
        (members(WET), "x is a WET file"),
    ],
)
def test_what_cannot_be_read_is_one_line(content: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        detect(io.BytesIO(content), "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_its_encoding(encoding: str) -> None:
    data = "url,Käse\r\nfoo".encode(encoding)
    assert open_text(io.BytesIO(gzip.compress(data, mtime=0))).read() == "url,Käse\r\nfoo"
    assert open_text(io.BytesIO(data)).read() == "url,Käse\r\nfoo"


def test_sources_are_named_below_the_common_folder(tmp_path: Path) -> None:
    for name in ("b/2.warc", "b/10.warc", "a/1.warc", "a/_SUCCESS", "a/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = expand([str(tmp_path / "b"), str(tmp_path / "*" / "*.warc"), f"{tmp_path}/a/../a"])
    assert [file.source for file in found] == ["a/1.warc", "b/10.warc", "b/2.warc"]
    assert [file.source for file in expand([str(tmp_path / "b/2.warc")])] == ["2.warc"]
    assert [file.source for file in expand([f"{tmp_path}/a/_SUCCESS"])] == ["_SUCCESS"]


def test_urls_keep_what_they_do_not_share() -> None:
    same = expand(["https://h/x/b.warc", "https://h/x/a.warc"])
    assert [file.source for file in same] == ["a.warc", "b.warc"]
    other = expand(["https://h/x/b.warc", "http://g/x/a.warc"])
    assert [file.source for file in other] == ["http://g/x/a.warc", "https://h/x/b.warc"]


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing-here"):
        expand([str(tmp_path / "nothing-here")])


def test_what_a_folder_brought_in_is_told_from_what_was_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    found = expand([str(tmp_path), str(tmp_path / "b"), f"{tmp_path}/*"])
    assert [(file.source, file.is_named) for file in found] == [("a", False), ("b", True)]
