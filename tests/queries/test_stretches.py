import bz2
from pathlib import Path

import pytest

from pipeline.errors import InputError, StorageError
from queries.stretches import Stretch, cut_dumps
from tests.queries.dumps import dump, page

PLAIN = dump([page("A", "x" * 3000)])
PACKED = bz2.compress(PLAIN)


def bounds(stretches: list[Stretch]) -> list[tuple[str, int, int]]:
    return [(s.name, s.start, s.end) for s in stretches]


def test_stretches_cover_every_byte_once(tmp_path: Path) -> None:
    path = tmp_path / "enwiki.xml.bz2"
    path.write_bytes(PACKED)
    stretches, dumps = cut_dumps([str(path)], 100)
    assert dumps == {"enwiki.xml.bz2": str(path)}
    assert [s.start for s in stretches] == list(range(0, len(PACKED), 100))
    assert [s.end for s in stretches] == [*range(100, len(PACKED), 100), len(PACKED)]


def test_plain_xml_is_cut_into_larger_stretches(tmp_path: Path) -> None:
    path = tmp_path / "enwiki.xml"
    path.write_bytes(PLAIN)
    assert len(cut_dumps([str(path)], 100)[0]) == -(-len(PLAIN) // 400)


def test_of_a_folder_the_dumps_are_read_and_nothing_else(tmp_path: Path) -> None:
    for name in ("enwiki-p2.xml-p9p20.bz2", "enwiki-p1.xml-p1p8.bz2"):
        (tmp_path / name).write_bytes(PACKED)
    for name in ("md5sums.txt", "enwiki-multistream-index.txt.bz2"):
        (tmp_path / name).write_bytes(b"no dump")
    names = ["enwiki-p1.xml-p1p8.bz2", "enwiki-p2.xml-p9p20.bz2"]
    assert [s.name for s in cut_dumps([str(tmp_path)], 1 << 20)[0]] == names
    assert [s.name for s in cut_dumps([str(tmp_path / "*")], 1 << 20)[0]] == names


def test_a_file_that_is_named_may_be_called_anything(tmp_path: Path) -> None:
    path = tmp_path / "articles"
    path.write_bytes(PACKED)
    assert bounds(cut_dumps([str(path)], 1 << 20)[0]) == [("articles", 0, len(PACKED))]


@pytest.mark.parametrize("content", [b"", b"GIF89a"])
def test_a_file_that_is_no_dump_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "enwiki.xml.bz2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"enwiki\.xml\.bz2 is neither bzip2 nor XML; expected"):
        cut_dumps([str(path)], 1 << 20)


def test_two_dumps_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "enwiki.xml.bz2" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(PACKED)
    with pytest.raises(InputError, match="have the same name; rename one of them"):
        cut_dumps([str(path) for path in paths], 1 << 20)


def test_a_folder_without_dumps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "md5sums.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds no dump; expected files such as \*\.xml\.bz2"):
        cut_dumps([str(tmp_path)], 1 << 20)


def test_a_dump_that_is_not_there_is_named() -> None:
    with pytest.raises(StorageError, match="nowhere"):
        cut_dumps(["/nowhere/enwiki.xml.bz2"], 1 << 20)


def test_an_address_is_refused_with_advice() -> None:
    with pytest.raises(InputError, match="download the dump and give the file"):
        cut_dumps(["https://dumps.wikimedia.org/enwiki.xml.bz2"], 1 << 20)
