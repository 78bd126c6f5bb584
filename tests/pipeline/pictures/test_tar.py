import gc
import io
import tarfile

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pictures.tar import TarWriter

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
