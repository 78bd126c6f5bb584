import io
import json
import tarfile
from pathlib import Path

import pytest

from pipeline.inputs.captures import Capture
from pipeline.inputs.pairs import Reference, Skipped
from pipeline.inputs.tar_shards import read_tar

ABOUT = {"url": "http://x/a.jpg", "caption": "A dog"}


def tar(members: dict[str, bytes | dict[str, object]]) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def outline(file: io.BytesIO) -> list[str]:
    rows = list(read_tar(file))
    return [
        r.caption if isinstance(r, Reference) else r.reason if isinstance(r, Skipped) else r.url
        for r in rows
    ]


def test_a_sample_is_a_pair_and_the_place_of_its_picture() -> None:
    file = tar({"00000.jpg": b"picture", "00000.json": ABOUT, "00000.txt": b"another"})
    pair, capture = read_tar(file)
    assert pair == Reference("http://x/a.jpg", "A dog", "table", None, 0)
    assert isinstance(capture, Capture)
    assert (capture.url, capture.media_type, capture.container) == (
        "http://x/a.jpg",
        "image/jpeg",
        "tar",
    )
    assert file.getvalue()[capture.offset : capture.offset + capture.length] == b"picture"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"a.json": {"url": "http://x/a"}, "a.txt": b"A cat"}, ["A cat"]),
        ({"a.json": {"url": "http://x/a", "caption": None}, "a.txt": b"A cat"}, ["A cat"]),
        ({"a.json": {"url": "http://x/a"}}, ["no_caption"]),
        ({"a.json": {"caption": "A cat"}, "a.jpg": b"x"}, ["no_url"]),
        ({"a.jpg": b"x", "a.txt": b"A cat"}, ["no_url"]),
        ({"a.json": b"{", "a.jpg": b"x"}, ["broken_record"]),
        ({"a.json": b"[1]"}, ["no_url"]),
        ({"a.json": {**ABOUT, "similarity": float("nan")}}, ["A dog"]),
        ({"a.json": {**ABOUT, "caption": "a\ud800"}}, ["a\ufffd"]),
        ({"a.json": b'{"url": ' + b"[" * 1000 + b"]" * 1000 + b"}"}, ["no_url"]),
        ({"a.json": b"[" * 100_000}, ["broken_record"]),
        ({"a.json": b'{"url": "http://x/a", "caption": "A d\xffg"}'}, ["A d\ufffdg"]),
        ({"\udcff.json": b"{"}, ["broken_record"]),
        ({"a.json": {"url": ["x"], "caption": 3}}, ["no_url"]),
        ({"d/a.json": ABOUT, "d/a.png": b"x"}, ["A dog", "http://x/a.jpg"]),
        ({"a.json": ABOUT, "b.json": {"url": "http://x/b", "caption": "B"}}, ["A dog", "B"]),
        ({"a.seg.png": b"x", "a.json": ABOUT}, ["A dog"]),
        ({}, []),
    ],
)
def test_every_sample_is_a_pair_or_a_drop(
    members: dict[str, bytes | dict[str, object]], expected: list[str]
) -> None:
    assert outline(tar(members)) == expected


def test_what_comes_before_a_cut_is_read() -> None:
    whole = tar({f"{i}.json": {"url": f"http://x/{i}", "caption": "A dog"} for i in range(20)})
    cut = io.BytesIO(whole.getvalue()[: 15 * 1024 + 100])
    found = outline(cut)
    assert found[:15] == ["A dog"] * 15
    assert set(found[15:]) <= {"broken_record", "no_url"}


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b", "GNU.sparse.size": "9"},
        {"GNU.sparse.map": "0,1", "GNU.sparse.size": "zz"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "zz"},
        {"size": "-1536"},
    ],
)
def test_a_member_with_broken_headers_is_a_drop(headers: dict[str, str]) -> None:
    file = tar({"a.json": {**ABOUT}})
    file.seek(0)
    with tarfile.open(fileobj=file, mode="a") as archive:
        member = tarfile.TarInfo("b.bin")
        member.pax_headers = headers
        archive.addfile(member)
    assert {"A dog", "broken_record"} <= set(outline(file)) <= {"A dog", "broken_record", "no_url"}


def test_what_is_seen_in_a_broken_member_can_be_written() -> None:
    [drop] = read_tar(tar({"\udcff.json": b"{"}))
    assert isinstance(drop, Skipped)
    assert drop.seen.encode().startswith("\ufffd.json".encode())


def test_a_real_shard_is_read(shared_data: Path) -> None:
    with (shared_data / "images/cc12m-train-0000.tar").open("rb") as file:
        rows = list(read_tar(file))
        pairs = [row for row in rows if isinstance(row, Reference)]
        captures = [row for row in rows if isinstance(row, Capture)]
        assert len(pairs) == len(captures) == 32
        assert len(rows) == 64
        for capture in captures:
            file.seek(capture.offset)
            assert file.read(2) == b"\xff\xd8"
