import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from train.evaluation.features import Features
from train.evaluation.metrics import by_class, confusions, ranks_of, summarize
from train.evaluation.results import classified

CLASSES = list("abcdefg")


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores with many ties, and the number of each picture's class."""
    pictures, classes = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    scores = draw(
        st.lists(
            st.lists(st.integers(-2, 2), min_size=classes, max_size=classes),
            min_size=pictures,
            max_size=pictures,
        )
    )
    truth = draw(st.lists(st.integers(0, classes - 1), min_size=pictures, max_size=pictures))
    return np.array(scores, np.float32), np.array(truth)


@given(scored())
def test_ranks_are_places_in_the_sorted_classes(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = drawn
    places = [
        sorted(range(len(row)), key=lambda c: (-row[c], c)).index(t) + 1
        for row, t in zip(scores.tolist(), truth.tolist(), strict=True)
    ]
    assert ranks_of(scores, truth).tolist() == places


def test_a_class_that_cannot_be_meant_ranks_last() -> None:
    assert ranks_of(np.array([[0.1, -np.inf, 0.2]]), np.array([1])).tolist() == [3]


def features(labels: list[str]) -> Features:
    count = len(labels)
    return Features(
        evalset="toy",
        items=[str(i) for i in range(count)],
        splits=["test"] * count,
        labels=list(labels),
        captions=[()] * count,
        vectors_ND=np.zeros((count, 2), np.float32),
    )


def test_accuracies_and_confusions_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, 300)
    truth[:7] = range(7)
    scores = rng.normal(size=(300, 7)) + 1.2 * np.eye(7)[truth]
    labels = [CLASSES[i] for i in truth]
    result = classified(features(labels), scores, CLASSES, variant="own")
    found = {row["metric"]: row["value"] for row in result.rows}
    best = scores.argmax(axis=1)
    assert found["top1"] == pytest.approx(np.mean(best == truth))
    assert found["top5"] == pytest.approx(top_k_accuracy_score(truth, scores, k=5))
    assert found["mean_per_class"] == pytest.approx(balanced_accuracy_score(truth, best))
    predicted = [p["predicted"] for p in result.predictions]
    assert predicted == [CLASSES[i] for i in best]
    matrix = confusion_matrix(truth, best)
    pairs = {(c["label"], c["predicted"]): c["images"] for c in confusions(labels, predicted)}
    expected = {
        (CLASSES[i], CLASSES[j]): matrix[i, j]
        for i in range(7)
        for j in range(7)
        if i != j and matrix[i, j]
    }
    assert pairs == expected
    for figure in by_class(labels, predicted):
        i = CLASSES.index(figure["label"])
        others = np.where(np.arange(7) == i, -1, matrix[i])
        assert figure["value"] == pytest.approx(matrix[i, i] / matrix[i].sum())
        assert figure["low"] < figure["value"] < figure["high"]
        assert (figure["taken_for"], figure["taken_for_images"]) == (
            CLASSES[others.argmax()],
            others.max(),
        )


def test_shares_are_counted_with_chance_beside_them() -> None:
    labels = ["a", "a", "a", "b"]
    rows = {row["metric"]: row for row in summarize(labels, [1, 1, 2, 6], 8)}
    assert {name: row["value"] for name, row in rows.items()} == {
        "top1": 0.5,
        "top5": 0.75,
        "mean_per_class": pytest.approx(1 / 3),
    }
    assert [row["chance"] for row in rows.values()] == [1 / 8, 5 / 8, 1 / 8]
    low, high = rows["top1"]["low"], rows["top1"]["high"]
    assert low is not None
    assert high is not None
    assert low < 0.5 < high
    assert rows["mean_per_class"]["low"] is None
    assert {(row["images"], row["classes"]) for row in rows.values()} == {(4, 8)}


def test_five_guesses_among_five_classes_are_not_reported() -> None:
    metrics = [row["metric"] for row in summarize(["a"], [1], 5)]
    assert metrics == ["top1", "mean_per_class"]


def test_the_worst_class_comes_first_and_a_perfect_one_is_taken_for_none() -> None:
    figures = by_class(["b", "b", "a", "c", "c"], ["b", "b", "b", "b", "c"])
    assert [(f["label"], f["value"], f["taken_for"]) for f in figures] == [
        ("a", 0.0, "b"),
        ("c", 0.5, "b"),
        ("b", 1.0, None),
    ]


def test_frequent_confusions_come_first() -> None:
    pairs = confusions(["a", "a", "a", "b"], ["c", "b", "c", "a"])
    assert [(p["label"], p["predicted"], p["images"], p["share"]) for p in pairs] == [
        ("a", "c", 2, pytest.approx(2 / 3)),
        ("a", "b", 1, pytest.approx(1 / 3)),
        ("b", "a", 1, 1.0),
    ]
