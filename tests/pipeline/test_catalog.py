import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schemas
from pipeline.catalog import query_table, run_query, view_definitions, write_catalog
from pipeline.errors import ConfigError
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace


def two_pairs() -> pa.Table:
    rows = [
        {name: f"{name} {i}" for name in schemas.PAIRS.names}
        | {"source_offset": i, "blur_boxes": [[0.25, 0.0, 0.5, 1.0]]}
        for i in range(2)
    ]
    return pa.Table.from_pylist(rows, schema=schemas.PAIRS)


@pytest.fixture(params=["local", "awkward", "s3"])
def filled(
    request: pytest.FixtureRequest, tmp_path: Path, finish_stage: Callable[..., Manifest]
) -> Workspace:
    if request.param == "s3":
        root = f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}"
    else:
        root = str(tmp_path / {"local": "plain", "awkward": "url=1/it's [odd] *"}[request.param])
    workspace = Workspace(root=root)
    finish_stage("ingest", schemas.PAIRS, two_pairs(), two_pairs().slice(0, 1), workspace=workspace)
    return workspace


def test_views_show_the_parts(filled: Workspace) -> None:
    table = query_table(filled, "SELECT pair_id, source_offset FROM pairs ORDER BY ALL")
    assert table["source_offset"].to_pylist() == [0, 0, 1]
    urls = query_table(filled, "SELECT DISTINCT url FROM pairs ORDER BY url")
    assert urls["url"].to_pylist() == ["url 0", "url 1"]


def test_every_view_answers_on_an_empty_workspace(workspace: Workspace) -> None:
    workspace.prepare()
    for view in view_definitions(workspace):
        assert query_table(workspace, f'SELECT count(*) AS n FROM "{view}"').num_rows == 1


def test_the_file_shows_the_same(
    workspace: Workspace, finish_stage: Callable[..., Manifest]
) -> None:
    finish_stage("ingest", schemas.PAIRS, two_pairs())
    path = write_catalog(workspace)
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM pairs").fetchall() == [(2,)]
    assert write_catalog(workspace) == path


def test_a_remote_workspace_needs_a_local_file(s3_bucket: str, tmp_path: Path) -> None:
    remote = Workspace(root=f"{s3_bucket}/{tmp_path.name}")
    remote.prepare()
    with pytest.raises(ConfigError, match="give the catalogue a local file with --output"):
        write_catalog(remote)


def test_rows_are_printed_as_csv_and_json(
    workspace: Workspace,
    finish_stage: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish_stage("ingest", schemas.PAIRS, two_pairs())
    query = "SELECT url, source_offset FROM pairs ORDER BY url"
    run_query(workspace, query, kind="csv")
    assert capsys.readouterr().out == "url,source_offset\nurl 0,0\nurl 1,1\n"
    run_query(workspace, query, kind="json")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"url": "url 0", "source_offset": 0},
        {"url": "url 1", "source_offset": 1},
    ]
    run_query(workspace, query)
    assert "url 1" in capsys.readouterr().out


def test_columns_of_the_same_name_and_odd_characters_are_printed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.prepare()
    run_query(workspace, "SELECT 1 AS a, 2 AS a, ':smile:' AS b, chr(27) AS c")
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["1", "2", ":smile:", "\\x1b"]


def test_rows_are_written_as_parquet(
    workspace: Workspace, finish_stage: Callable[..., Manifest], tmp_path: Path
) -> None:
    finish_stage("ingest", schemas.PAIRS, two_pairs())
    target = tmp_path / "out.parquet"
    run_query(workspace, "SELECT url FROM pairs", kind="parquet", output=str(target))
    assert pq.read_table(target).num_rows == 2
    with pytest.raises(ConfigError, match="give a file with --output"):
        run_query(workspace, "SELECT 1", kind="parquet")


@pytest.mark.parametrize("query", ["SELECT nothing", "SELECT * FROM nowhere", ""])
def test_a_query_without_an_answer_is_one_line(workspace: Workspace, query: str) -> None:
    workspace.prepare()
    with pytest.raises(ConfigError) as caught:
        query_table(workspace, query)
    assert "\n" not in str(caught.value)


def test_a_query_over_a_stage_that_is_out_of_date_says_so(
    workspace: Workspace,
    finish_stage: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish_stage("ingest", schemas.PAIRS, two_pairs())
    begin("match", Settings(), workspace, reads=("ingest",)).finish([])
    run_query(workspace, "SELECT count(*) FROM pairs")
    assert "out of date" not in capsys.readouterr().err
    finish_stage("ingest", schemas.PAIRS, two_pairs().slice(1), made_by="another test")
    run_query(workspace, "SELECT count(*) FROM pairs")
    assert "match is out of date, ingest changed since" in capsys.readouterr().err
