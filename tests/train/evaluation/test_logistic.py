import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.train.evaluation.clusters import clouds
from train.evaluation import logistic
from train.evaluation.linear_probe import classes_of
from train.evaluation.logistic import Trial, check_vectors, find_strength, fit, strength_at

pytest.importorskip("sklearn", reason="heads need scikit-learn")


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("strength", [1e-2, 1.0, 100.0])
def test_a_fit_is_the_minimum_of_the_stated_sum(classes: int, strength: float) -> None:
    features = clouds(0, [30] * classes)
    labels = classes_of(features)
    classifier = fit(features.vectors_ND, labels, strength)
    scores = classifier.scores(features.vectors_ND)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    truth = np.array([[name == label for name in classifier.classes] for label in labels])
    slope_of_loss = (shares - truth).T @ features.vectors_ND
    slope = slope_of_loss + strength * classifier.weights_CD
    if classes == 2:
        slope = slope[1:]
    assert classifier.converged
    assert np.abs(slope).max() < 1e-3 * len(labels)
    assert np.abs((shares - truth).sum(axis=0)).max() < 1e-3 * len(labels)
    # Four times as strong would be another minimum.
    assert np.abs(slope_of_loss + 4 * strength * classifier.weights_CD).max() > 1e-2


def test_two_classes_are_told_apart_as_scikit_learn_does() -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = clouds(0, [20, 30]), clouds(1, [40, 40])
    model = LogisticRegression(C=0.5, max_iter=1000).fit(
        train.vectors_ND.astype(float), classes_of(train)
    )
    classifier = fit(train.vectors_ND, classes_of(train), 2.0)
    assert classifier.accuracy(test.vectors_ND, classes_of(test)) == model.score(
        test.vectors_ND, classes_of(test)
    )
    np.testing.assert_allclose(
        classifier.scores(test.vectors_ND)[:, 1],
        model.decision_function(test.vectors_ND),
        rtol=1e-6,
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_a_fit_from_a_near_one_ends_at_the_same_place_sooner(classes: int) -> None:
    features, test = clouds(0, [60] * classes, width=12), clouds(1, [200] * classes, width=12)
    labels = classes_of(features)
    near = fit(features.vectors_ND, labels, 1.5)
    cold, warm = (fit(features.vectors_ND, labels, 1.0, start) for start in (None, near))
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.weights_CD, cold.weights_CD, atol=0.01)
    assert warm.accuracy(test.vectors_ND, classes_of(test)) == pytest.approx(
        cold.accuracy(test.vectors_ND, classes_of(test)), abs=0.005
    )


def test_a_fit_that_was_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    features = clouds(0, [30] * 3)
    assert fit(features.vectors_ND, classes_of(features), 1e-3).converged
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    stopped = fit(features.vectors_ND, classes_of(features), 1e-3)
    assert (stopped.converged, stopped.iterations) == (False, 2)


def test_other_warnings_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    features = clouds(0, [5, 5])
    original = LogisticRegression.fit

    def warn(self: object, *arguments: object) -> object:
        warnings.warn("soon gone", FutureWarning, stacklevel=1)
        return original(self, *arguments)

    monkeypatch.setattr(LogisticRegression, "fit", warn)
    with pytest.raises(FutureWarning, match="soon gone"):
        fit(features.vectors_ND, classes_of(features), 1.0)


def test_constant_features_give_the_commonest_class() -> None:
    vectors = np.full((9, 3), 0.25, np.float32)
    classifier = fit(vectors, ["a"] * 2 + ["b"] * 6 + ["c"], 1.0)
    assert classifier.accuracy(vectors, ["b"] * 9) == 1


def test_strengths_go_from_a_millionth_to_a_million_in_eighths_of_a_decade() -> None:
    strengths = np.array([strength_at(step) for step in range(97)])
    np.testing.assert_allclose(strengths, np.logspace(-6, 6, 97))


@given(st.integers(0, 96), st.sets(st.integers(0, 10**6), min_size=97, max_size=97), st.randoms())
def test_a_single_peak_is_found_among_all_97(peak: int, heights: set[int], random: object) -> None:
    falling = sorted(heights, reverse=True)
    rest = falling[1:]
    random.shuffle(rest)  # type: ignore[attr-defined]
    values = [*sorted(rest[:peak]), falling[0], *sorted(rest[peak:], reverse=True)]
    tried: list[float] = []

    def attempt(strength: float) -> Trial:
        tried.append(strength)
        return Trial(accuracy=values[round(8 * (np.log10(strength) + 6))], converged=True)

    rounds: list[float] = []
    trials = find_strength(attempt, lambda best, _: rounds.append(best))
    assert next(iter(trials)) == strength_at(peak) == rounds[-1]
    assert tried[:7] == [strength_at(step) for step in range(96, -1, -16)]
    assert len(tried) == len(set(tried)) == len(trials) <= 15
    assert len(rounds) == logistic.ROUNDS
    accuracies = [trial.accuracy for trial in trials.values()]
    assert accuracies == sorted(accuracies, reverse=True)


def test_of_equally_good_strengths_the_middle_one_is_taken() -> None:
    trials = find_strength(lambda strength: Trial(accuracy=strength < 200, converged=True))
    assert 1e-3 < next(iter(trials)) < 1e-1
    flat = find_strength(lambda strength: Trial(accuracy=0.5, converged=True))
    assert next(iter(flat)) == 1


def test_features_that_cannot_be_learnt_from_are_one_line() -> None:
    vectors = np.zeros((3, 2), np.float32)
    check_vectors("x", vectors, 2)
    with pytest.raises(InputError, match="x: no picture has a class"):
        check_vectors("x", vectors[:0], 2)
    with pytest.raises(InputError, match="have 2 numbers, those learnt from 5"):
        check_vectors("x", vectors, 5)
    vectors[1, 1] = np.nan
    vectors[2, 0] = np.inf
    with pytest.raises(
        InputError, match="of 2 of 3 pictures are not finite, the first is number 2"
    ):
        check_vectors("x", vectors, 2)
