"""From a bucket to a bucket: the same bytes as on a local disk."""

from pathlib import Path

import pytest

from pipeline import download
from pipeline.demo import demo_tables
from pipeline.downloading import journal
from pipeline.miniature_web import serve
from pipeline.plan import make_plan, run_plan, select_stages
from pipeline.runtime import storage
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.workspace import Workspace
from tests.end_to_end.conftest import Demo, Example
from tests.pipeline.download_runs import (
    Killed,
    Web,
    balanced,
    killed_when,
    pairs,
    png,
    settings,
)
from tests.pipeline.download_runs import (
    serve as serve_files,
)


def test_a_run_in_a_bucket_writes_the_same_bytes(
    example: Example, demo: Demo, s3_bucket: str, tmp_path: Path
) -> None:
    crawl = Path(demo.workspace.path("crawl"))
    for archive in sorted(crawl.rglob("*.warc.gz")):
        storage.write_bytes(f"{s3_bucket}/crawl/{archive.name}", archive.read_bytes())
    remote = Workspace(root=f"{s3_bucket}/run")
    tables = demo_tables(example.folder, f"{s3_bucket}/crawl") | {"workspace": remote.root}
    with serve(example.folder, example.port):
        run_plan(make_plan(tables | {"workers": 2}, source="test"), last="shard")
    for stage in select_stages(None, "shard"):
        expected = demo.workspace.finished(stage.name).tables
        assert remote.finished(stage.name).tables == expected, stage.name


def half_a_web(web: Web) -> None:
    web.files.update({f"/{i}": png(i) if i % 2 else 500 for i in range(40)})


def fetch(workspace: Workspace, *reasons: str) -> None:
    config = settings(robots="respect", retry=reasons)
    download.run(config, workspace, InlineExecutor())


def test_a_download_in_a_bucket_goes_on_and_asks_again(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FLUSH_BYTES", 4 * len(png()))
    with serve_files() as web:
        parts = [pairs([f"{web.url}/{i}" for i in range(start, 40, 2)]) for start in range(2)]
        local, remote = balanced(tmp_path, *parts), balanced(f"{s3_bucket}/run", *parts)
        half_a_web(web)
        fetch(local)
        web.asked.clear()
        count = iter(range(12))
        with killed_when(lambda *_: next(count, None) is None), pytest.raises(Killed):
            fetch(remote)
        kept = [path for path in storage.list_inside(remote.path("download")) if "answers" in path]
        assert kept
        fetch(remote)
        assert remote.finished("download").tables == local.finished("download").tables
        pictures = [path for path in web.asked if path != "/robots.txt"]
        assert len(set(pictures)) == 40
        assert len(pictures) < 60
        web.files.update({f"/{i}": png(i) for i in range(40)})
        web.asked.clear()
        for workspace in (local, remote):
            fetch(workspace, "http_5")
        assert remote.finished("download").tables == local.finished("download").tables
        assert remote.finished("download").rows_out == 40
        named = {p.path for ps in remote.finished("download").tables.values() for p in ps}
        present = storage.list_inside(remote.path("download"))
        assert {remote.path(path) for path in named} == set(present) - {
            remote.path("download", "manifest.json")
        }
