"""From a real archive that holds its pages' pictures to shards, with nobody to ask."""

import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.captions import REASONS
from pipeline.catalog import query_table
from pipeline.plan import make_plan, run_plan
from pipeline.runtime.workspace import Workspace

# Words of many captions of that archive.
QUERIES = "stars\nlogo\nicon\narchive\nimage\nrss\nforum\nof\n"


def test_a_real_archive_becomes_shards(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    (tmp_path / "queries.txt").write_text(QUERIES)
    workspace = Workspace(root=str(tmp_path / "run"))
    tables = {
        "workspace": workspace.root,
        "workers": 0,
        "ingest": {"inputs": [str(shared_data / "crawl/aut_example.warc.gz")]},
        "match": {"queries": str(tmp_path / "queries.txt")},
        "language": {"min_probability": 0.0},
        "captions": {"disabled": sorted(REASONS)},
        "download": {"images_from": "captures"},
    }
    run_plan(make_plan(tables, source="test"), last="shard")
    captured = query_table(
        workspace,
        "SELECT count(*) AS all, count(*) FILTER (url IN (SELECT url FROM captures)) AS held FROM balanced",
    ).to_pylist()[0]
    assert captured["held"] > 20
    download = workspace.finished("download")
    assert download.rows_in == captured["all"]
    assert download.drops["not_captured"] == captured["all"] - captured["held"]
    assert download.rows_out >= 0.9 * captured["held"]
    samples = query_table(workspace, "SELECT shard, image_member FROM samples").to_pylist()
    assert len(samples) == workspace.finished("rebalance").rows_out > 0
    with tarfile.open(workspace.path(samples[0]["shard"])) as tar:
        assert samples[0]["image_member"] in tar.getnames()
