"""The ways to measure a model, by name, and what each needs of a set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dedup.evaluation.evalsets import EvalSet, entries
from pipeline.errors import InputError
from pipeline.runtime.progress import say
from train.evaluation.config import HeadName
from train.evaluation.few_shot import few_shot
from train.evaluation.fine_tuned import FineTuning, fine_tune, untrained
from train.evaluation.linear_probe import linear_probe
from train.evaluation.results import HeadResult, classified
from train.evaluation.retrieval import retrieval
from train.evaluation.robustness import robustness
from train.evaluation.subject import Subject
from train.evaluation.worst import draw_worst

Need = Literal["classes", "captions", "train"]

_LACKING: Mapping[Need, str] = {
    "classes": "it names no classes",
    "captions": "it has no captions with pictures",
    "train": "it does not say what to learn from (train)",
}


@dataclass(frozen=True, kw_only=True)
class Head:
    """One way to measure a model on a set that has what it needs."""

    needs: tuple[Need, ...]
    measure: Callable[[Subject], HeadResult]


def zero_shot(subject: Subject) -> HeadResult:
    """Return how well the classes' captions tell the pictures apart (CLIP, section 3.1)."""
    test = subject.test.labelled()
    images_ND = test.unit_ND
    results = [
        classified(test, images_ND @ subject.classifier(name).T, subject.classes, variant=name)
        for name in subject.config.templates
    ]
    first = results[0]
    files = {}
    if subject.config.worst:
        sheet = draw_worst(subject.evalset, first.predictions, subject.config.worst)
        files = {"worst.png": sheet} if sheet else {}
    return HeadResult(
        rows=[row for result in results for row in result.rows],
        predictions=[one for result in results for one in result.predictions],
        files=files,
    )


def _linear_probe(subject: Subject) -> HeadResult:
    validation = subject.validation and subject.validation.before_projection()
    return linear_probe(
        subject.train.before_projection(),
        validation,
        subject.test.labelled().before_projection(),
        seed=subject.config.seed,
    )


def _few_shot(subject: Subject) -> HeadResult:
    return few_shot(
        subject.train.before_projection(),
        subject.test.labelled().before_projection(),
        shots=subject.config.shots,
        repeats=subject.config.repeats,
        seed=subject.config.seed,
    )


def _retrieval(subject: Subject) -> HeadResult:
    return retrieval(
        subject.test,
        subject.embed_texts,
        prefix=subject.config.caption_prefix,
        device=subject.embedder.device,
    )


def _fine_tuned(subject: Subject) -> HeadResult:
    config = subject.config
    model = subject.embedder.model
    if config.tower:
        model = untrained(config.tower, config.tower_resolution, seed=config.seed)
    return fine_tune(
        model,
        subject.part("train"),
        subject.evalset.learns_from("validation"),
        subject.evalset,
        settings=FineTuning(
            epochs=config.tower_epochs,
            learning_rate=config.tower_rate,
            batch_size=config.tower_batch_size,
            seed=config.seed,
            readers=config.readers,
        ),
        device=subject.embedder.device,
    )


HEADS: Mapping[HeadName, Head] = {
    "zero_shot": Head(needs=("classes",), measure=zero_shot),
    "linear_probe": Head(needs=("classes", "train"), measure=_linear_probe),
    "few_shot": Head(needs=("classes", "train"), measure=_few_shot),
    "retrieval": Head(needs=("captions",), measure=_retrieval),
    "fine_tuned": Head(needs=("classes", "train"), measure=_fine_tuned),
    "robustness": Head(needs=("classes",), measure=robustness),
}


def choose(
    evalsets: Sequence[EvalSet], heads: Sequence[HeadName]
) -> list[tuple[EvalSet, list[HeadName]]]:
    """Return each set with the heads that it suits, sets that suit none left out; say which and why.

    Raises:
        InputError: if no set suits any head.
    """
    chosen = []
    for evalset in evalsets:
        has = _offers(evalset)
        lacking = {head: [n for n in HEADS[head].needs if n not in has] for head in heads}
        fitting = [head for head in heads if not lacking[head]]
        without = [head for head in heads if lacking[head] == ["train"]]
        if fitting:
            chosen.append((evalset, fitting))
            if without:
                say(f"evaluate   no {', '.join(without)} on {evalset.name}: {_LACKING['train']}")
        else:
            reasons = dict.fromkeys(_LACKING[needs[0]] for needs in lacking.values())
            say(f"evaluate   leaves out {evalset.name}: {', '.join(reasons)}")
    if not chosen:
        needs = dict.fromkeys(" and ".join(HEADS[head].needs) for head in heads)
        raise InputError(
            f"no evaluation set suits {', '.join(heads)}: expected one with {', or '.join(needs)}"
        )
    return chosen


def _offers(evalset: EvalSet) -> set[Need]:
    """Return what a set has, by the first of its pictures."""
    first = next(entries(evalset))
    has: set[Need] = set()
    if first.label is not None:
        has.add("classes")
    if first.captions and first.read is not None:
        has.add("captions")
    if evalset.train:
        has.add("train")
    return has
