import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.intervals import at_least, clopper_pearson, upper_end


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.3084971),
        (10, 10, 0.6915029, 1.0),
        (5, 10, 0.1870860, 0.8129140),
        (1, 1, 0.025, 1.0),
        (0, 1, 0.0, 0.975),
    ],
)
def test_known_intervals(hits: int, trials: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, trials) == pytest.approx((low, high), abs=1e-6)


@settings(deadline=None)
@given(
    trials=st.integers(1, 3000),
    share=st.floats(0, 1),
    confidence=st.sampled_from([0.5, 0.95, 0.995]),
)
def test_intervals_are_the_beta_quantiles(trials: int, share: float, confidence: float) -> None:
    beta = pytest.importorskip("scipy.stats", reason="scipy is the reference here").beta
    hits = round(share * trials)
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, hits, trials - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, trials - hits) if hits < trials else 1.0
    assert clopper_pearson(hits, trials, confidence) == pytest.approx((low, high), abs=1e-8)


def test_fifty_thousand_pictures_are_no_trouble() -> None:
    low, high = clopper_pearson(38_100, 50_000)
    assert low < 0.762 < high
    assert high - low == pytest.approx(0.0075, abs=0.0005)


def test_one_of_many_millions_is_no_trouble() -> None:
    assert upper_end(0, 500_000_000, 0.05) == pytest.approx(2.995732 / 500_000_000, rel=1e-5)
    low, high = clopper_pearson(3, 500_000_000)
    # Poisson, whose bounds are tabulated.
    assert (500_000_000 * low, 500_000_000 * high) == pytest.approx((0.61867, 8.76727), rel=1e-4)


@given(hits=st.integers(-1, 3001), trials=st.integers(1, 3000), chance=st.floats(0, 1))
def test_the_upper_tail_is_the_binomials(hits: int, trials: int, chance: float) -> None:
    binom = pytest.importorskip("scipy.stats", reason="scipy is the reference here").binom
    expected = binom.sf(hits - 1, trials, chance)
    assert at_least(hits, trials, chance) == pytest.approx(expected, rel=1e-8, abs=1e-300)
