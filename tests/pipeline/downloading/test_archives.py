import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.downloading.archives import Archives, Place, find_captures
from pipeline.errors import StorageError
from pipeline.fetching.fetch import FetchRefused
from pipeline.inputs.captures import Capture, tabulate_captures
from pipeline.inputs.chunks import read_chunks
from pipeline.inputs.files import Input
from pipeline.inputs.tables import ColumnChoice
from pipeline.runtime import storage
from pipeline.runtime.stage import TaskOutput
from pipeline.runtime.workspace import Workspace
from tests.pipeline.archives import members, record, response
from tests.pipeline.file_server import serving

URL = "http://h.example/a.png"
PICTURE = b"\x89PNG" + bytes(range(256)) * 40


def picture(body: bytes = PICTURE, headers: str = "", url: str = URL) -> bytes:
    return response(body, url=url, kind="image/png", headers=headers)


def noted(path: Path) -> dict[str, Place]:
    """Return the places that reading the archive notes, by URL."""
    with path.open("rb") as file:
        chunks = list(read_chunks(file, Input("x", "x"), ColumnChoice(), None))
    found = [capture for chunk in chunks for capture in chunk[2]]
    return {c.url: Place(path.name, c.offset, c.length, c.container) for c in found}


def archives(folder: Path | str, places: dict[str, Place], **settings: object) -> Archives:
    given = {"max_bytes": 1_000_000, "agents": frozenset({"witmill", "img2dataset"})}
    return Archives(
        root=str(folder),
        places=places,
        **{**given, "otherwise": None, **settings},  # type: ignore[arg-type]
    )


def refused(folder: Path, url: str = URL, **settings: object) -> str:
    with pytest.raises(FetchRefused) as caught:
        archives(folder, noted(folder / "a.warc"), **settings).fetch(url)
    return caught.value.reason


def write(folder: Path, *records: bytes) -> None:
    (folder / "a.warc").write_bytes(b"".join(records))


@pytest.mark.parametrize("around", [[], [response(b"<p>x")], [picture(url="http://h.example/b")]])
@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_a_picture_is_read_from_its_place(kind: str, around: list[bytes], tmp_path: Path) -> None:
    records = [*around, picture(), *around]
    pack = {
        "plain": b"".join,
        "gzip": lambda some: members(*some),
        "zstd": lambda some: b"".join(pa.compress(one, "zstd", asbytes=True) for one in some),
    }[kind]
    (tmp_path / "a.warc").write_bytes(pack(records))
    assert archives(tmp_path, noted(tmp_path / "a.warc")).fetch(URL) == PICTURE


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(PICTURE), "Content-Encoding: gzip\r\n"),
        (b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE), "Transfer-Encoding: chunked\r\n"),
        (PICTURE, "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n"),
    ],
)
def test_what_the_answer_was_wrapped_in_is_undone(
    body: bytes, headers: str, tmp_path: Path
) -> None:
    write(tmp_path, picture(body, headers))
    assert archives(tmp_path, noted(tmp_path / "a.warc")).fetch(URL) == PICTURE


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ("X-Robots-Tag: noai\r\n", "robots_tag"),
        ("X-Robots-Tag: otherbot: noai\r\nx-robots-tag: img2dataset: noindex\r\n", "robots_tag"),
        ("X-Robots-Tag: otherbot: noai\r\n", None),
        ("X-Other: noai\r\n", None),
    ],
)
def test_owners_who_said_no_are_heard(headers: str, reason: str | None, tmp_path: Path) -> None:
    write(tmp_path, picture(headers=headers))
    if reason:
        assert refused(tmp_path) == reason
    else:
        assert archives(tmp_path, noted(tmp_path / "a.warc")).fetch(URL) == PICTURE


def test_the_limit_on_bytes_holds(tmp_path: Path) -> None:
    write(tmp_path, picture())
    places = noted(tmp_path / "a.warc")
    assert archives(tmp_path, places, max_bytes=len(PICTURE)).fetch(URL) == PICTURE
    assert refused(tmp_path, max_bytes=len(PICTURE) - 1) == "too_large"
    (tmp_path / "a.warc").unlink()
    huge = {url: place._replace(length=10**9) for url, place in places.items()}
    with pytest.raises(FetchRefused, match="too_large: 1000000000 bytes announced"):
        archives(tmp_path, huge).fetch(URL)
    write(tmp_path, picture(gzip.compress(bytes(100_000)), "Content-Encoding: gzip\r\n"))
    assert refused(tmp_path, max_bytes=50_000) == "too_large"


def test_a_picture_of_nothing_is_empty(tmp_path: Path) -> None:
    write(tmp_path, picture(b""))
    assert refused(tmp_path) == "empty"


def test_what_is_not_captured_is_refused_or_asked_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, picture())
    assert refused(tmp_path, "http://h.example/other") == "not_captured"
    places = noted(tmp_path / "a.warc")
    both = archives(tmp_path, places, otherwise=lambda url: url.encode())
    assert both.fetch("http://h.example/other") == b"http://h.example/other"
    assert both.fetch(URL) == PICTURE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 9000,
        picture(url="http://h.example/another"),
        picture()[:300],
        response(b"<p>x") + picture(),
        record("response", b"nothing", "application/http", URL),
        record("response", b"HTTP/1.1 200 Fine\r\n", "application/http", URL),
        b"WARC/1.0\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_an_archive_that_is_no_longer_what_it_was_is_no_error(
    content: bytes, tmp_path: Path
) -> None:
    write(tmp_path, picture())
    places = noted(tmp_path / "a.warc")
    write(tmp_path, content)
    with pytest.raises(FetchRefused) as caught:
        archives(tmp_path, places).fetch(URL)
    assert caught.value.reason == "broken_capture"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xff\xd8\xff\xe0" + PICTURE, "Content-Encoding: br\r\n"),
        (b"28b5\r\n" + PICTURE + b"no size\r\n", "Transfer-Encoding: chunked\r\n"),
        (b"5\r\nabcdefgh", "Transfer-Encoding: chunked\r\n"),
    ],
)
def test_an_answer_that_cannot_be_decoded_is_refused(
    body: bytes, headers: str, tmp_path: Path
) -> None:
    write(tmp_path, picture(body, headers))
    assert refused(tmp_path) == "broken_capture"


def test_a_length_that_is_no_number_any_more_is_refused(tmp_path: Path) -> None:
    body = b"HTTP/1.1 200 Fine\r\n\r\nx"
    whole = record("response", body, "application/http", URL)
    write(tmp_path, whole)
    places = noted(tmp_path / "a.warc")
    write(tmp_path, whole.replace(b"Content-Length: 22", b"Content-Length: x2"))
    with pytest.raises(FetchRefused, match="broken_capture"):
        archives(tmp_path, places).fetch(URL)


def shard(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    about = json.dumps({"url": URL, "caption": "A dog"}).encode()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path, data in (("0.json", about), (name, content)):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("name", ["0.png", "long/" * 60 + "0.png"])
def test_a_member_of_a_tar_is_read_from_its_place(name: str, tmp_path: Path) -> None:
    write(tmp_path, shard(name, PICTURE))
    assert archives(tmp_path, noted(tmp_path / "a.warc")).fetch(URL) == PICTURE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(20_000),
        shard("0.png", PICTURE)[:9000],
        shard("0.png", PICTURE[:-1]),
        shard("0.png", PICTURE[:-1]) + PICTURE,
        shard("long/" * 60 + "0.png", PICTURE),
        b"x" + shard("0.png", PICTURE),
    ],
)
def test_a_tar_that_is_no_longer_what_it_was_gives_no_picture(
    content: bytes, tmp_path: Path
) -> None:
    write(tmp_path, shard("0.png", PICTURE))
    places = noted(tmp_path / "a.warc")
    write(tmp_path, content)
    with pytest.raises(FetchRefused, match="broken_capture"):
        archives(tmp_path, places).fetch(URL)


def test_a_place_where_no_tar_header_fits_before_is_refused(tmp_path: Path) -> None:
    write(tmp_path, shard("0.png", PICTURE))
    with pytest.raises(FetchRefused, match="broken_capture"):
        archives(tmp_path, {URL: Place("a.warc", 100, 50, "tar")}).fetch(URL)


def test_an_archive_in_one_member_gives_no_wrong_picture(tmp_path: Path) -> None:
    many = [picture(bytes([i]) * 5000, url=f"http://h.example/{i}") for i in range(20)]
    (tmp_path / "a.warc").write_bytes(gzip.compress(b"".join(many)))
    places = noted(tmp_path / "a.warc")
    for i in range(20):
        url = f"http://h.example/{i}"
        try:
            assert archives(tmp_path, places).fetch(url) == bytes([i]) * 5000
        except FetchRefused as error:
            assert error.reason == "broken_capture"  # noqa: PT017


def test_an_archive_that_is_gone_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, picture())
    places = noted(tmp_path / "a.warc")
    (tmp_path / "a.warc").unlink()
    with pytest.raises(StorageError, match=r"a\.warc"):
        archives(tmp_path, places).fetch(URL)


def test_archives_may_lie_on_a_server_or_in_a_bucket(tmp_path: Path, s3_bucket: str) -> None:
    write(tmp_path, response(b"<p>x"), picture())
    content = (tmp_path / "a.warc").read_bytes()
    places = noted(tmp_path / "a.warc")
    storage.write_bytes(f"{s3_bucket}/a.warc", content)
    assert archives(s3_bucket, places).fetch(URL) == PICTURE
    with serving() as server:
        server.files["/deep/a.warc"] = content
        assert archives(f"{server.url}/deep", places).fetch(URL) == PICTURE
        [(_, asked)] = server.asked
        assert asked is not None


def test_the_first_place_of_each_url_counts(workspace: Workspace) -> None:
    output = TaskOutput(workspace=workspace, stage="download", index=0)
    parts = []
    for number, urls in enumerate([["u1", "u2", "u1"], ["u2", "u3"]]):
        captures = [Capture(url, i, 9, "image/png", "warc") for i, url in enumerate(urls)]
        table = tabulate_captures(captures, f"{number}.warc")
        parts.append(workspace.write(f"ingest/captures/{number}", table, schemas.CAPTURES))
    found = find_captures(parts, pa.array(["u3", "u2", "u9"]), output)
    assert found == {"u2": Place("0.warc", 1, 9, "warc"), "u3": Place("1.warc", 1, 9, "warc")}
