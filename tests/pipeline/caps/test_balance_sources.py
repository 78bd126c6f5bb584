from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import balance, schemas
from pipeline.balance import BalanceConfig, RebalanceConfig
from pipeline.catalog import query_table
from pipeline.errors import ConfigError, InputError, MissingInput
from pipeline.inputs import repeats
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.workspace import Workspace
from tests.pipeline.balancing import (
    caption_table,
    digests,
    downloaded_table,
    dropped,
    finish,
    kept,
    make_crawl,
    margin,
    pairs_of_queries,
    quick_folder,
    sigmas,
    skewed_pairs,
    split,
)
from tests.reference.balancing import Pairs, selection

SAME = ("balance/0", "balance/query_counts", "balance/summary", "balance/distribution")

pytestmark = pytest.mark.usefixtures("no_plot")


def add(
    folder: Path | str,
    parts: list[pa.Table],
    earlier: Workspace | None,
    executor: Executor | None = None,
    **options: float,
) -> Workspace:
    workspace = make_crawl(folder, parts)
    config = BalanceConfig(add=earlier.root if earlier else None, **options)  # type: ignore[arg-type]
    balance.run(config, workspace, executor or InlineExecutor())
    return workspace


def what_counts(workspace: Workspace) -> dict[str, str]:
    """Return the digests of all that must be as if everything had been balanced at once."""
    return {path: sha for path, sha in digests(workspace).items() if path.startswith(SAME)}


def without(table: pa.Table, known: Iterable[str]) -> pa.Table:
    is_known = pc.is_in(table["pair_id"], pa.array(list(known), pa.string()))
    return table.filter(pc.invert(is_known))


@given(
    pairs=pairs_of_queries,
    places=st.lists(st.integers(0, 5), min_size=40, max_size=40),
    caps=st.lists(st.integers(1, 6), min_size=3, max_size=3).map(lambda c: sorted(c, reverse=True)),
    parts=st.integers(1, 3),
    sigmas=sigmas,
)
@settings(max_examples=20)
def test_crawl_upon_crawl_is_as_everything_at_once(
    pairs: Pairs, places: list[int], caps: list[int], parts: int, sigmas: float
) -> None:
    # Place 3 is in the first crawl and the second, 4 in the first and the third, 5 in all.
    members = ({0, 3, 4, 5}, {1, 3, 5}, {2, 4, 5})
    crawls = [
        {pair: pairs[pair] for pair, place in zip(pairs, places, strict=False) if place in some}
        for some in members
    ]
    with quick_folder() as folder, margin(sigmas):
        earlier, seen, everything = None, set[str](), list[pa.Table]()
        for i, (crawl, cap) in enumerate(zip(crawls, caps, strict=True)):
            tables = split(crawl, parts, f"crawl-{i}.warc")
            known = sorted(crawl.keys() & seen)
            everything += [without(table, known) for table in tables]
            earlier = add(f"{folder}/{i}", tables, earlier, cap=cap)
            at_once = add(f"{folder}/upto-{i}", everything, None, cap=cap)
            assert what_counts(earlier) == what_counts(at_once)
            seen |= crawl.keys()
            union = {pair: pairs[pair] for pair in pairs if pair in seen}
            assert kept(earlier) == selection(union, cap, 0)
            assert dropped(earlier).get("known", []) == known


def test_every_executor_adds_the_same_bytes(tmp_path: Path, executor: Executor) -> None:
    pairs = skewed_pairs(600)
    old, new = dict(list(pairs.items())[:350]), dict(list(pairs.items())[300:])
    earlier = add(tmp_path / "old", split(old, 3), None, cap=40, headroom=1.5)
    expected = add(tmp_path / "inline", split(new, 2), earlier, cap=40, headroom=1.5)
    other = add(tmp_path / "other", split(new, 2), earlier, executor, cap=40, headroom=1.5)
    assert digests(other) == digests(expected)


def test_many_ranges_of_ids_find_the_same_known_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = skewed_pairs(200)
    old, new = dict(list(pairs.items())[:120]), dict(list(pairs.items())[80:])
    earlier = add(tmp_path / "old", split(old, 3), None, cap=5)
    expected = add(tmp_path / "few", split(new, 2), earlier, cap=5)
    monkeypatch.setattr(repeats, "KEYS_PER_PARTITION", 30)
    assert digests(add(tmp_path / "many", split(new, 2), earlier, cap=5)) == digests(expected)
    assert dropped(expected)["known"] == sorted(old.keys() & new.keys())


def test_the_earlier_copy_of_a_pair_is_the_one_that_stays(tmp_path: Path) -> None:
    pairs = {f"{n:032x}": [n % 3] for n in range(9)}
    earlier = add(tmp_path / "old", split(pairs, 1, "old.warc"), None)
    workspace = add(tmp_path / "new", split(pairs, 2, "new.warc"), earlier)
    rows = workspace.read_table("balance", "main", schemas.BALANCED)
    assert rows["source"].to_pylist() == ["old.warc"] * 9


def test_what_follows_works_upon_an_added_crawl(tmp_path: Path) -> None:
    pairs = skewed_pairs(400, seed=2)
    old, new = dict(list(pairs.items())[:250]), dict(list(pairs.items())[200:])
    earlier = add(tmp_path / "old", split(old, 2), None, cap=30, headroom=2.0)
    workspace = add(tmp_path / "new", split(new, 2), earlier, cap=20, headroom=1.5)
    left = {pair: pairs[pair] for pair in list(kept(workspace))[::2]}
    finish(workspace, "dedup", schemas.DEDUPLICATED, [downloaded_table(left)])
    balance.rerun(RebalanceConfig(), workspace, InlineExecutor())
    assert kept(workspace, "rebalance") == selection(left, 20, 0)
    query = "SELECT reason, count(*) AS n FROM drops WHERE stage = 'balance' GROUP BY ALL"
    counted = {row["reason"]: row["n"] for row in query_table(workspace, query).to_pylist()}
    (stage,) = query_table(
        workspace, "SELECT rows_in, rows_out, rows_dropped FROM stages WHERE stage = 'balance'"
    ).to_pylist()
    assert stage["rows_in"] == len(kept(earlier)) + len(new)
    assert stage["rows_dropped"] == sum(counted.values())
    assert counted["known"] == len(old.keys() & new.keys())
    (summary,) = query_table(
        workspace, "SELECT * FROM balance_summary WHERE stage = 'balance'"
    ).to_pylist()
    assert (summary["pairs"], summary["cap"]) == (len(pairs), 30)


class Stopped(InlineExecutor):
    """Is stopped after so many tasks."""

    def __init__(self, tasks: int) -> None:
        self.left = tasks

    def map(self, work: Callable, tasks: Iterable) -> Iterator:  # type: ignore[type-arg]
        for result in super().map(work, tasks):
            yield result
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


def test_stopped_anywhere_it_goes_on_to_the_same_bytes() -> None:
    pairs = skewed_pairs(120)
    old, new = dict(list(pairs.items())[:80]), dict(list(pairs.items())[60:])
    with quick_folder() as folder:
        first = add(f"{folder}/first", split(old, 1), None, cap=9)
        earlier = add(f"{folder}/old", split({}, 1), first, cap=8)
        expected = digests(add(f"{folder}/whole", split(new, 2), earlier, cap=7))
        # One file of ids to inherit, one to write, two of new pairs; known; 2 to count; 4 and 1; 4 to filter.
        total = 1 + 3 + 1 + 2 + 4 + 1 + 4
        for tasks in range(1, total + 1):
            place = f"{folder}/stopped-{tasks}"
            with pytest.raises(KeyboardInterrupt):
                add(place, split(new, 2), earlier, Stopped(tasks), cap=7)
            assert digests(add(place, split(new, 2), earlier, Stopped(total), cap=7)) == expected


def test_nothing_is_done_again_until_the_earlier_crawl_changes(tmp_path: Path) -> None:
    pairs = skewed_pairs(60)
    earlier = add(tmp_path / "old", split(pairs, 1), None, cap=9)
    more = split(skewed_pairs(30, seed=1), 1)
    first = add(tmp_path / "new", more, earlier, cap=5).finished("balance")
    assert add(tmp_path / "new", more, earlier, cap=5).finished("balance") == first
    add(tmp_path / "old", split(pairs, 1), None, cap=8)
    assert add(tmp_path / "new", more, earlier, cap=5).finished("balance") != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cap": 20, "headroom": 1.5},
            r"each query may keep 30 pairs \(cap times headroom\), but only 20 in \S*/old;",
        ),
        ({"tail_share": 1}, r"each query may keep [\d,]+ pairs .*, but only 20 in \S*/old;"),
        ({"cap": 10, "seed": 1}, r"balance\.seed is 1, but \S*/old was balanced with seed 0;"),
    ],
)
def test_other_rules_than_the_earlier_crawls_are_refused(
    tmp_path: Path, options: dict[str, float], message: str
) -> None:
    pairs = skewed_pairs(200)
    earlier = add(tmp_path / "old", split(pairs, 1), None, cap=20)
    with pytest.raises(ConfigError, match=message):
        add(tmp_path / "new", split(skewed_pairs(100, seed=1), 1), earlier, **options)


@pytest.mark.parametrize("other", [{"queries": 13}, {"rules": "metaclip"}])
def test_another_list_than_the_earlier_crawls_is_refused(
    tmp_path: Path, other: dict[str, int | str]
) -> None:
    earlier = add(tmp_path / "old", split(skewed_pairs(20), 1), None)
    workspace = make_crawl(tmp_path / "new", [], **other)  # type: ignore[arg-type]
    message = r"new was matched against a list of .* queries \(sha256 .*old against a list of 12 "
    with pytest.raises(ConfigError, match=message):
        balance.run(BalanceConfig(add=earlier.root), workspace, InlineExecutor())


def test_only_a_finished_balance_of_another_workspace_can_be_added_to(tmp_path: Path) -> None:
    workspace = make_crawl(tmp_path / "new", [caption_table({"0" * 32: [1]})])
    with pytest.raises(ConfigError, match="cannot be added to itself"):
        balance.run(BalanceConfig(add=f"{tmp_path}/new/"), workspace, InlineExecutor())
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with pytest.raises(ConfigError, match="cannot be added to itself"):
        balance.run(BalanceConfig(add=f"{tmp_path}/link"), workspace, InlineExecutor())
    with pytest.raises(InputError, match="nowhere is no witmill workspace"):
        balance.run(BalanceConfig(add=f"{tmp_path}/nowhere"), workspace, InlineExecutor())
    other = make_crawl(tmp_path / "other", [])
    with pytest.raises(MissingInput, match=r"balance has not finished in .*other"):
        balance.run(BalanceConfig(add=other.root), workspace, InlineExecutor())
