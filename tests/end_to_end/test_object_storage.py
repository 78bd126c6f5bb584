"""From a bucket to a bucket: the same bytes as on a local disk."""

from pathlib import Path

from pipeline.demo import demo_tables
from pipeline.miniature_web import serve
from pipeline.plan import make_plan, run_plan, select_stages
from pipeline.runtime import storage
from pipeline.runtime.workspace import Workspace
from tests.end_to_end.conftest import Demo, Example


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
