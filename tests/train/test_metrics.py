import pytest

from train.metrics import summarize


def test_shares_are_counted_with_chance_beside_them() -> None:
    labels = ["a", "a", "a", "b"]
    rows = {row["metric"]: row for row in summarize("toy", labels, [1, 1, 2, 6], 8)}
    assert {name: row["value"] for name, row in rows.items()} == {
        "top1": 0.5,
        "top5": 0.75,
        "mean_per_class": pytest.approx(1 / 3),
    }
    assert [row["chance"] for row in rows.values()] == [1 / 8, 5 / 8, 1 / 8]
    assert rows["top1"]["low"] < 0.5 < rows["top1"]["high"]
    assert rows["mean_per_class"]["low"] is None
    assert {(row["evalset"], row["images"], row["classes"]) for row in rows.values()} == {
        ("toy", 4, 8)
    }


def test_five_guesses_among_five_classes_are_not_reported() -> None:
    metrics = [row["metric"] for row in summarize("toy", ["a"], [1], 5)]
    assert metrics == ["top1", "mean_per_class"]
