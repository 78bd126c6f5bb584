import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, InputError
from tests.train.evaluation.clusters import clouds
from train.evaluation import logistic
from train.evaluation.few_shot import draw, few_shot, mean_interval
from train.evaluation.linear_probe import classes_of

pytest.importorskip("sklearn", reason="heads need scikit-learn")


def test_the_mean_is_that_of_scikit_learns_classifiers() -> None:
    from scipy import stats
    from sklearn.linear_model import LogisticRegression

    train, test = clouds(0, [30] * 4), clouds(1, [50] * 4, prefix="t")
    result = few_shot(train, test, shots=(1, 4, 16), repeats=4, strength=0.5, seed=3)
    assert [row["variant"] for row in result.rows] == ["1", "4", "16"]
    for row in result.rows:
        accuracies = []
        for repeat in range(4):
            drawn, _ = draw(train, int(row["variant"]), f"3:{repeat}")
            model = LogisticRegression(C=2, max_iter=1000)
            model.fit(drawn.vectors_ND.astype(float), classes_of(drawn))
            accuracies.append(model.score(test.vectors_ND, classes_of(test)))
        assert row["value"] == pytest.approx(np.mean(accuracies))
        interval = stats.t.interval(0.95, 3, np.mean(accuracies), stats.sem(accuracies))
        assert (row["low"], row["high"]) == pytest.approx(interval)
        assert (row["metric"], row["chance"], row["images"], row["classes"]) == (
            "top1",
            0.25,
            200,
            4,
        )
    values = [row["value"] for row in result.rows]
    assert values == sorted(values)


@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=5),
    st.integers(1, 16),
    st.integers(1, 16),
    st.randoms(),
)
def test_fewer_shots_are_among_more_whatever_the_order(
    counts: list[int], few: int, more: int, random: object
) -> None:
    features = clouds(0, counts)
    few, more = sorted((few, more))
    small, others = draw(features, few, "0:0")
    large, _ = draw(features, more, "0:0")
    assert set(small.items) <= set(large.items)
    assert not set(small.items) & set(others.items)
    for number, count in enumerate(counts):
        taken = small.labels.count(f"class {number}")
        assert taken == min(few, count)
        assert others.labels.count(f"class {number}") == min(few, 4, count - taken)
    rows = list(range(len(features.items)))
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert set(draw(features.only(rows), few, "0:0")[0].items) == set(small.items)


def test_each_repeat_draws_other_pictures() -> None:
    features = clouds(0, [40, 40])
    draws = {tuple(draw(features, 4, f"0:{repeat}")[0].items) for repeat in range(10)}
    assert len(draws) == 10


def test_the_strength_is_chosen_by_pictures_that_are_not_learnt_from() -> None:
    # The first number tells the classes apart; of the others, all but a little is noise.
    train, test = clouds(0, [40] * 3, width=30, spread=3), clouds(1, [99] * 3, width=30, spread=3)
    chosen = few_shot(train, test, shots=(16,), repeats=3)
    strengths = chosen.notes["16 shots"]["strengths"]  # type: ignore[index]
    assert len(set(strengths)) > 1
    weak = few_shot(train, test, shots=(16,), repeats=3, strength=1e-6)
    assert chosen.rows[0]["value"] > weak.rows[0]["value"]


def test_a_class_with_fewer_pictures_gives_all_it_has() -> None:
    result = few_shot(clouds(0, [30, 3, 8]), clouds(1, [9, 9, 9]), shots=(4, 16), repeats=2)
    four, sixteen = (result.notes[f"{shots} shots"] for shots in (4, 16))
    assert isinstance(four, dict)
    assert isinstance(sixteen, dict)
    assert (four["classes_with_fewer"], four["training_pictures"]) == (1, 11)
    assert (sixteen["classes_with_fewer"], sixteen["training_pictures"]) == (2, 27)


def test_without_other_pictures_the_strength_is_one() -> None:
    result = few_shot(clouds(0, [2, 2]), clouds(1, [9, 9]), shots=(2,), repeats=2)
    assert result.notes["2 shots"]["strengths"] == [1.0, 1.0]  # type: ignore[index]


def test_fits_that_were_stopped_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 1)
    result = few_shot(clouds(0, [9, 9]), clouds(1, [9, 9]), shots=(2,), repeats=2, strength=1)
    assert result.notes["2 shots"]["not_converged"] == 2  # type: ignore[index]
    assert "with 2 shots, 2 of 2 fits were stopped short of converging" in capsys.readouterr().err


def test_one_repeat_has_no_interval() -> None:
    (row,) = few_shot(clouds(0, [9, 9]), clouds(1, [9, 9]), shots=(1,), repeats=1).rows
    assert (row["low"], row["high"]) == (None, None)
    assert mean_interval([1.0, 1.0, 1.0]) == (1, 1)


def test_the_interval_holds_the_mean_95_times_of_100() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.7, 0.02, (4000, 5))
    intervals = [mean_interval(draw.tolist()) for draw in draws]
    held = np.mean([low <= 0.7 <= high for low, high in intervals if low is not None and high])
    assert 0.94 < held < 0.96


def test_an_interval_stays_within_0_and_1() -> None:
    low, high = mean_interval([0.99, 1.0, 0.9])
    assert low is not None
    assert low < 0.9
    assert high == 1
    assert mean_interval([0.0, 0.2])[0] == 0


def test_what_cannot_be_drawn_is_one_line() -> None:
    train, test = clouds(0, [9, 9]), clouds(1, [9, 9])
    with pytest.raises(ConfigError, match="expected positive numbers"):
        few_shot(train, test, shots=(0, 1))
    with pytest.raises(ConfigError, match="with 0 repeats"):
        few_shot(train, test, repeats=0)
    with pytest.raises(InputError, match="expected two classes or more"):
        few_shot(clouds(0, [9]), test)
