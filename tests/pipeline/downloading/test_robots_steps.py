from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.downloading.robots_steps import read_all_robots, robots_folder
from pipeline.errors import TaskFailed
from pipeline.runtime import storage
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.parquet import read_parquet
from pipeline.runtime.stage import StageRun, begin
from pipeline.runtime.workspace import Workspace
from tests.conftest import Literals
from tests.pipeline.download_runs import Web, serve, settings


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as server:
        yield server


def given(urls: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(urls, pa.string())])


def read(
    workspace: Workspace, *parts: list[str], **changed: object
) -> tuple[StageRun, list[Outcome]]:
    stage = begin("download", Literals(), workspace)
    config = settings(**{"robots": "respect", **changed})
    return stage, read_all_robots(stage, InlineExecutor(), config, given, parts)


def rows(stage: StageRun) -> dict[str, dict[str, object]]:
    tables = [read_parquet(path) for path in storage.list_inside(robots_folder(stage))]
    return {row["origin"]: row for row in pa.concat_tables(tables).to_pylist()}


def test_each_origin_of_all_parts_is_asked_once(web: Web, workspace: Workspace):
    web.files["/robots.txt"] = b"User-agent: *\nDisallow: /private\n"
    port = web.server_address[1]
    hosts = [f"http://h{i}.localhost:{port}" for i in range(9)]
    parts = [[f"{host}/{i}" for host in hosts[i:] for _ in range(2)] for i in range(4)]
    stage, outcomes = read(workspace, *parts)
    assert sorted(rows(stage)) == sorted(hosts)
    assert web.asked == ["/robots.txt"] * 9
    assert sum(outcome.counters["robots_read"] for outcome in outcomes) == 9
    assert "Disallow: /private" in str(rows(stage)[hosts[0]]["text"])


def test_interrupted_it_does_not_ask_again(web: Web, workspace: Workspace):
    for _ in range(2):
        read(workspace, [f"{web.url}/a"], [f"{web.url}/b"])
    assert web.asked == ["/robots.txt"]


@pytest.mark.parametrize("changed", [{"robots": "ignore"}, {"images_from": "captures"}])
def test_it_is_not_read_where_it_does_not_count(web: Web, workspace: Workspace, changed):
    _, outcomes = read(workspace, [f"{web.url}/a"], **changed)
    assert (outcomes, web.asked) == ([], [])


def test_what_is_no_url_has_no_origin(web: Web, workspace: Workspace):
    stage, _ = read(workspace, ["nothing", "ftp://h.example/a", "http://", f"{web.url}/a"], [])
    assert list(rows(stage)) == [web.url]


def test_an_outage_leaves_no_rules_behind(workspace: Workspace):
    urls = [f"http://h{i}.invalid/" for i in range(500)]
    with pytest.raises(TaskFailed, match="as if the network were down"):
        read(workspace, urls)
    stage = begin("download", Literals(), workspace)
    assert storage.list_inside(robots_folder(stage)) == []
