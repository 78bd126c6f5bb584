from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest

from pipeline import balance, schemas
from pipeline.balance import BalanceConfig
from pipeline.caps import balance_report
from pipeline.caps.balance_plot import draw
from pipeline.caps.balance_report import describe, distribution, query_counts, summarize
from pipeline.caps.priorities import Thresholds
from pipeline.runtime.executor import InlineExecutor
from tests.pipeline.balancing import make_crawl, skewed_pairs, split

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def same_style() -> Iterator[None]:
    with mpl.rc_context():
        yield


def counts(matched: list[int], selected: list[int], present: list[int], cap: int) -> pa.Table:
    return query_counts(
        *(np.array(values, np.int64) for values in (matched, selected, present)),
        Thresholds.none(len(matched)),
        cap,
    )


def test_a_summary_counts_queries_matches_and_pairs() -> None:
    table = counts([0, 3, 5, 12, 0], [0, 3, 5, 5, 0], [0, 3, 5, 9, 0], 5)
    (row,) = summarize(table, 5, pairs=16, kept=10).to_pylist()
    assert row == {
        "cap": 5,
        "pairs": 16,
        "kept": 10,
        "queries": 5,
        "queries_unmatched": 2,
        "queries_over_cap": 1,
        "matches": 20,
        "matches_over_cap": 12,
        "tail_share": 0.4,
        "matches_per_pair": 1.25,
        "selected": 13,
        "present": 17,
        "queries_short": None,
    }


def test_headroom_ran_out_where_enough_matched_before_and_too_few_are_left() -> None:
    before = counts([4, 5, 9, 9], [4, 5, 8, 8], [4, 5, 8, 8], 8)
    now = counts([2, 4, 5, 4], [2, 4, 5, 4], [2, 4, 5, 4], 5)
    summary = summarize(now, 5, pairs=9, kept=9, before=before)
    assert summary["queries_short"].to_pylist() == [2]
    assert describe(summary)[-1].startswith("the headroom ran out for 2 queries: 5 matches or more")


def test_a_summary_is_a_few_lines() -> None:
    table = counts([0, 3000, 5000, 12000], [0, 3000, 5000, 5000], [0, 3000, 5000, 9000], 5000)
    assert describe(summarize(table, 5000, pairs=10_000, kept=8000)) == [
        "8,000 of 10,000 pairs kept, at most 5,000 on account of a query",
        "2.0 matches a pair; 1 of 4 queries have none, 1 are over the cap and hold 60.0% of the matches",
    ]
    nothing = summarize(counts([0, 0], [0, 0], [0, 0], 5), 5, pairs=0, kept=0)
    assert describe(nothing) == ["0 of 0 pairs kept, at most 5 on account of a query"]


def test_a_distribution_adds_up() -> None:
    table = counts([0, 3, 3, 12], [0, 3, 3, 5], [0, 3, 3, 5], 5)
    rows = distribution(table).to_pylist()
    matched = [list(row.values())[1:] for row in rows if row["measure"] == "matched"]
    assert matched == [[0, 1, 1, 0], [3, 2, 3, 6], [12, 1, 4, 18]]
    assert [row["measure"] for row in rows] == ["matched"] * 3 + ["selected"] * 3 + ["present"] * 3


def picture(matched: list[int], cap: int) -> bytes:
    capped = [min(count, cap) for count in matched]
    table = counts(matched, capped, capped, cap)
    return draw(distribution(table), summarize(table, cap, sum(matched), sum(capped)), "balance")


@pytest.mark.parametrize(
    ("matched", "cap"),
    [([], 5), ([0, 0], 5), ([1], 5), ([7], 5), ([1, 2, 3], 5), ([6, 6, 900], 5), ([2**40, 1], 1)],
)
def test_any_distribution_is_drawn(matched: list[int], cap: int) -> None:
    data = picture(matched, cap)
    assert data.startswith(PNG)
    # Width and height, from the header.
    assert [int.from_bytes(data[i : i + 4], "big") for i in (16, 20)] == [1800, 840]


def test_a_picture_depends_on_nothing_but_the_numbers() -> None:
    expected = picture([0, 3, 30, 300], 9)
    mpl.rcParams.update({"lines.linewidth": 9, "font.size": 3, "savefig.dpi": 30})
    assert picture([0, 3, 30, 300], 9) == expected
    assert picture([0, 3, 30, 301], 9) != expected


def test_the_report_is_written_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = make_crawl(tmp_path, split(skewed_pairs(100), 2))
    manifest = balance.run(BalanceConfig(cap=9), workspace, InlineExecutor())
    (part,) = manifest.tables["report"]
    assert part.path == "balance/report.png"
    assert (tmp_path / part.path).read_bytes().startswith(PNG)
    said = capsys.readouterr().err
    (summary,) = workspace.read_table("balance", "summary", schemas.BALANCE_SUMMARY).to_pylist()
    assert f"{summary['kept']} of 100 pairs kept, at most 9 on account of a query" in said


def test_another_way_to_draw_makes_nothing_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split(skewed_pairs(20), 1)
    contents = []
    for drawn in (b"one", b"other"):
        monkeypatch.setattr(balance_report, "draw", lambda *_, drawn=drawn: drawn)
        workspace = make_crawl(tmp_path / drawn.decode(), parts)
        contents.append(balance.run(BalanceConfig(), workspace, InlineExecutor()).content)
    assert contents[0] == contents[1]
