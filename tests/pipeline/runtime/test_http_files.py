import random
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.runtime import http_files, storage
from pipeline.runtime.http_files import copy_file, read_range
from tests.pipeline.file_server import FileServer, Handler, in_a_moment, serving

CONTENT = random.Random(1).randbytes(100_000)


@pytest.fixture
def web() -> Iterator[FileServer]:
    with serving() as server:
        server.files["/a"] = CONTENT
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Keep what would have been waited, and wait for nothing."""
    waited: list[float] = []
    monkeypatch.setattr(http_files.time, "sleep", waited.append)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return waited


def copied(web: FileServer, folder: Path) -> bytes:
    copy_file(f"{web.url}/a", str(folder / "copy"))
    return (folder / "copy").read_bytes()


def test_a_file_is_copied_with_one_request(web: FileServer, tmp_path: Path) -> None:
    assert copied(web, tmp_path) == CONTENT
    assert web.asked == [("/a", None)]


def test_what_broke_off_goes_on_from_there(
    web: FileServer, tmp_path: Path, pauses: list[float]
) -> None:
    web.faults["/a"] = ["cut", "cut"]
    assert copied(web, tmp_path) == CONTENT
    assert web.asked == [("/a", None), ("/a", "bytes=50000-"), ("/a", "bytes=75000-")]
    assert pauses == [1, 2]


@pytest.mark.parametrize("fault", ["whole", "other"])
def test_a_range_that_is_not_the_one_asked_for_is_not_appended(
    web: FileServer, tmp_path: Path, fault: str
) -> None:
    web.faults["/a"] = ["cut", fault]
    assert copied(web, tmp_path) == CONTENT


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_strong_tag_all_is_asked_for_again(
    web: FileServer, tmp_path: Path, tag: str | None
) -> None:
    web.tag = tag
    web.faults["/a"] = ["cut"]
    assert copied(web, tmp_path) == CONTENT
    assert web.asked == [("/a", None)] * 2


class Sparing(Handler):
    """Sends at most 30,000 bytes of a range, all of which it announces."""

    def _send(self, body: bytes, wanted: str | None, fault: str | None) -> None:
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last or len(body)), int(first) + 29_999)
            wanted = f"bytes={first}-{end}"
        super()._send(body, wanted, fault)


def test_a_range_shorter_than_what_is_missing_is_not_the_end(
    web: FileServer, tmp_path: Path
) -> None:
    web.faults["/a"] = ["cut"]
    web.RequestHandlerClass = Sparing
    assert copied(web, tmp_path) == CONTENT
    assert [wanted for _, wanted in web.asked] == [None, "bytes=50000-", "bytes=80000-"]


def test_a_part_that_stays_too_short_is_an_error(web: FileServer) -> None:
    web.RequestHandlerClass = Sparing
    assert read_range(f"{web.url}/a", 10, 30_000) == CONTENT[10:30_010]
    with pytest.raises(StorageError, match=r"30,000 of the 50,000 bytes from 10 on came"):
        read_range(f"{web.url}/a", 10, 50_000)


def test_a_part_from_another_place_is_not_taken(web: FileServer) -> None:
    web.faults["/a"] = ["other"]
    assert read_range(f"{web.url}/a", 10, 20) == CONTENT[10:30]
    assert len(web.asked) == 2


def test_no_more_of_a_part_is_read_than_was_asked_for(web: FileServer) -> None:
    class Lavish(Handler):
        def _send(self, body: bytes, wanted: str | None, fault: str | None) -> None:
            super()._send(body, f"{(wanted or '').partition('-')[0]}-", fault)

    web.RequestHandlerClass = Lavish
    assert read_range(f"{web.url}/a", 10, 20) == CONTENT[10:30]


def test_another_version_is_not_mixed_with_the_first(web: FileServer, tmp_path: Path) -> None:
    web.faults["/a"] = ["cut"]

    class Changing(Handler):
        def do_GET(self) -> None:
            super().do_GET()
            web.tag, web.files["/a"] = '"two"', CONTENT[::-1]

    web.RequestHandlerClass = Changing
    assert copied(web, tmp_path) == CONTENT[::-1]
    assert web.asked == [("/a", None), ("/a", "bytes=50000-")]


@pytest.mark.parametrize("fault", ["reset", (503, {}), (500, {}), (429, {}), (408, {})])
def test_a_passing_fault_is_tried_again(web: FileServer, tmp_path: Path, fault: str) -> None:
    web.faults["/a"] = [fault] * 3
    assert copied(web, tmp_path) == CONTENT
    assert len(web.asked) == 4


@pytest.mark.parametrize("value", ["7", "junk", in_a_moment()], ids=["seconds", "junk", "date"])
def test_the_server_says_when_to_come_back(
    web: FileServer, tmp_path: Path, pauses: list[float], value: str
) -> None:
    web.faults["/a"] = [(503, {"Retry-After": value})]
    assert copied(web, tmp_path) == CONTENT
    assert pauses == [7 if value == "7" else 1]


def test_a_server_that_asks_for_an_hour_is_not_waited_for(
    web: FileServer, tmp_path: Path, pauses: list[float]
) -> None:
    web.faults["/a"] = [(503, {"Retry-After": "3600"})]
    with pytest.raises(StorageError, match=r"/a: HTTP Error 503 .*asks to come back in 3,600 s"):
        copied(web, tmp_path)
    assert pauses == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_final_answer_is_not_asked_for_again(
    web: FileServer, tmp_path: Path, status: int
) -> None:
    web.faults["/a"] = [(status, {})]
    with pytest.raises(StorageError, match=f"cannot read {web.url}/a: HTTP Error {status}"):
        copied(web, tmp_path)
    assert len(web.asked) == 1


def test_a_file_that_always_breaks_off_fails_with_its_figures(
    web: FileServer, tmp_path: Path
) -> None:
    web.tag = None
    web.faults["/a"] = ["cut"] * 100
    with pytest.raises(StorageError, match=r"/a: it breaks off, 50,000 of 100,000 bytes came"):
        copied(web, tmp_path)
    assert len(web.asked) == http_files.ATTEMPTS


def test_attempts_that_bring_something_do_not_count(
    web: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr(http_files, "PROGRESS_BYTES", 1000)
    web.faults["/a"] = ["cut"] * 6
    assert copied(web, tmp_path) == CONTENT
    assert pauses == [1] * 6


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(StorageError, match=r"cannot read http://127.*Connection refused") as caught:
        copy_file(f"http://127.0.0.1:{port}/a", str(tmp_path / "a"))
    assert "\n" not in str(caught.value)


def test_redirects_are_followed(web: FileServer, tmp_path: Path) -> None:
    web.faults["/old"] = [(302, {"Location": "/a"})]
    copy_file(f"{web.url}/old", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_a_proxy_of_the_environment_is_used(
    web: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["http://elsewhere.example/a"] = CONTENT
    monkeypatch.setenv("http_proxy", web.url)
    copy_file("http://elsewhere.example/a", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_a_full_disk_is_no_fault_of_the_server(web: FileServer, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*copy: File too large"):
            copied(web, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(web.asked) == 1


def test_a_range_is_read_wherever_the_file_is(
    web: FileServer, tmp_path: Path, s3_bucket: str
) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    storage.write_bytes(f"{s3_bucket}/a", CONTENT)
    web.faults["/a"] = ["reset", "cut"]
    for path in (str(tmp_path / "a"), f"{web.url}/a", f"{s3_bucket}/a"):
        assert storage.read_range(path, 500, 1000) == CONTENT[500:1500]
        assert storage.read_range(path, 99_000, 9000) == CONTENT[99_000:]


def test_a_server_without_ranges_is_named(web: FileServer) -> None:
    web.faults["/a"] = ["whole"]
    with pytest.raises(StorageError, match="sends whole files only"):
        read_range(f"{web.url}/a", 10, 20)
