import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dedup.deduplicate import DedupConfig, run
from pipeline import schemas
from pipeline.errors import ConfigError, MissingInput
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.dedup.evaluation.test_decontaminate import encode, scene
from tests.dedup.test_deduplicate import (
    A,
    cut,
    downloaded,
    evaluation,
    kept,
    small_blocks,
    some_pairs,
    verdicts,
)
from tests.reference import neighbours

Finish = Callable[..., Manifest]


@pytest.fixture
def second(tmp_path: Path) -> Workspace:
    return Workspace(root=str(tmp_path / "second"))


@pytest.mark.parametrize("seed", range(3))
def test_what_an_earlier_run_kept_stays_when_a_crawl_is_added(
    workspace: Workspace,
    second: Workspace,
    finish_stage: Finish,
    monkeypatch: pytest.MonkeyPatch,
    executor: Executor,
    seed: int,
) -> None:
    # Of the same centres, so that many pairs of the second crawl have a better picture.
    pairs = some_pairs(150, seed)
    first = pairs[:70]
    finish_stage("download", schemas.DOWNLOADED, *cut(first, 2))
    small_blocks(monkeypatch, bucket=40, block=25)
    run(DedupConfig(), workspace, InlineExecutor())
    before = kept(workspace)

    finish_stage("download", schemas.DOWNLOADED, *cut(pairs, 3), workspace=second)
    run(DedupConfig(earlier=workspace.root), second, executor)
    assert before <= kept(second)
    expected = neighbours.deduplicate(pairs, 31, earlier=before)
    assert kept(second) == {p.pair_id for p in pairs} - set(expected)
    assert verdicts(second) == {
        i: (v.duplicate_of, v.method, v.distance) for i, v in expected.items()
    }
    # It would not be so by itself.
    assert not before <= {p.pair_id for p in pairs} - set(neighbours.deduplicate(pairs, 31))


def test_an_earlier_pair_that_overlaps_an_evaluation_set_goes_nonetheless(
    workspace: Workspace, second: Workspace, finish_stage: Finish, tmp_path: Path
) -> None:
    png = encode(scene(1), "PNG")
    shown = replace(A, sha256=hashlib.sha256(png).hexdigest())
    finish_stage("download", schemas.DOWNLOADED, downloaded([shown]))
    finish_stage("download", schemas.DOWNLOADED, downloaded([shown]), workspace=second)
    run(DedupConfig(), workspace, InlineExecutor())
    config = DedupConfig(earlier=workspace.root, evalsets=evaluation(tmp_path, png))
    assert run(config, second, InlineExecutor()).drops == {"evaluation_overlap": 1}


def test_further_captions_that_an_earlier_run_kept_stay(
    workspace: Workspace, second: Workspace, finish_stage: Finish
) -> None:
    old = [
        replace(A, pair_id=f"{i:032x}", url=f"http://{i}/", caption=c)
        for i, c in enumerate(["one", "two"])
    ]
    new = replace(A, pair_id="f" * 32, url="http://f/", caption="a much longer caption", width=999)
    finish_stage("download", schemas.DOWNLOADED, downloaded(old))
    finish_stage("download", schemas.DOWNLOADED, downloaded([*old, new]), workspace=second)
    run(DedupConfig(captions_per_picture=2), workspace, InlineExecutor())
    run(DedupConfig(captions_per_picture=2, earlier=workspace.root), second, InlineExecutor())
    assert kept(second) == {pair.pair_id for pair in old}


def test_another_earlier_run_is_another_result(
    workspace: Workspace, second: Workspace, finish_stage: Finish
) -> None:
    small = replace(A, pair_id="1" * 32)
    large = replace(A, pair_id="2" * 32, url="http://b/", width=999)
    finish_stage("download", schemas.DOWNLOADED, downloaded([small, large]), workspace=second)
    for only in (small, large):
        finish_stage("download", schemas.DOWNLOADED, downloaded([only]), made_by=only.pair_id)
        run(DedupConfig(), workspace, InlineExecutor())
        run(DedupConfig(earlier=workspace.root), second, InlineExecutor())
        assert kept(second) == {only.pair_id}


def test_an_earlier_run_must_be_another_that_has_finished(
    workspace: Workspace, second: Workspace, finish_stage: Finish
) -> None:
    finish_stage("download", schemas.DOWNLOADED, downloaded([A]))
    with pytest.raises(ConfigError, match=r"dedup\.earlier is .* this workspace itself"):
        run(DedupConfig(earlier=workspace.root), workspace, InlineExecutor())
    with pytest.raises(MissingInput, match="dedup has not finished"):
        run(DedupConfig(earlier=second.root), workspace, InlineExecutor())
