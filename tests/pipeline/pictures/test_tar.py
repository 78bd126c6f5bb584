import gc
import io
import tarfile

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pictures.tar import BrokenTar, TarWriter, header, read_members, space

MEMBERS = [("0.jpg", b"j" * 700), ("0.txt", "Käse".encode()), ("1.jpg", b""), ("1.txt", b"x" * 512)]


def write(file, members) -> list[tuple[int, int]]:
    with TarWriter(file) as tar:
        return [tar.add(name, data) for name, data in members]


def archive(members) -> tuple[bytes, list[tuple[int, int]]]:
    file = io.BytesIO()
    places = write(file, members)
    return file.getvalue(), places


@given(st.lists(st.binary(max_size=1500), max_size=12))
def test_tarfile_reads_what_was_written_where_it_was_said_to_be(contents):
    members = [(f"{i:09d}.bin", data) for i, data in enumerate(contents)]
    data, places = archive(members)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        found = [(m.name, tar.extractfile(m).read(), (m.offset_data, m.size)) for m in tar]
    assert found == [(*member, place) for member, place in zip(members, places, strict=True)]
    assert [data[at : at + size] for at, size in places] == contents
    assert len(data) % 512 == 0


def test_members_bear_no_trace_of_time_or_owner():
    with tarfile.open(fileobj=io.BytesIO(archive(MEMBERS)[0])) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.mode) == (0, 0, 0, 0o644)
            assert (info.uname, info.gname) == ("", "")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_groups_the_members_into_samples(tmp_path):
    path = tmp_path / "one.tar"
    path.write_bytes(archive(MEMBERS)[0])
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [(s["__key__"], s["jpg"], s["txt"]) for s in samples] == [
        ("0", b"j" * 700, "Käse".encode()),
        ("1", b"", b"x" * 512),
    ]
    # webdataset leaves its files to the garbage collector.
    gc.collect()


@pytest.mark.parametrize("name", ["", "ü.jpg", "x" * 101])
def test_a_name_that_does_not_fit_is_refused(name):
    with pytest.raises(ValueError, match="expected 1 to 100 ASCII"):
        archive([(name, b"")])


def test_an_archive_that_failed_half_way_has_no_end():
    file = io.BytesIO()
    with pytest.raises(ValueError, match="no name"):
        write(file, [("a", b"b"), ("", b"")])
    assert len(file.getvalue()) == 1024


@given(st.text("abc/._0", min_size=1, max_size=100), st.integers(0, 8**11 - 1))
def test_a_header_is_the_one_that_tarfile_writes(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    # tarfile moves part of a long path to another field, and cuts slashes off.
    if info.get_info()["name"] == name:
        assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def test_a_member_too_large_for_the_format_is_refused():
    with pytest.raises(ValueError, match="expected at most"):
        header("a", 8**11)


@given(st.lists(st.binary(max_size=1500), max_size=12))
def test_what_was_written_is_read_back_with_its_places(contents):
    members = [(f"{i:09d}.bin", data) for i, data in enumerate(contents)]
    data, places = archive(members)
    found = list(read_members(io.BytesIO(data)))
    assert [(m.name, m.data) for m in found] == members
    assert [(m.offset, len(m.data)) for m in found] == places
    assert len(data) == sum(map(space, map(len, contents))) + 1024


def test_what_other_programs_pack_is_read():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    file.seek(0)
    assert [(m.name, m.data) for m in read_members(file)] == MEMBERS


@given(st.data())
def test_an_archive_cut_short_anywhere_is_broken(data):
    whole, _ = archive(MEMBERS)
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BrokenTar, match="cut short"):
        list(read_members(io.BytesIO(whole[:length])))


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda b: b + b"x", "something follows"),
        (lambda b: bytes([b[0] ^ 1]) + b[1:], "the header at byte 0 is damaged"),
        (lambda b: b[:-1024] + bytes(512) + b[:512], "and goes on"),
        (lambda b: b"\xff" * 512 + b[512:], "is damaged"),
        (lambda b: header("huge", 1 << 32) + b, "more than any picture"),
    ],
)
def test_damage_is_named(change, seen):
    with pytest.raises(BrokenTar, match=seen):
        list(read_members(io.BytesIO(change(archive(MEMBERS)[0]))))


def sealed(block: bytearray) -> bytes:
    """The header with the checksum that belongs to it."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [b"-0000000100\0", b"+0000000100\0", b"0000000_100\0", b"\0" * 12])
def test_a_size_is_nothing_but_octal_digits(size):
    block = bytearray(header("a.jpg", 64))
    block[124:136] = size
    with pytest.raises(BrokenTar, match="the header at byte 0 is damaged"):
        list(read_members(io.BytesIO(sealed(block) + bytes(4096))))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE]
)
def test_what_is_no_plain_file_is_no_member(kind):
    block = bytearray(header("a.jpg", 0))
    block[156:157] = kind
    with pytest.raises(BrokenTar, match="expected a plain file"):
        list(read_members(io.BytesIO(sealed(block) + bytes(1024))))
