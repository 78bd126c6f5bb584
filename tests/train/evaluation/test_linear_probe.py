from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.train.evaluation.clusters import clouds, features_from
from train.evaluation import logistic
from train.evaluation.features import Features
from train.evaluation.linear_probe import classes_of, joined, linear_probe, split_off
from train.evaluation.results import HeadResult

pytest.importorskip("sklearn", reason="heads need scikit-learn")

VALIDATION_SHARE = 0.2


def value(result: HeadResult, metric: str) -> float:
    return next(row["value"] for row in result.rows if row["metric"] == metric)


def test_the_probe_is_scikit_learns_with_the_strength_best_on_validation() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

    counts = [20, 10, 14, 30, 8, 12]
    train = clouds(0, counts)
    validation = clouds(1, [9] * 6, prefix="v")
    test = clouds(2, [40, 20, 30, 10, 25, 35], prefix="t")
    result = linear_probe(train, validation, test)

    def learn(features: Features, strength: float) -> LogisticRegression:
        model = LogisticRegression(C=1 / strength, max_iter=1000)
        return model.fit(features.vectors_ND.astype(float), classes_of(features))

    def validated(strength: float) -> float:
        model = learn(train, strength)
        return float(model.score(validation.vectors_ND, classes_of(validation)))

    chosen, found_on_validation = result.notes["strength"], result.notes["validation_top1"]
    assert isinstance(chosen, float)
    # By one picture, fits that begin elsewhere may differ.
    one = 1.1 / len(validation.items)
    assert validated(chosen) == pytest.approx(found_on_validation, abs=one)
    assert validated(chosen) >= max(validated(s) for s in np.logspace(-6, 6, 7)) - one
    model = learn(joined(train, validation), chosen)
    found = model.predict(test.vectors_ND)
    truth = classes_of(test)
    assert [p["predicted"] for p in result.predictions] == list(found)
    assert value(result, "top1") == accuracy_score(truth, found)
    assert value(result, "mean_per_class") == pytest.approx(balanced_accuracy_score(truth, found))
    scores = model.decision_function(test.vectors_ND)
    assert value(result, "top5") == top_k_accuracy_score(truth, scores, k=5, labels=model.classes_)
    assert 0.4 < value(result, "top1") < 1
    assert result.notes["training_pictures"] == sum(counts) + 54
    assert result.notes["strengths_not_converged"] == 0


def test_without_validation_a_fifth_is_set_apart_and_merged_back() -> None:
    train, test = clouds(0, [40] * 3), clouds(1, [20] * 3, prefix="t")
    result = linear_probe(train, None, test)
    learnt, apart = split_off(train, VALIDATION_SHARE, 0)
    assert (len(learnt.items), len(apart.items)) == (96, 24)
    assert result.notes["validation_pictures"] == 24
    assert result.notes["training_pictures"] == 120
    chosen = result.notes["strength"]
    assert isinstance(chosen, float)
    whole = logistic.fit(train.vectors_ND, classes_of(train), chosen)
    assert value(result, "top1") == whole.accuracy(test.vectors_ND, classes_of(test))
    assert linear_probe(train, None, test) == result


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6).filter(lambda counts: max(counts) > 1),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
    st.randoms(),
)
def test_the_split_takes_its_share_of_each_class_whatever_the_order(
    counts: list[int], share: float, seed: int, random: object
) -> None:
    features = clouds(0, counts)
    learnt, apart = split_off(features, share, seed)
    assert sorted(learnt.items + apart.items) == sorted(features.items)
    for number, count in enumerate(counts):
        taken = apart.labels.count(f"class {number}")
        assert taken == min(max(1, round(share * count)), count - 1)
    rows = list(range(len(features.items)))
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert set(split_off(features.only(rows), share, seed)[1].items) == set(apart.items)


def test_other_seeds_set_other_pictures_apart() -> None:
    features = clouds(0, [50, 50])
    assert split_off(features, 0.2, 0)[1].items != split_off(features, 0.2, 1)[1].items


def test_a_class_that_was_never_learnt_is_a_miss_that_comes_last() -> None:
    train = clouds(0, [20, 20], spread=0.1)
    test = clouds(1, [5, 5, 5], spread=0.1, prefix="t")
    result = linear_probe(train, None, test)
    assert value(result, "top1") == pytest.approx(10 / 15)
    assert {p["rank"] for p in result.predictions if p["label"] == "class 2"} == {3}
    assert {row["classes"] for row in result.rows} == {3}


def test_pictures_without_a_class_are_left_out() -> None:
    train, test = clouds(0, [20, 20]), clouds(1, [5, 5], prefix="t")
    more = features_from(np.full((3, 6), 1e3), [None] * 3, prefix="n")
    assert (
        linear_probe(joined(train, more), more, joined(more, test)).rows
        == linear_probe(train, None, test).rows
    )


def test_a_search_with_stopped_fits_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    linear_probe(clouds(0, [9, 9, 9]), None, clouds(1, [3, 3, 3]))
    assert "stopped" not in capsys.readouterr().err
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 1)
    result = linear_probe(clouds(0, [9, 9, 9]), None, clouds(1, [3, 3, 3]))
    assert not result.notes["converged"]
    tried = result.notes["strengths_tried"]
    assert result.notes["strengths_not_converged"] == tried
    said = (
        f"{tried} of {tried} fits of the search and the final one were stopped short of converging"
    )
    assert said in capsys.readouterr().err


def test_what_cannot_be_learnt_from_is_one_line() -> None:
    train, test = clouds(0, [5, 5]), clouds(1, [5, 5])
    with pytest.raises(InputError, match="all training pictures are of the class 'class 0'"):
        linear_probe(clouds(0, [9]), None, test)
    with pytest.raises(InputError, match="no class has two training pictures"):
        linear_probe(clouds(0, [1, 1]), None, test)
    with pytest.raises(InputError, match="no picture has a class"):
        linear_probe(train, None, test.only([]))
    with pytest.raises(InputError, match="have 3 numbers, those learnt from 6"):
        linear_probe(train, None, clouds(1, [5, 5], width=3))
    broken = replace(train, vectors_ND=np.where(np.arange(6) == 2, np.nan, train.vectors_ND))
    for features in ((broken, None, test), (train, broken, test), (train, None, broken)):
        with pytest.raises(InputError, match="10 of 10 pictures are not finite"):
            linear_probe(*features)
