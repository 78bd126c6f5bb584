import gzip
import io
import lzma
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from dedup.evaluation.readers.archives import is_tar, tar_members
from pipeline.errors import InputError
from tests.dedup.evaluation.readers.made import tarred

FILES = {"a/1.png": b"x" * 512, "a/2.png": b"y" * 700, "./b/3.png": b"", "/c/4.png": b"z"}


def members(path: str) -> list[tuple[str, bytes]]:
    with tar_members(path, "set") as (found, _):
        return [(member.name, member.read()) for member in found]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_members_are_read_in_their_order_compressed_or_not(tmp_path: Path, mode: str) -> None:
    expected = [(name.lstrip("./"), data) for name, data in FILES.items()]
    assert members(tarred(tmp_path / "a", FILES, mode=mode)) == expected


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_that_are_not_wanted_are_skipped(tmp_path: Path, mode: str) -> None:
    with tar_members(tarred(tmp_path / "a", FILES, mode=mode), "set") as (found, _):
        assert [m.read() for m in found if m.name == "a/2.png"] == [FILES["a/2.png"]]


def test_an_uncompressed_tar_is_read_out_of_order(tmp_path: Path) -> None:
    with tar_members(tarred(tmp_path / "a", FILES), "set") as (found, is_free):
        assert is_free
        assert [m.read() for m in reversed(list(found))] == list(reversed(FILES.values()))


def test_links_devices_and_folders_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a", "w") as tar:
        for name, kind in (("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("f", tarfile.FIFOTYPE), ("d", tarfile.DIRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(f"{name}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("x.png"))
    assert members(str(tmp_path / "a")) == [("x.png", b"")]


def test_names_that_lead_out_are_text_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = tarred(tmp_path / "inner" / "a", {"../../out.png": b"1", "/etc/out.png": b"2"})
    before = sorted(tmp_path.rglob("*"))
    assert [name for name, _ in members(path)] == ["out.png", "etc/out.png"]
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_are_no_utf8_are_escaped(tmp_path: Path) -> None:
    info = tarfile.TarInfo("caf\udce9.png")
    data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024)
    (tmp_path / "a").write_bytes(data)
    assert members(str(tmp_path / "a")) == [("caf\\udce9.png", b"")]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("cut", [700, 1300, 2000])
def test_a_tar_that_ends_early_is_refused(tmp_path: Path, cut: int, mode: str) -> None:
    whole = Path(tarred(tmp_path / "a", FILES)).read_bytes()[:cut]
    (tmp_path / "b").write_bytes(whole if mode == "w" else gzip.compress(whole))
    with pytest.raises(InputError, match=r"^set(:| is broken after) a/"):
        members(str(tmp_path / "b"))


def test_a_compressed_tar_that_ends_early_is_refused(tmp_path: Path) -> None:
    whole = Path(tarred(tmp_path / "a", FILES, mode="w:gz")).read_bytes()
    (tmp_path / "b").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"^set"):
        members(str(tmp_path / "b"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_header_that_makes_no_sense_does_not_end_the_set_in_silence(
    tmp_path: Path, mode: str
) -> None:
    whole = bytearray(Path(tarred(tmp_path / "a", FILES)).read_bytes())
    whole[1024 + 20] ^= 0xFF
    (tmp_path / "b").write_bytes(whole if mode == "w" else gzip.compress(bytes(whole)))
    with pytest.raises(
        InputError, match=r"set is broken after a/1\.png: what follows is no member"
    ):
        members(str(tmp_path / "b"))


def test_a_size_that_leads_back_does_not_go_round_in_circles(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    first = info.tobuf(tarfile.GNU_FORMAT)
    info.size = -512
    (tmp_path / "a").write_bytes(first + info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with (
        tar_members(str(tmp_path / "a"), "set") as (found, _),
        pytest.raises(InputError, match=r"set is broken after a\.png: a member's size leads back"),
    ):
        list(found)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_small_file_that_unpacks_to_a_huge_header_does_not_fill_the_memory(
    tmp_path: Path, kind: bytes
) -> None:
    info = tarfile.TarInfo("a.png")
    info.type, info.size = kind, 1 << 33
    head = info.tobuf(tarfile.GNU_FORMAT)
    with gzip.open(tmp_path / "a", "wb", compresslevel=1) as file:
        file.write(head + bytes(4 << 20))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"broken after the beginning: a header or member of \d+"):
        members(str(tmp_path / "a"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("kind", "data"), [(tarfile.GNUTYPE_LONGNAME, b"name\0"), (tarfile.XHDTYPE, b"9 a=bcd1\n")]
)
def test_headers_that_lead_to_headers_without_end_are_refused(
    tmp_path: Path, kind: bytes, data: bytes
) -> None:
    info = tarfile.TarInfo("a.png")
    info.type, info.size = kind, len(data)
    (tmp_path / "a").write_bytes((info.tobuf() + data.ljust(512, b"\0")) * 3000 + bytes(1024))
    with pytest.raises(InputError, match=r"set is broken after the beginning: .*recursion"):
        members(str(tmp_path / "a"))


def test_a_member_that_promises_to_be_huge_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a/huge.png")
    info.size = 1 << 33
    (tmp_path / "a").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(
        InputError, match=r"set: a/huge\.png has 8589934592 bytes, expected at most"
    ):
        members(str(tmp_path / "a"))


@pytest.mark.parametrize("data", [b"", b"text", b"\x1f\x8b broken", lzma.compress(b"x")])
def test_what_is_no_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match="set"):
        members(str(tmp_path / "a"))


def test_tars_of_any_age_are_known_by_their_first_header() -> None:
    info = tarfile.TarInfo("a")
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        assert is_tar(info.tobuf(kind))
    old = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    old[257:265] = bytes(8)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    assert is_tar(bytes(old))
    assert not is_tar(bytes(512))
    assert not is_tar(io.BytesIO(b"PK\3\4").read())
