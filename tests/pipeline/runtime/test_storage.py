import errno
import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.runtime import storage


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path)
    bucket: str = request.getfixturevalue("s3_bucket")
    return f"{bucket}/{tmp_path.name}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_is_written_is_read_back(folder: str) -> None:
    path = storage.join(folder, "a/b.bin")
    storage.write_bytes(path, b"content")
    assert storage.read_bytes(path) == b"content"
    assert storage.size(path) == 7
    assert storage.exists(path)


def test_a_name_does_not_change_the_bytes(folder: str) -> None:
    path = storage.join(folder, "packed.txt.gz")
    storage.write_bytes(path, gzip.compress(b"once"))
    assert gzip.decompress(storage.read_bytes(path)) == b"once"


def test_a_failed_write_leaves_nothing(folder: str) -> None:
    path = storage.join(folder, "broken/file.bin")

    def interrupted() -> None:
        with storage.atomic_output(path) as file:
            file.write(b"half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        interrupted()
    assert storage.list_inside(storage.join(folder, "broken")) == []


def test_files_are_listed_by_folder_and_by_pattern(folder: str) -> None:
    for name in ("x/1.warc.gz", "x/2.txt", "x/deep/3.warc.gz", "x/.hidden"):
        storage.write_bytes(storage.join(folder, name), b".")
    names = [p.partition("/x/")[2] for p in storage.list_files(storage.join(folder, "x"))]
    assert names == ["1.warc.gz", "2.txt", "deep/3.warc.gz"]
    one_level = storage.list_files(storage.join(folder, "x/*.gz"))
    assert [p.partition("/x/")[2] for p in one_level] == ["1.warc.gz"]
    all_levels = storage.list_files(storage.join(folder, "x/**/*.gz"))
    assert len(all_levels) == 2


def test_an_object_is_copied_to_a_local_file(folder: str) -> None:
    path = storage.join(folder, "copy/me.bin")
    storage.write_bytes(path, b"12345")
    with storage.local_copy(path) as local:
        assert Path(local).read_bytes() == b"12345"


def test_removing_takes_folders_and_forgives_absence(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "gone/a"), b".")
    storage.remove(storage.join(folder, "gone"))
    storage.remove(storage.join(folder, "gone"))
    assert storage.list_inside(storage.join(folder, "gone")) == []


def test_a_pattern_that_meets_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(StorageError, match="holds no files"):
        storage.list_files(f"{tmp_path}/*.gz")
    with pytest.raises(StorageError, match="does not exist"):
        storage.list_files(f"{tmp_path}/nothing/here.gz")


def test_an_unknown_scheme_is_an_error() -> None:
    with pytest.raises(StorageError, match="expected a local path"):
        storage.exists("gopher://host/file")


def test_http_inputs_are_copied_and_missing_ones_named(served: str, tmp_path: Path) -> None:
    (tmp_path / "file.gz").write_bytes(gzip.compress(b"hello"))
    with storage.local_copy(f"{served}/file.gz") as local:
        assert gzip.decompress(Path(local).read_bytes()) == b"hello"
    with (
        pytest.raises(StorageError, match=r"cannot read .*absent.gz: HTTP Error 404"),
        storage.local_copy(f"{served}/absent.gz"),
    ):
        pass


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="No space left on device; free some space"),
        storage.storage_errors("write", str(tmp_path)),
    ):
        raise OSError(errno.ENOSPC, "full")


def test_a_pattern_without_a_folder_means_files_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.gz").touch()
    monkeypatch.chdir(tmp_path)
    assert [Path(path).name for path in storage.list_files("*.gz")] == ["a.gz"]
