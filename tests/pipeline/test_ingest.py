import gzip
import http.server
import io
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest

from pipeline import ingest, repeats, schemas
from pipeline.errors import ConfigError, InputError, StorageError, TaskFailed
from pipeline.ingest import REASONS, IngestConfig, read_references, run, split_row_groups
from pipeline.pairs import MAX_CAPTION_CHARACTERS, hash_pair
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from pipeline.tables import ColumnChoice
from tests.pipeline.archives import describe_page, members, record, response

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


def start(workspace: Workspace, *inputs: Path | str, **settings: str) -> Manifest:
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
    monkeypatch.setattr(ingest, "CHUNK_ROWS", 1)
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
    manifest = start(workspace, tmp_path / "x.warc")
    assert manifest.drops == dict.fromkeys(sorted(REASONS), 1)
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


@pytest.mark.parametrize(
    "settings", [{"caption_column": "nothing"}, {"extra": b""}, {"extra": b"a,b\n1,2\n"}]
)
def test_a_mistake_in_the_settings_deletes_nothing(
    crawl: Path, workspace: Workspace, settings: dict[str, str | bytes]
) -> None:
    manifest = start(workspace, crawl)
    given = dict(settings)
    if "extra" in given:
        (crawl / "extra").write_bytes(given.pop("extra"))  # type: ignore[arg-type]
    with pytest.raises(InputError):
        start(workspace, crawl, **given)  # type: ignore[arg-type]
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
    monkeypatch.setattr(ingest, "PIECE_ROWS", 5)
    rows = pa.table({"url": [f"http://x/{i % 12}" for i in range(20)], "text": ["A dog"] * 20})
    pq.write_table(rows, tmp_path / "t.parquet", row_group_size=3)
    pieces = list(split_row_groups(pq.read_metadata(tmp_path / "t.parquet")))
    assert [(p.first, p.after, p.first_row) for p in pieces] == [
        (0, 2, 0),
        (2, 4, 6),
        (4, 6, 12),
        (6, 7, 18),
    ]
    manifest = start(workspace, tmp_path / "t.parquet")
    assert table(workspace, manifest).column("source_offset").to_pylist() == list(range(12))
    assert [part.rows for part in manifest.parts] == [6, 6, 0, 0]


def test_a_compressed_table_that_breaks_off_keeps_what_came_before() -> None:
    text = "url,text\n" + "".join(f"http://x/{i * 7919},A dog {i}\n" for i in range(20_000))
    cut = gzip.compress(text.encode())[:-5000]
    rows = list(read_references(io.BytesIO(cut), "x", ColumnChoice()))
    assert len(rows) > 1000
    assert {type(row).__name__ for row in rows[:-1]} == {"Reference"}
    assert (rows[-1].reason, rows[-1].offset) == ("broken_record", len(rows) - 1)  # type: ignore[union-attr]


@pytest.fixture
def web(crawl: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(crawl)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_and_folders_give_the_same_pairs(
    web: str, crawl: Path, workspace: Workspace, tmp_path: Path
) -> None:
    names = ["b.warc.gz", "deep/a.wat.gz", "t.tsv", "u.parquet"]
    local = Workspace(root=str(tmp_path / "local"))
    remote = start(workspace, *(f"{web}/{name}" for name in names))
    assert remote.content == start(local, crawl).content


def test_a_bad_remote_input_is_named(web: str, crawl: Path, workspace: Workspace) -> None:
    (crawl / "empty").touch()
    with pytest.raises(TaskFailed, match=f"{web}/empty is empty"):
        start(workspace, f"{web}/empty")


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
