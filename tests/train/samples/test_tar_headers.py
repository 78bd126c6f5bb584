import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.samples.tar_headers import BrokenTar, TarBytes, TarMember, members

NAMES = st.text(
    st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=130
)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def tar_of(
    files: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT, **about: object
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in about.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def found(data: bytes, chunk: int = 700) -> list[TarMember]:
    return list(
        members(TarBytes(lambda start, count: data[start : start + count], len(data), chunk))
    )


def patched(data: bytes, place: int, new: bytes, header: int = 0) -> bytes:
    """Change a header and mend its checksum."""
    block = bytearray(data[header : header + 512])
    block[place : place + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return data[:header] + bytes(block) + data[header + 512 :]


@given(files=FILES, form=FORMATS, mtime=st.sampled_from([0, 1.5]), chunk=st.integers(1, 3000))
def test_members_are_where_tarfile_finds_them(
    files: list[tuple[str, bytes]], form: int, mtime: float, chunk: int
) -> None:
    try:
        data = tar_of(files, form, mtime=mtime)
    except ValueError:
        # ustar has no place for long names.
        data = tar_of(files, tarfile.PAX_FORMAT, mtime=mtime)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
    assert [(m.name, m.offset, m.size) for m in found(data, chunk)] == expected
    assert [data[m.offset : m.offset + m.size] for m in found(data, chunk)] == [d for _, d in files]


@given(
    files=st.lists(st.tuples(NAMES, st.binary(max_size=600)), min_size=1, max_size=3),
    changes=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), max_size=30),
    cut=st.integers(0, 1 << 13),
)
def test_whatever_the_bytes_places_lie_forward_and_nothing_else_is_raised(
    files: list[tuple[str, bytes]], changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(tar_of(files))
    for place, value in changes:
        data[place % len(data)] = value
    position = 0
    try:
        for member in members(
            TarBytes(lambda a, n: bytes(data[a : a + n]), max(len(data) - cut, 0), 512)
        ):
            assert member.offset >= position
            assert member.size >= 0
            position = member.offset + member.size
    except BrokenTar:
        pass


def test_folders_links_and_devices_are_passed_over() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"of kind {kind!r}")
            info.type, info.linkname = kind, "somewhere/" + "long" * 40
            tar.addfile(info)
        info = tarfile.TarInfo("1.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    (member,) = found(out.getvalue())
    assert (member.name, member.size) == ("1.jpg", 3)


def test_what_follows_the_end_is_not_read() -> None:
    data = tar_of([("1.jpg", b"abc")])
    assert len(found(data + tar_of([("2.jpg", b"abc")]))) == 1
    # Without the blocks that end it, as a writer leaves it that was stopped.
    assert len(found(data[:1024])) == 1


def test_a_member_larger_than_eight_gigabytes_is_placed() -> None:
    size = (1 << 35) + 5
    data = patched(
        tar_of([("1.jpg", b"")], tarfile.GNU_FORMAT), 124, b"\x80" + size.to_bytes(11, "big")
    )
    reader = members(TarBytes(lambda a, n: data[a : a + n], 1 << 36, 512))
    assert next(reader).size == size


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"<html>not found</html>" * 100, "no tar"),
        (tar_of([("1.jpg", bytes(2000))])[:1700], "within a member"),
        (tar_of([("1.jpg", b"")])[:300], "within the header at byte 0"),
        (patched(tar_of([("1.jpg", b"")]), 124, b"\xff" * 12), "names no size"),
        (patched(tar_of([("1.jpg", b"")]), 124, b"00000000009\0"), "names no size"),
        (patched(tar_of([("1.jpg", b"")]), 124, b"-0000000001\0"), "names no size"),
        (patched(tar_of([("1.jpg", b"")]), 124, b"77777777777\0"), "within a member"),
        (
            patched(patched(tar_of([("1.jpg", b"")]), 156, b"L"), 124, b"00100000000\0"),
            "16,777,216 bytes of attributes",
        ),
        (
            patched(patched(tar_of([("1.jpg", b"")]), 156, b"L"), 124, b"00000077777\0"),
            "within the attributes",
        ),
    ],
)
def test_what_is_broken_is_told_with_its_place(data: bytes, seen: str) -> None:
    with pytest.raises(BrokenTar, match=seen):
        found(data)


@pytest.mark.parametrize(
    "attributes",
    [
        b"999 path=a\n",
        b"0 path=a\n",
        b"-5 path=a\n",
        b"path=a\n",
        b"10 size=-5\n",
        b"30 size=" + b"9" * 22 + b"\n",
    ],
)
def test_damaged_attributes_are_told(attributes: bytes) -> None:
    data = patched(tar_of([("1.jpg", attributes)]), 156, b"x")
    with pytest.raises(BrokenTar, match="attributes"):
        found(data + tar_of([("2.jpg", b"")]))


def test_a_size_of_its_attributes_comes_before_that_of_the_header() -> None:
    data = tar_of([("1.jpg", b"abcdef")], pax_headers={"size": "6"})
    header = data.index(b"1.jpg")
    data = patched(data, 124, b"00000000001\0", header=header)
    assert [m.size for m in found(data)] == [6]


@pytest.mark.parametrize("how", ["S", "GNU.sparse.major"])
def test_what_is_stored_with_holes_is_told_apart(how: str) -> None:
    if how == "S":
        data = patched(tar_of([("1.jpg", b"abc")], tarfile.GNU_FORMAT), 156, b"S")
    else:
        data = tar_of([("1.jpg", b"abc")], pax_headers={how: "1"})
    (member,) = found(data)
    assert member.is_sparse


def test_names_beyond_ascii_and_beyond_a_header_are_whole() -> None:
    name = "ordner/" + "ü" * 150 + ".jpg"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert [m.name for m in found(tar_of([(name, b"x")], form))] == [name]


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_tar_that_ends_within_the_holes_of_a_member_is_broken(blocks: int) -> None:
    header = patched(tar_of([("a.jpg", b"")])[:512], 156, b"S")
    header = patched(header, 482, b"\x01")
    with pytest.raises(BrokenTar, match="ends within the header at byte 0"):
        found(header + b"\xff" * 512 * blocks)
