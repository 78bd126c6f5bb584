"""Few-shot: the linear probe learnt from 1, 2, 4, 8 or 16 pictures of each class (CLIP, section 3.1.6)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError
from pipeline.runtime.progress import Progress, say
from train.evaluation.features import Features
from train.evaluation.linear_probe import (
    attempts,
    check_learnable,
    classes_of,
    rows_by_class,
)
from train.evaluation.logistic import check_vectors, find_strength, fit
from train.evaluation.results import HeadResult, Row

SHOTS = (1, 2, 4, 8, 16)
CONFIDENCE = 0.95
MOST_HELD_OUT = 4
"""Pictures of each class by which the strength is chosen, as many as are learnt from up to this."""

STRENGTH_WITHOUT_CHOICE = 1.0


def few_shot(
    train: Features,
    test: Features,
    *,
    shots: Sequence[int] = SHOTS,
    repeats: int = 5,
    strength: float | None = None,
    seed: int = 0,
) -> HeadResult:
    """Return the mean accuracy of classifiers that learnt from few pictures of each class.

    Each repeat draws other pictures, by hash of their names; within a repeat those of fewer shots are
    among those of more. A class with fewer pictures gives all it has.

    Args:
        strength: λ of regularisation. Default: the most accurate on as many other pictures of each
            class as are learnt from, at most four; 1 where there are no others.

    Raises:
        InputError: if there are fewer than two classes to learn, or features are not finite.
        ConfigError: if shots or repeats are not positive.
    """
    if repeats < 1 or not shots or min(shots) < 1:
        raise ConfigError(
            f"shots are {list(shots)} with {repeats} repeats, expected positive numbers"
        )
    train, test = train.labelled(), test.labelled()
    check_learnable(train, "few-shot")
    check_vectors(f"few-shot of {test.evalset}", test.vectors_ND, train.vectors_ND.shape[1])
    rows: list[Row] = []
    notes: dict[str, object] = {"repeats": repeats}
    with Progress("few-shot", len(shots) * repeats, unit="draws") as progress:
        for number in shots:
            draws = []
            for repeat in range(repeats):
                draws.append(_learn_from(train, test, number, f"{seed}:{repeat}", strength))
                progress.advance(shots=number, accuracy=f"{draws[-1].accuracy:.4f}")
            rows.append(_row(number, draws, train, test))
            notes[f"{number} shots"] = _about(number, draws)
            if stopped := sum(not one.converged for one in draws):
                say(
                    f"few-shot   of {test.evalset}: with {number} shots, {stopped} of {repeats} fits "
                    "were stopped short of converging"
                )
    return HeadResult(rows=rows, notes=notes)


@dataclass(frozen=True, kw_only=True)
class _Draw:
    accuracy: float
    strength: float
    converged: bool
    by_class: list[int]


def _learn_from(
    train: Features, test: Features, shots: int, key: str, strength: float | None
) -> _Draw:
    drawn, others = draw(train, shots, key)
    chosen = _choose(drawn, others) if strength is None else strength
    classifier = fit(drawn.vectors_ND, classes_of(drawn), chosen)
    return _Draw(
        accuracy=classifier.accuracy(test.vectors_ND, classes_of(test)),
        strength=chosen,
        converged=classifier.converged,
        by_class=list(Counter(classes_of(drawn)).values()),
    )


def draw(features: Features, shots: int, key: str) -> tuple[Features, Features]:
    """Return `shots` pictures of each class, and others of it, as many up to four, as `key` gives them."""
    by_class = rows_by_class(features, key).values()
    drawn = [row for rows in by_class for row in rows[:shots]]
    more = shots + min(shots, MOST_HELD_OUT)
    others = [row for rows in by_class for row in rows[shots:more]]
    return features.only(drawn), features.only(others)


def _choose(drawn: Features, others: Features) -> float:
    if not others.items:
        return STRENGTH_WITHOUT_CHOICE
    return next(iter(find_strength(attempts(drawn, others))))


def _about(shots: int, draws: Sequence[_Draw]) -> dict[str, object]:
    # Every draw has as many pictures of a class.
    by_class = draws[0].by_class
    return {
        "accuracies": [one.accuracy for one in draws],
        "strengths": [one.strength for one in draws],
        "training_pictures": sum(by_class),
        "classes_with_fewer": sum(count < shots for count in by_class),
        "not_converged": sum(not one.converged for one in draws),
    }


def _row(shots: int, draws: Sequence[_Draw], train: Features, test: Features) -> Row:
    accuracies = [one.accuracy for one in draws]
    classes = len({*classes_of(train), *classes_of(test)})
    low, high = mean_interval(accuracies)
    return Row(
        variant=str(shots),
        metric="top1",
        value=float(np.mean(accuracies)),
        low=low,
        high=high,
        chance=1 / classes,
        images=len(test.items),
        classes=classes,
    )


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return Student's 95% interval of the mean of shares, kept within 0 and 1; none for one value.

    Over repeats it says how much the choice of training pictures matters, not that of test pictures.
    """
    from scipy.stats import t

    if len(values) < 2:
        return None, None
    mean = float(np.mean(values))
    half = (
        float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
        * float(np.std(values, ddof=1))
        / len(values) ** 0.5
    )
    return max(0.0, mean - half), min(1.0, mean + half)
