import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.overlap import Counts, analyse, count_hits, summarise

NOTHING = ("overlap_accuracy", "difference", "difference_low", "difference_high", "gain_low", "gain_high", "p_value", "p_bonferroni")  # fmt: skip


def counts(
    overlap_hits: int, overlap: int, clean_hits: int, clean: int, name: str = "set"
) -> Counts:
    return Counts(
        evalset=name,
        overlap=overlap,
        overlap_hits=overlap_hits,
        clean=clean,
        clean_hits=clean_hits,
    )


@st.composite
def drawn_counts(draw: st.DrawFn) -> Counts:
    overlap = draw(st.integers(0, 400) | st.just(0))
    clean = draw(st.integers(0 if overlap else 1, 20_000) | st.just(0 if overlap else 1))
    # Shares of 0 and 1 are what drawn numbers hardly ever are.
    share = st.floats(0, 1) | st.sampled_from([0.0, 1.0])
    hits = [round(draw(share) * overlap), round(draw(share) * clean)]
    return counts(hits[0], overlap, hits[1], clean)


@given(st.lists(drawn_counts(), min_size=1, max_size=6))
def test_every_figure_is_scipys(drawn: list[Counts]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is the reference here")
    rows = analyse(drawn).to_pylist()
    tested = sum(bool(one.overlap and one.clean) for one in drawn)
    for one, row in zip(drawn, rows, strict=True):
        images = one.overlap + one.clean
        accuracy = (one.overlap_hits + one.clean_hits) / images
        assert row["accuracy"] == pytest.approx(accuracy)
        assert row["overlap_share"] == pytest.approx(one.overlap / images)
        if not (one.overlap and one.clean):
            continue
        clean = one.clean_hits / one.clean
        test = stats.binomtest(one.overlap_hits, one.overlap, clean, alternative="greater")
        both = stats.binomtest(one.overlap_hits, one.overlap)
        interval = both.proportion_ci(confidence_level=0.995, method="exact")
        # Where scipy has lost its digits it says less than 1e-300.
        assert row["p_value"] == pytest.approx(test.pvalue, rel=1e-8, abs=1e-300)
        assert row["p_bonferroni"] == pytest.approx(min(1, tested * test.pvalue), rel=1e-8, abs=1e-300)  # fmt: skip
        assert row["difference"] == pytest.approx(one.overlap_hits / one.overlap - clean)
        assert row["difference_low"] == pytest.approx(interval.low - clean, abs=1e-8)
        assert row["difference_high"] == pytest.approx(interval.high - clean, abs=1e-8)
        assert row["gain"] == pytest.approx(accuracy - clean)
        assert row["gain_low"] <= row["gain"] + 1e-12
        assert row["gain"] <= row["gain_high"] + 1e-12


@given(drawn_counts())
def test_the_gain_is_the_share_of_the_difference(one: Counts) -> None:
    (row,) = analyse([one]).to_pylist()
    if row["p_value"] is not None:
        assert row["gain"] == pytest.approx(row["overlap_share"] * row["difference"], abs=1e-12)


def test_without_overlap_there_is_nothing_to_test_and_no_gain() -> None:
    (row,) = analyse([counts(0, 0, 70, 100)]).to_pylist()
    assert row["accuracy"] == row["clean_accuracy"] == 0.7
    assert (row["overlap_share"], row["gain"]) == (0, 0)
    assert [row[name] for name in NOTHING] == [None] * len(NOTHING)


def test_where_all_overlap_there_is_nothing_to_compare_with() -> None:
    (row,) = analyse([counts(70, 100, 0, 0)]).to_pylist()
    assert (row["overlap_share"], row["accuracy"], row["overlap_accuracy"]) == (1, 0.7, 0.7)
    empty = ("clean_accuracy", "gain", *NOTHING[1:])
    assert [row[name] for name in empty] == [None] * len(empty)


@pytest.mark.parametrize(
    ("overlap_hits", "clean_hits", "p_value"),
    [(10, 100, 1.0), (9, 100, 1.0), (0, 100, 1.0), (0, 0, 1.0), (1, 0, 0.0), (10, 0, 0.0)],
)
def test_a_clean_accuracy_of_0_or_1_leaves_no_doubt(
    overlap_hits: int, clean_hits: int, p_value: float
) -> None:
    (row,) = analyse([counts(overlap_hits, 10, clean_hits, 100)]).to_pylist()
    assert row["p_value"] == row["p_bonferroni"] == p_value


def test_only_sets_that_are_tested_count_for_bonferroni() -> None:
    rows = analyse(
        [counts(9, 10, 50, 100, "a"), counts(8, 10, 50, 100, "b"), counts(0, 0, 1, 9, "c")]
    ).to_pylist()
    assert rows[0]["p_bonferroni"] == pytest.approx(2 * rows[0]["p_value"])
    assert rows[0]["p_value"] == pytest.approx((10 + 1) / 1024)


def test_what_all_sets_amount_to() -> None:
    facts = summarise(
        analyse(
            [
                counts(100, 100, 500, 1000, "better"),
                counts(0, 100, 500, 1000, "worse"),
                counts(8, 10, 50, 90, "perhaps"),
                counts(0, 0, 50, 100, "none"),
            ]
        )
    )
    assert (facts.sets, facts.without_overlap, facts.tested) == (4, 1, 3)
    assert (facts.above, facts.below, facts.significant, facts.significant_bonferroni) == (1, 1, 1, 1)  # fmt: skip
    assert facts.mean_share == pytest.approx((100 / 1100 * 2 + 0.1) / 4)
    assert facts.median_share == pytest.approx((100 / 1100 * 2) / 2)


def test_pictures_are_counted_by_set_and_item() -> None:
    predictions = pa.table(
        {
            "evalset": ["a", "a", "a", "b", "b"],
            "item": ["1", "2", "3", "1", "2"],
            "rank": pa.array([1, 2, 1, 1, 3], pa.int32()),
        }
    )
    shown = {"a": {"1", "2", "not evaluated"}, "c": {"1"}}
    assert count_hits(predictions, shown, ["b", "a"]) == [
        counts(0, 0, 1, 2, "b"),
        counts(1, 2, 1, 1, "a"),
    ]


def test_small_chances_keep_their_digits() -> None:
    (row,) = analyse([counts(300, 300, 100, 1000)]).to_pylist()
    assert math.log10(row["p_value"]) == pytest.approx(-300)
