"""Logistic regression on features, and the search for how strongly to regularise it (CLIP, appendix A.3).

scikit-learn minimises C·Σloss + ½‖w‖², so the strength λ of Σloss + λ/2·‖w‖² is 1/C. The intercept is
not regularised. N: pictures, D: features, C: classes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from train.evaluation.features import Vectors

MAX_ITERATIONS = 1000
STEPS_PER_DECADE = 8
LAST_STEP = 96
"""λ is 1e-6 at step 0 and 1e6 at this one."""

FIRST_SPACING = 16
SPACINGS = (8, 4, 2, 1)
ROUNDS = 1 + len(SPACINGS)

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A fitted logistic regression.

    Attributes:
        iterations: of L-BFGS.
        converged: False where it was stopped before its gradient was small enough.
    """

    classes: list[str]
    weights_CD: Scores
    intercepts_C: Scores
    iterations: int
    converged: bool

    def scores(self, vectors_ND: Vectors) -> Scores:
        """Return the logits of pictures, [N, C]."""
        scores_NC: Scores = vectors_ND.astype(np.float64) @ self.weights_CD.T + self.intercepts_C
        return scores_NC

    def accuracy(self, vectors_ND: Vectors, labels: Sequence[str]) -> float:
        """Return the share of pictures whose class scores highest; of equal scores the first counts."""
        best = self.scores(vectors_ND).argmax(axis=1)
        return float(
            np.mean([self.classes[i] == label for i, label in zip(best, labels, strict=True)])
        )


def fit(
    vectors_ND: Vectors, labels: Sequence[str], strength: float, start: Classifier | None = None
) -> Classifier:
    """Return the classifier of regularisation `strength`, λ; there must be two classes at least.

    It is found in double precision: in single precision the search along a line often fails where λ is small.

    Args:
        start: classifier of the same pictures to begin from; default: from zero.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # Threads gain little with so few classes, wait for each other where others compute, and change the last bits.
    with (
        threadpool_limits(1, user_api="blas"),
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=1 / strength, max_iter=MAX_ITERATIONS, warm_start=True)
        if start is not None:
            learnt = slice(1, None) if len(start.classes) == 2 else slice(None)
            model.coef_, model.intercept_ = start.weights_CD[learnt], start.intercepts_C[learnt]
        model.fit(vectors_ND.astype(np.float64), np.asarray(labels))
    _warn_again(told, ConvergenceWarning)
    weights_CD, intercepts_C = model.coef_, model.intercept_
    if len(weights_CD) == 1:
        # Of two classes only the second has weights; the first one's logit is 0.
        weights_CD = np.concatenate([np.zeros_like(weights_CD), weights_CD])
        intercepts_C = np.concatenate([np.zeros_like(intercepts_C), intercepts_C])
    return Classifier(
        classes=[str(name) for name in model.classes_],
        weights_CD=weights_CD,
        intercepts_C=intercepts_C,
        iterations=int(model.n_iter_[0]),
        converged=not any(issubclass(w.category, ConvergenceWarning) for w in told),
    )


def _warn_again(told: Sequence[warnings.WarningMessage], known: type[Warning]) -> None:
    for warning in told:
        if not issubclass(warning.category, known):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one strength came to: accuracy on the validation pictures, and whether its fit converged."""

    accuracy: float
    converged: bool


def find_strength(
    attempt: Callable[[float], Trial], on_round: Callable[[float, Trial], Any] | None = None
) -> dict[float, Trial]:
    """Return the strengths tried, in order of accuracy, the best first.

    Seven strengths from 1e6 to 1e-6 are tried, then those half as far to both sides of the best, and so
    on down to eight steps a decade: 15 of the 97 at most. Of equally accurate ones the middle one is best.

    Args:
        attempt: fits by a strength.
        on_round: called with the best one after each of `ROUNDS` rounds.
    """
    trials: dict[int, Trial] = {}
    steps: Sequence[int] = range(LAST_STEP, -1, -FIRST_SPACING)
    for next_spacing in (*SPACINGS, 0):
        for step in steps:
            if 0 <= step <= LAST_STEP and step not in trials:
                trials[step] = attempt(strength_at(step))
        best = _best(trials)
        if on_round:
            on_round(strength_at(best), trials[best])
        steps = (best + next_spacing, best - next_spacing)
    others = sorted(trials.keys() - {best}, key=lambda step: (-trials[step].accuracy, step))
    return {strength_at(step): trials[step] for step in (best, *others)}


def strength_at(step: int) -> float:
    """Return λ at a step from 0 to 96, an eighth of a decade each."""
    return float(10 ** (step / STEPS_PER_DECADE - 6))


def _best(trials: dict[int, Trial]) -> int:
    accuracy = max(trial.accuracy for trial in trials.values())
    equal = sorted(step for step, trial in trials.items() if trial.accuracy == accuracy)
    return equal[len(equal) // 2]


def check_vectors(what: str, vectors_ND: Vectors, width: int) -> None:
    """Refuse features that no classifier can be fitted to or asked about.

    Args:
        what: names them in the message.
        width: numbers that each picture must have.

    Raises:
        InputError: if there are none, they are of another width, or not all numbers are finite.
    """
    if not len(vectors_ND):
        raise InputError(f"{what}: no picture has a class, expected at least one")
    if vectors_ND.shape[1] != width:
        raise InputError(
            f"{what}: features have {vectors_ND.shape[1]} numbers, those learnt from {width}; "
            "expected both from one model"
        )
    broken = np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))
    if len(broken):
        raise InputError(
            f"{what}: the features of {len(broken)} of {len(vectors_ND)} pictures are not finite, "
            f"the first is number {broken[0] + 1}; expected numbers: are the model's weights whole?"
        )
