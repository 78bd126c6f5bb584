"""Linear probe: a logistic regression on the features of a frozen model (CLIP, appendix A.3)."""

import math
from collections.abc import Callable

import numpy as np
import xxhash

from pipeline.errors import InputError
from pipeline.runtime.progress import Progress, say
from train.evaluation.features import Features
from train.evaluation.logistic import (
    LAST_STEP,
    MAX_ITERATIONS,
    ROUNDS,
    Classifier,
    Scores,
    Trial,
    check_vectors,
    find_strength,
    fit,
    strength_at,
)
from train.evaluation.results import HeadResult, classified

VALIDATION_SHARE = 0.2


def linear_probe(
    train: Features, validation: Features | None, test: Features, *, seed: int = 0
) -> HeadResult:
    """Return how well a linear classifier tells the test pictures' classes by their features.

    The strength of regularisation is the one most accurate on validation pictures, which the final
    classifier learns from as well. Without `validation` a fifth of each class's training pictures
    are that, by hash of their names and `seed`.

    Raises:
        InputError: if there are fewer than two classes to learn, or features are not finite.
    """
    train, test = train.labelled(), test.labelled()
    check_learnable(train, "linear probe")
    check_vectors(f"linear probe of {test.evalset}", test.vectors_ND, train.vectors_ND.shape[1])
    if validation is None or not validation.labelled().items:
        learnt, validation = split_off(train, VALIDATION_SHARE, seed)
        whole = train
    else:
        learnt, validation = train, validation.labelled()
        check_vectors(
            f"validation pictures of {test.evalset}",
            validation.vectors_ND,
            train.vectors_ND.shape[1],
        )
        whole = joined(train, validation)
    with Progress("probe", ROUNDS + 1, unit="rounds") as progress:
        trials = find_strength(
            attempts(learnt, validation),
            lambda best, trial: progress.advance(
                strength=f"{best:.3g}", validation=f"{trial.accuracy:.4f}"
            ),
        )
        strength, best = next(iter(trials.items()))
        classifier = fit(whole.vectors_ND, classes_of(whole), strength)
        progress.advance()
    stopped = sum(not trial.converged for trial in trials.values())
    if stopped or not classifier.converged:
        say(
            f"probe      of {test.evalset}: {stopped} of {len(trials)} fits of the search and "
            f"{'not ' if classifier.converged else ''}the final one were stopped short of converging, "
            f"at {MAX_ITERATIONS} iterations at most"
        )
    scores_NC, classes = scores_with_unlearnt(classifier, test)
    result = classified(test, scores_NC, classes)
    result.notes.update(
        {
            "strength": strength,
            "strength_at_an_end": strength in (strength_at(0), strength_at(LAST_STEP)),
            "strengths_tried": len(trials),
            "strengths_not_converged": stopped,
            "validation_top1": best.accuracy,
            "validation_pictures": len(validation.items),
            "training_pictures": len(whole.items),
            "iterations": classifier.iterations,
            "converged": classifier.converged,
        }
    )
    return result


def attempts(learnt: Features, validation: Features) -> Callable[[float], Trial]:
    """Return a function that fits `learnt` by a strength and measures it on `validation`.

    Each fit but the first begins at the one of the nearest strength, which saves about half of the iterations.
    """
    labels, truth = classes_of(learnt), classes_of(validation)
    fitted: dict[float, Classifier] = {}

    def attempt(strength: float) -> Trial:
        nearest = min(fitted, key=lambda other: abs(math.log(other / strength)), default=None)
        start = None if nearest is None else fitted[nearest]
        classifier = fitted[strength] = fit(learnt.vectors_ND, labels, strength, start)
        return Trial(
            accuracy=classifier.accuracy(validation.vectors_ND, truth),
            converged=classifier.converged,
        )

    return attempt


def split_off(features: Features, share: float, seed: int) -> tuple[Features, Features]:
    """Return the pictures but for `share` of each class, and those; one at least stays of each class.

    Which ones they are depends on their names and the seed alone, not on what else is in the set.

    Raises:
        InputError: if no class has two pictures.
    """
    apart = [
        row
        for rows in rows_by_class(features, f"{seed}:validation").values()
        for row in rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]
    ]
    if not apart:
        raise InputError(
            f"linear probe of {features.evalset}: no class has two training pictures, "
            "so none can be set apart for validation; give some by `validation` in the file of sets"
        )
    kept = sorted(set(range(len(features.items))) - set(apart))
    return features.only(kept), features.only(sorted(apart))


def rows_by_class(features: Features, key: str) -> dict[str, list[int]]:
    """Return the rows of each class, sorted by class, in an order that hashes of names and `key` give."""
    rows: dict[str, list[int]] = {}
    order = sorted(
        range(len(features.items)),
        key=lambda row: (xxhash.xxh3_128_digest(f"{key}:{features.items[row]}".encode()), row),
    )
    classes = classes_of(features)
    for row in order:
        rows.setdefault(classes[row], []).append(row)
    return dict(sorted(rows.items()))


def classes_of(features: Features) -> list[str]:
    """Return the class of each picture; all must have one."""
    return [label for label in features.labels if label is not None]


def joined(first: Features, second: Features) -> Features:
    """Return the pictures of both, the first ones first."""
    return Features(
        evalset=first.evalset,
        items=first.items + second.items,
        splits=first.splits + second.splits,
        labels=first.labels + second.labels,
        captions=first.captions + second.captions,
        vectors_ND=np.concatenate([first.vectors_ND, second.vectors_ND]),
        drops=first.drops + second.drops,
    )


def scores_with_unlearnt(classifier: Classifier, test: Features) -> tuple[Scores, list[str]]:
    """Return scores of the test pictures and the classes they are of, [N, C].

    A class that only test pictures have comes last in every ranking: its score is -inf.
    """
    unlearnt = sorted(set(classes_of(test)) - set(classifier.classes))
    scores_NC = classifier.scores(test.vectors_ND)
    missing = np.full((len(scores_NC), len(unlearnt)), -np.inf)
    return np.concatenate([scores_NC, missing], axis=1), classifier.classes + unlearnt


def check_learnable(train: Features, what: str) -> None:
    """Refuse pictures that tell no classes apart.

    Raises:
        InputError: if they are of fewer than two classes, or their features are not finite.
    """
    check_vectors(f"{what} of {train.evalset}", train.vectors_ND, train.vectors_ND.shape[1])
    if len(classes := set(classes_of(train))) < 2:
        raise InputError(
            f"{what} of {train.evalset}: all training pictures are of the class "
            f"{min(classes)!r}, expected two classes or more"
        )
