import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest

from pipeline import ingest, schemas
from pipeline.errors import ConfigError, InputError, StorageError, TaskFailed
from pipeline.ingest import REASONS, IngestConfig, find_root, list_inputs, run
from pipeline.inputs import chunks, references, repeats
from pipeline.inputs.pairs import MAX_CAPTION_CHARACTERS, hash_pair
from pipeline.runtime import http_files
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.settings import read_settings
from pipeline.runtime.workspace import Workspace
from tests.pipeline.archives import describe_page, members, record, response
from tests.pipeline.file_server import FileServer, serving

CRAWL = "CC-MAIN-2024-22"
PAGE = b"<img src=1.jpg alt='A dog'><img src=1.jpg alt='A dog'><img src=1.jpg alt='A cat'>"


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    """One small file of every kind, with pairs that occur in several of them."""
    folder = tmp_path / "crawl"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.warc.gz").write_bytes(members(response(PAGE), response(PAGE, status=500)))
    wat = describe_page(PAGE.decode() + "<img src=2.jpg alt='A cow'>", "http://h.example/p")
    (folder / "deep" / "a.wat.gz").write_bytes(members(wat))
    (folder / "t.tsv").write_bytes(b"url\ttext\nhttp://h.example/1.jpg\tA dog\nhttp://x/3\tA pig\n")
    table = pa.table({"URL": ["http://x/3", "http://x/4"], "TEXT": ["A pig", None]})
    pq.write_table(table, folder / "u.parquet")
    return folder


def table(workspace: Workspace, manifest: Manifest, name: str = "main") -> pa.Table:
    schema = schemas.PAIRS if name == "main" else schemas.DROPS
    return pa.concat_tables([workspace.read(part, schema) for part in manifest.tables[name]])


def start(workspace: Workspace, *inputs: Path | str, **settings: Any) -> Manifest:
    config = IngestConfig(inputs=tuple(map(str, inputs)), **settings)
    return run(config, workspace, InlineExecutor())


def test_every_executor_makes_the_same_pairs(
    crawl: Path, workspace: Workspace, executor: Executor
) -> None:
    manifest = run(IngestConfig(inputs=(str(crawl),)), workspace, executor)
    found = table(workspace, manifest).select(["url", "caption", "source"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("http://h.example/1.jpg", "A dog", "b.warc.gz"),
        ("http://h.example/1.jpg", "A cat", "b.warc.gz"),
        ("http://h.example/2.jpg", "A cow", "deep/a.wat.gz"),
        ("http://x/3", "A pig", "t.tsv"),
    ]
    assert manifest.drops == {"duplicate_pair": 6, "http_error": 1, "no_caption": 1}
    assert manifest.rows_in == 12


def test_the_result_depends_on_neither_place_nor_order_nor_chunks(
    crawl: Path, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(workspace, crawl)
    elsewhere = Workspace(root=str(tmp_path / "other"))
    moved = crawl.rename(tmp_path / "moved")
    files = [moved / "u.parquet", moved / "t.tsv", moved / "deep", moved / "b.warc.gz", moved]
    assert start(elsewhere, *files).content == first.content
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 1)
    monkeypatch.setattr(repeats, "KEYS_PER_PARTITION", 2)
    small = Workspace(root=str(tmp_path / "small"))
    manifest = start(small, moved)
    assert table(small, manifest).equals(table(workspace, first))
    assert manifest.drops == first.drops


def test_every_reason_comes_from_real_input(workspace: Workspace, tmp_path: Path) -> None:
    page = (
        "<img alt=x><img src='data:,x' alt=x><img src='ftp://x/a' alt=x><img src='http://[/' alt=x>"
        f"<img src=a><img src=a alt='{'x' * (MAX_CAPTION_CHARACTERS + 1)}'>"
        "<img src=a alt='A dog'><img src=a alt='A dog'>"
    )
    archive = [
        response(page.encode()),
        response(b"", status=404),
        response(b"", kind="image/png"),
        record("response", b"nothing", "application/http"),
    ]
    (tmp_path / "x.warc").write_bytes(b"".join(archive))
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    (tmp_path / "x.csv").write_text("url,text,face_bboxes\nhttp://h.example/b,A cat,[[0.1]]\n")
    manifest = start(workspace, tmp_path, max_failed_files=1)
    found = dict.fromkeys(sorted(REASONS), 1)
    del found["missing_file"]
    assert manifest.drops == found
    drops = {row["reason"]: row for row in table(workspace, manifest, "drops").to_pylist()}
    assert drops["broken_record"]["detail"] == (
        f"x.warc@{len(b''.join(archive[:3]))}: no HTTP status line"
    )
    repeated = hash_pair("http://h.example/a", "A dog")
    assert drops["duplicate_pair"]["pair_id"] == repeated
    assert drops["duplicate_pair"]["detail"] == "x.warc@0"


def test_an_input_without_rows_is_no_error(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "none.warc").write_bytes(record("warcinfo", b"", "text/plain"))
    manifest = start(workspace, tmp_path / "none.warc")
    assert (manifest.rows_in, manifest.rows_out) == (0, 0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "in is empty"),
        (b"\0\1\2", "unknown kind"),
        (b"PAR1 and no more", "is a broken Parquet file"),
        (b"a,b\n1,2\n", "its columns are a, b; name the right one with --url-column"),
        (b'{"a": 1}\n', "its columns are a; name"),
        (members(record("conversion", b"", "text/plain")), "WET"),
    ],
)
def test_a_useless_input_is_refused_before_the_work(
    content: bytes, problem: str, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        start(workspace, tmp_path / "in")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"caption_column": "nothing"}, {"extra": b"a,b\n1,2\n"}])
def test_a_mistake_in_the_settings_deletes_nothing(
    crawl: Path, workspace: Workspace, settings: dict[str, str | bytes]
) -> None:
    manifest = start(workspace, crawl)
    given = dict(settings)
    if "extra" in given:
        (crawl / "extra").write_bytes(given.pop("extra"))  # type: ignore[arg-type]
    with pytest.raises(InputError):
        start(workspace, crawl, **given)
    assert workspace.finished("ingest") == manifest


def test_the_state_of_an_input_is_kept_under_its_source(
    crawl: Path, workspace: Workspace, tmp_path: Path
) -> None:
    files = start(workspace, crawl).files
    assert set(files) == {"b.warc.gz", "deep/a.wat.gz", "t.tsv", "u.parquet"}
    moved = crawl.rename(tmp_path / "moved")
    assert start(workspace, moved).files == files


def test_what_a_stage_of_the_workspace_wrote_is_no_input(
    crawl: Path, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = start(workspace, crawl)
    (tmp_path / "link").symlink_to(workspace.root)
    for given in (f"{workspace.root}/ingest", f"{tmp_path}/link/ingest/*.parquet"):
        with pytest.raises(InputError, match="belongs to the stage ingest of this workspace"):
            start(workspace, given)
    monkeypatch.chdir(tmp_path)
    relative = Workspace(root="workspace")
    with pytest.raises(InputError, match="belongs to the stage ingest of this workspace"):
        start(relative, "workspace/ingest")
    assert workspace.finished("ingest") == manifest
    other = Workspace(root=str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    inside = crawl.rename(tmp_path / "other" / "crawl")
    assert start(other, inside).content == manifest.content
    assert start(
        Workspace(root=f"{workspace.root}2"), *Path(workspace.root, "ingest").glob("*.parquet")
    )


def test_json_lines_with_a_mark_keep_their_first_row(workspace: Workspace, tmp_path: Path) -> None:
    text = '{"url": "http://x/1", "text": "A dog"}\n{"url": "http://x/2", "text": "Käse"}\n'
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / f"{encoding}.jsonl").write_bytes(text.encode(encoding))
        manifest = start(workspace, tmp_path / f"{encoding}.jsonl")
        assert table(workspace, manifest).column("caption").to_pylist() == ["A dog", "Käse"]
        assert manifest.drops == {}


def test_no_input_or_a_missing_one_is_named(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ingest\.inputs is empty"):
        start(workspace)
    with pytest.raises(StorageError, match="absent"):
        start(workspace, tmp_path / "absent")


def test_columns_are_named_by_settings(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("url,a,b\nhttp://x/1,http://x/2,A dog\n")
    manifest = start(workspace, tmp_path / "t.csv", url_column="a", caption_column="b")
    assert table(workspace, manifest).column("url").to_pylist() == ["http://x/2"]


def test_a_large_parquet_file_is_read_in_pieces(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "PIECE_ROWS", 5)
    rows = pa.table({"url": [f"http://x/{i % 12}" for i in range(20)], "text": ["A dog"] * 20})
    pq.write_table(rows, tmp_path / "t.parquet", row_group_size=3)
    manifest = start(workspace, tmp_path / "t.parquet")
    assert table(workspace, manifest).column("source_offset").to_pylist() == list(range(12))
    assert [part.rows for part in manifest.parts] == [6, 6, 0, 0]


@pytest.fixture
def web(crawl: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(http_files, "FIRST_PAUSE_S", 0.001)
    with serving() as server:
        for path in filter(Path.is_file, crawl.rglob("*")):
            server.files[f"/{path.relative_to(crawl)}"] = path.read_bytes()
        yield server


def test_urls_and_folders_give_the_same_pairs(
    web: FileServer, crawl: Path, workspace: Workspace, tmp_path: Path
) -> None:
    names = ["b.warc.gz", "deep/a.wat.gz", "t.tsv", "u.parquet"]
    local = Workspace(root=str(tmp_path / "local"))
    remote = start(workspace, *(f"{web.url}/{name}" for name in names))
    assert remote.content == start(local, crawl).content


def test_a_bad_remote_input_is_named(web: FileServer, workspace: Workspace) -> None:
    web.files["/empty"] = b""
    with pytest.raises(TaskFailed, match=f"{web.url}/empty is empty"):
        start(workspace, f"{web.url}/empty")


def test_inputs_and_workspace_may_be_objects(
    s3_bucket: str, crawl: Path, workspace: Workspace
) -> None:
    system, inner = fs.FileSystem.from_uri(f"{s3_bucket}/crawl")
    fs.copy_files(str(crawl), inner, destination_filesystem=system)
    remote = Workspace(root=f"{s3_bucket}/ingested")
    assert start(remote, f"{s3_bucket}/crawl").content == start(workspace, crawl).content


def test_a_finished_ingest_is_not_repeated(crawl: Path, workspace: Workspace) -> None:
    first = start(workspace, crawl)
    assert start(workspace, crawl) == first


def test_a_real_crawl_gives_the_known_counts(shared_data: Path, workspace: Workspace) -> None:
    manifest = start(workspace, shared_data / "crawl/aut_example.warc.gz")
    assert manifest.drops == {
        "duplicate_pair": 497,
        "http_error": 47,
        "no_caption": 192,
        "not_html": 158,
    }
    assert (manifest.rows_in, manifest.rows_out) == (993, 99)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"inputs": ("a",), "crawl": CRAWL, "files": ("0",)},
            "both ingest.inputs and ingest.crawl",
        ),
        ({"crawl": CRAWL}, "ingest.files is empty; .*, or : for all"),
        ({"files": ("0",)}, "name one with --crawl"),
    ],
)
def test_a_crawl_is_named_in_place_of_inputs_and_with_its_files(
    settings: dict[str, Any], message: str, workspace: Workspace
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(IngestConfig(**settings), workspace, InlineExecutor())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": ["1-2"]}, "ingest.files is .*expected numbers and ranges such as"),
        ({"crawl": "../x"}, r"ingest.crawl is '\.\./x', expected a crawl such as CC-MAIN-2024-22"),
        ({"crawl": "CC-MAIN-2024-22/../x"}, "ingest.crawl is"),
        ({"kind": "wet"}, "ingest.kind is 'wet', expected 'wat' or 'warc'"),
    ],
)
def test_a_wrong_setting_of_a_crawl_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(IngestConfig, settings, where="ingest")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder like Common Crawl's with five WAT files of a pair each, and one all share."""
    folder = tmp_path / "cc"
    paths = [f"crawl-data/{CRAWL}/segments/1.{i % 2}/wat/{i}.warc.wat.gz" for i in range(5)]
    for i, path in enumerate(paths):
        page = f"<img src=/{i}.jpg alt='A dog'><img src=/shared.jpg alt='A cat'>"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(members(describe_page(page, "http://h.example/p")))
    listed = folder / f"crawl-data/{CRAWL}/wat.paths.gz"
    listed.write_bytes(gzip.compress("\n".join(paths).encode()))
    return folder


def read_crawl(workspace: Workspace, mirror: object, *files: str, **settings: Any) -> Manifest:
    config = IngestConfig(crawl=CRAWL, files=files, mirror=str(mirror), **settings)
    return run(config, workspace, InlineExecutor())


@pytest.fixture
def common_crawl(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(http_files, "FIRST_PAUSE_S", 0.001)
    with serving() as server:
        for path in filter(Path.is_file, mirror.rglob("*")):
            server.files[f"/{path.relative_to(mirror)}"] = path.read_bytes()
        yield server


def wat(number: int) -> str:
    return f"/crawl-data/{CRAWL}/segments/1.{number % 2}/wat/{number}.warc.wat.gz"


def test_a_crawl_gives_the_same_bytes_from_every_mirror(
    mirror: Path, common_crawl: FileServer, s3_bucket: str, workspace: Workspace, tmp_path: Path
) -> None:
    manifest = read_crawl(workspace, mirror, "0:5:2", "1")
    assert manifest.drops == {"duplicate_pair": 3}
    found = table(workspace, manifest).select(["url", "source"]).to_pylist()
    sources = [wat(i)[1:] for i in (0, 0, 1, 2, 4)]
    assert [row["source"] for row in found] == sources
    system, inner = fs.FileSystem.from_uri(f"{s3_bucket}/cc")
    fs.copy_files(str(mirror), inner, destination_filesystem=system)
    for place in (common_crawl.url, f"{s3_bucket}/cc"):
        other = Workspace(root=str(tmp_path / f"other-{len(place)}"))
        assert read_crawl(other, place, "0:5:2", "1").content == manifest.content
    assert wat(3) not in [path for path, _ in common_crawl.asked]


def test_another_mirror_or_touched_files_are_no_reason_to_read_again(
    mirror: Path, common_crawl: FileServer, workspace: Workspace
) -> None:
    first = read_crawl(workspace, mirror, "0:2")
    (mirror / wat(0)[1:]).touch()
    assert read_crawl(workspace, common_crawl.url, "0:2") == first
    assert read_crawl(workspace, mirror, "0:2") == first
    assert common_crawl.asked[-1][0].endswith("wat.paths.gz")


def test_faults_of_the_server_leave_no_trace(
    mirror: Path, common_crawl: FileServer, workspace: Workspace, tmp_path: Path
) -> None:
    common_crawl.faults[wat(0)] = [(503, {"Retry-After": "0"}), "cut", "reset"]
    common_crawl.faults[wat(1)] = ["cut", "whole"]
    manifest = read_crawl(workspace, common_crawl.url, ":")
    local = Workspace(root=str(tmp_path / "local"))
    assert manifest.content == read_crawl(local, mirror, ":").content


def test_one_failed_file_does_not_stop_the_others_and_is_tried_alone_afterwards(
    common_crawl: FileServer, workspace: Workspace
) -> None:
    whole = common_crawl.files.pop(wat(2))
    with pytest.raises(TaskFailed, match=rf"1 inputs failed \({wat(2)[1:]}\): .*HTTP Error 404"):
        read_crawl(workspace, common_crawl.url, ":")
    assert wat(4) in [path for path, _ in common_crawl.asked]
    common_crawl.asked.clear()
    common_crawl.files[wat(2)] = whole
    manifest = read_crawl(workspace, common_crawl.url, ":")
    assert [path for path, _ in common_crawl.asked] == [f"/crawl-data/{CRAWL}/wat.paths.gz", wat(2)]
    assert manifest.rows_out == 6
    assert manifest.resumed_tasks == 4


@pytest.mark.parametrize("place", ["http", "s3", "folder"])
def test_a_missing_file_is_named_wherever_the_mirror_is(
    place: str, mirror: Path, request: pytest.FixtureRequest, workspace: Workspace
) -> None:
    (mirror / wat(3)[1:]).unlink()
    root = str(mirror)
    if place == "http":
        root = request.getfixturevalue("common_crawl").url
    elif place == "s3":
        root = f"{request.getfixturevalue('s3_bucket')}/cc"
        system, inner = fs.FileSystem.from_uri(root)
        fs.copy_files(str(mirror), inner, destination_filesystem=system)
    with pytest.raises(TaskFailed, match=wat(3)) as caught:
        read_crawl(workspace, root, ":")
    assert "\n" not in str(caught.value)


def test_some_files_may_fail_and_are_counted(
    common_crawl: FileServer, workspace: Workspace, tmp_path: Path
) -> None:
    absent = {number: common_crawl.files.pop(wat(number)) for number in (1, 2)}
    with pytest.raises(TaskFailed, match=r"2 inputs failed .*--max-failed-files 2"):
        read_crawl(workspace, common_crawl.url, ":", max_failed_files=1)
    manifest = read_crawl(workspace, common_crawl.url, ":", max_failed_files=2)
    assert manifest.drops == {"duplicate_pair": 2, "missing_file": 2}
    assert (manifest.rows_in, manifest.rows_out) == (8, 4)
    details = [row["detail"] for row in table(workspace, manifest, "drops").to_pylist()]
    assert [d for d in details if "could not" in d] == [
        f"{wat(i)[1:]}@0: could not be read" for i in (1, 2)
    ]
    for number, content in absent.items():
        common_crawl.files[wat(number)] = content
    elsewhere = Workspace(root=str(tmp_path / "whole"))
    assert read_crawl(elsewhere, common_crawl.url, ":", max_failed_files=2).rows_out == 6


def test_a_run_killed_after_it_went_on_without_a_file_stays_without_it(
    common_crawl: FileServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = common_crawl.files.pop(wat(1))
    with monkeypatch.context() as killed:
        killed.setattr(ingest, "write_part", stop)
        with pytest.raises(KeyboardInterrupt):
            read_crawl(workspace, common_crawl.url, ":", max_failed_files=1)
    common_crawl.files[wat(1)] = content
    manifest = read_crawl(workspace, common_crawl.url, ":", max_failed_files=1)
    assert manifest.drops["missing_file"] == 1


def stop(_: object) -> None:
    raise KeyboardInterrupt


def test_what_a_folder_holds_beside_is_left_out_and_counted(
    crawl: Path, workspace: Workspace, tmp_path: Path
) -> None:
    alone = Workspace(root=str(tmp_path / "alone"))
    expected = table(alone, start(alone, crawl))
    (crawl / "photo.png").write_bytes(b"\x89PNG")
    (crawl / "deep" / "00000_stats.json").write_text('{\n  "count": 1000\n}\n')
    (crawl / "x.warc.wet.gz").write_bytes(members(record("conversion", b"", "text/plain")))
    manifest = start(workspace, crawl)
    assert manifest.drops["unknown_file"] == 3
    assert table(workspace, manifest).equals(expected)
    with pytest.raises(InputError, match=r"photo.png is of an unknown kind"):
        start(workspace, crawl, crawl / "photo.png")


def test_the_end_says_what_came_of_each_kind_of_file(
    crawl: Path, workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    start(workspace, crawl)
    lines = [line.split() for line in capfd.readouterr().err.splitlines()[-5:]]
    assert lines == [
        ["kind", "files", "rows", "pairs", "dropped"],
        ["parquet", "1", "2", "0", "duplicate_pair", "1,", "no_caption", "1"],
        ["tsv", "1", "2", "1", "duplicate_pair", "1"],
        ["warc", "1", "4", "2", "duplicate_pair", "1,", "http_error", "1"],
        ["wat", "1", "4", "1", "duplicate_pair", "3"],
    ]


def test_keys_of_rows_are_kept_for_the_pairs_that_stay(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = {
        "uid": ["a1", "a2", "a3", None],
        "url": ["http://x/1", "http://x/1", "http://x/2", "http://x/3"],
        "text": ["A dog", "A dog", None, "A cat"],
    }
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    manifest = start(workspace, tmp_path / "t.parquet")
    [part] = manifest.tables["source_keys"]
    assert workspace.read(part, schemas.SOURCE_KEYS).to_pylist() == [
        {"pair_id": hash_pair("http://x/1", "A dog"), "key": "a1"}
    ]


def test_images_in_archives_are_listed_beside_the_pairs(
    workspace: Workspace, tmp_path: Path
) -> None:
    picture = response(b"\x89PNG...", url="http://h.example/1.jpg", kind="image/png")
    archive = [gzip.compress(response(PAGE)), gzip.compress(picture)]
    (tmp_path / "a.warc.gz").write_bytes(b"".join(archive))
    manifest = start(workspace, tmp_path / "a.warc.gz")
    assert manifest.drops == {"duplicate_pair": 1, "not_html": 1}
    [part] = manifest.tables["captures"]
    [row] = workspace.read(part, schemas.CAPTURES).to_pylist()
    assert row.pop("length") >= len(archive[1])
    assert row == {
        "url": "http://h.example/1.jpg",
        "source": "a.warc.gz",
        "source_offset": len(archive[0]),
        "media_type": "image/png",
        "container": "warc",
    }


def test_every_real_crawl_in_one_folder_is_read(shared_data: Path, workspace: Workspace) -> None:
    manifest = start(workspace, shared_data / "crawl")
    assert manifest.drops["unknown_file"] == 2
    assert manifest.rows_out > 200


def test_sources_are_found_again_below_the_root(crawl: Path, mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("url,text\n")
    for given in ([crawl], [crawl / "t.tsv"], [crawl, tmp_path / "c.csv"]):
        config = IngestConfig(inputs=tuple(map(str, given)))
        root = find_root(config)
        assert [f"{root}{file.source}" for file in list_inputs(config)] == [
            file.path for file in list_inputs(config)
        ]
    apart = IngestConfig(inputs=("http://a.example/x", str(crawl / "t.tsv")))
    assert find_root(apart) == ""
    assert find_root(IngestConfig(crawl=CRAWL, files=("0",), mirror=str(mirror))) == str(mirror)
