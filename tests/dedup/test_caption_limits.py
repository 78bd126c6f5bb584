import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.caption_limits import ENTRIES, beyond, plain, spared
from dedup.deduplicate import DedupConfig, run
from pipeline import schemas
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.dedup.test_deduplicate import A, cut, downloaded, kept, read, small_blocks, some_pairs
from tests.reference import neighbours

Finish = Callable[..., Manifest]
Row = tuple[int, int, int, int]


def entries(rows: list[Row]) -> pa.Table:
    """Return rows of is_earlier, area, group and caption; those preferred in a group lead it."""
    order = sorted(range(len(rows)), key=lambda i: (-rows[i][0], -rows[i][1], i))
    leaders: dict[int, int] = {}
    for i in order:
        leaders.setdefault(rows[i][2], i)
    return pa.Table.from_pylist(
        [
            {
                "place": i,
                "pair_id": f"{i:03d}",
                "is_earlier": is_earlier,
                "area": area,
                "caption_fit": 1,
                "group": leaders[group],
                "caption": caption.to_bytes(16, "big"),
            }
            for i, (is_earlier, area, group, caption) in enumerate(rows)
        ],
        ENTRIES,
    )


ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 3), st.integers(0, 4), st.integers(0, 3)),
    max_size=30,
)


def preferred(rows: list[Row]) -> list[int]:
    return sorted(range(len(rows)), key=lambda i: (-rows[i][0], -rows[i][1], i))


@given(rows=ROWS, most=st.integers(1, 4), seed=st.integers(0, 9))
def test_of_each_picture_the_preferred_different_captions_stay(
    rows: list[Row], most: int, seed: int
) -> None:
    captions: dict[int, list[int]] = {}
    expected = []
    for i in preferred(rows):
        known = captions.setdefault(rows[i][2], [])
        if rows[i][3] not in known and len(known) < most:
            known.append(rows[i][3])
            if len(known) > 1:
                expected.append(i)
    order = np.random.default_rng(seed).permutation(len(rows))
    found = spared(entries(rows).take(pa.array(order)), most)
    assert sorted(found.tolist()) == sorted(expected)


@given(rows=ROWS, most=st.integers(1, 4), seed=st.integers(0, 9))
def test_of_each_caption_the_preferred_stay(rows: list[Row], most: int, seed: int) -> None:
    counts: dict[int, int] = {}
    expected = []
    for i in preferred(rows):
        counts[rows[i][3]] = counts.get(rows[i][3], 0) + 1
        if counts[rows[i][3]] > most:
            expected.append(i)
    order = np.random.default_rng(seed).permutation(len(rows))
    found = beyond(entries(rows).take(pa.array(order)), most)
    assert sorted(found.tolist()) == sorted(expected)


def test_captions_differ_in_more_than_case_spacing_and_numbers() -> None:
    assert plain("Photo  12 of 30") == plain("photo 3 of 9")
    assert plain("DSC_0012.JPG") == plain("dsc_7.jpg")
    assert plain("a red dog") != plain("a dog")
    assert plain("狗 ２") == plain("狗 1")


def test_a_picture_keeps_as_many_different_captions_as_it_may(
    workspace: Workspace, finish_stage: Finish, executor: Executor
) -> None:
    captions = ["a very long caption", "a long caption", "A  LONG caption", "a caption", "short"]
    pairs = [
        replace(A, pair_id=f"{i:032x}", url=f"http://{i}/", sha256=str(i), caption=caption)
        for i, caption in enumerate(captions)
    ]
    finish_stage("download", schemas.DOWNLOADED, *cut(pairs, 2))
    manifest = run(DedupConfig(captions_per_picture=3), workspace, executor)
    # The one in capitals is longer by a space, and so preferred to its like.
    assert kept(workspace) == {pairs[0].pair_id, pairs[2].pair_id, pairs[3].pair_id}
    rows = {r["pair_id"]: r for r in read(workspace, "duplicates", schemas.DUPLICATES)}
    assert {r["duplicate_of"] for r in rows.values()} == {pairs[0].pair_id}
    assert {i for i, r in rows.items() if r["stays"]} == {pairs[2].pair_id, pairs[3].pair_id}
    assert manifest.drops == {"same_pixels": 2}


def test_a_caption_keeps_as_many_pairs_as_it_may(
    workspace: Workspace,
    finish_stage: Finish,
    executor: Executor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(0)
    pairs = [
        replace(p, caption=rng.choice(["Photo 1", "photo 22", "x"])) for p in some_pairs(90, 5)
    ]
    finish_stage("download", schemas.DOWNLOADED, *cut(pairs, 3))
    small_blocks(monkeypatch, bucket=40, block=1000)
    manifest = run(DedupConfig(max_per_caption=5), workspace, executor)
    dropped = neighbours.deduplicate(pairs, 31)
    by_caption: dict[str, list[str]] = {}
    for pair in sorted(pairs, key=neighbours.preference):
        if pair.pair_id not in dropped:
            by_caption.setdefault(plain(pair.caption), []).append(pair.pair_id)
    assert min(map(len, by_caption.values())) > 5
    assert kept(workspace) == {i for ids in by_caption.values() for i in ids[:5]}
    assert manifest.drops["same_caption"] == sum(len(ids) - 5 for ids in by_caption.values())


def test_further_captions_of_a_picture_count_for_their_caption(
    workspace: Workspace, finish_stage: Finish
) -> None:
    pairs = [
        replace(A, pair_id=f"{i:032x}", url=f"http://{i}/", sha256=str(i), pixels=p, caption=c, pdq=None)
        for i, (p, c) in enumerate([("p", "longest"), ("p", "other"), ("q", "other")])
    ]  # fmt: skip
    finish_stage("download", schemas.DOWNLOADED, downloaded(pairs))
    run(DedupConfig(captions_per_picture=2, max_per_caption=1), workspace, InlineExecutor())
    assert kept(workspace) == {pairs[0].pair_id, pairs[1].pair_id}
