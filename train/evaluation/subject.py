"""One model and one set, and what heads ask of them: features and classifiers, each computed once."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import digest
from pipeline.runtime.progress import Progress
from train.evaluation.config import EvaluateConfig
from train.evaluation.embedder import Clock, Embedder, features_of
from train.evaluation.features import Features, Vectors, check_finite
from train.evaluation.templates import templates_for
from train.evaluation.zeroshot import class_embeddings, embed_texts


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured; C: classes, M: texts, D: embedding."""

    embedder: Embedder
    evalset: EvalSet
    config: EvaluateConfig

    @cached_property
    def test(self) -> Features:
        """The pictures to measure on."""
        return embed_set(self.embedder, self.evalset)

    @cached_property
    def train(self) -> Features:
        """The pictures to learn from, those that have a class."""
        return embed_set(self.embedder, self.part("train"), "train").labelled()

    @cached_property
    def validation(self) -> Features | None:
        """The pictures to choose settings by; None where the set names none."""
        found = self.evalset.learns_from("validation")
        return None if found is None else embed_set(self.embedder, found, "validation").labelled()

    def part(self, name: Literal["train", "validation"]) -> EvalSet:
        """Return the set to learn from, or to choose settings by.

        Raises:
            InputError: if the set names none.
        """
        found = self.evalset.learns_from(name)
        if found is None:
            raise InputError(f"{self.evalset.where} does not say what to learn from; give {name}")
        return found

    @property
    def classes(self) -> list[str]:
        """The classes of the pictures to measure on, in the order of the alphabet."""
        return sorted({label for label in self.test.labels if label is not None})

    def classifier(self, name: str) -> Vectors:
        """Return the unit-length embeddings of the classes by the templates of that name, [C, D]."""
        templates = templates_for(name, self.evalset)
        key = digest([self.embedder.key, self.classes, templates])[:16]
        path = storage.join(self.embedder.folder, f"classifier-{key}.npy")
        if storage.size(path) is not None:
            weights: Vectors = np.load(io.BytesIO(storage.read_bytes(path)))
            return weights
        with self.embedder.computing():
            weights = (
                class_embeddings(
                    self.embedder.model, self.classes, templates, device=self.embedder.device
                )
                .cpu()
                .numpy()
            )
        check_finite(f"captions of the classes of {self.evalset.name}", weights)
        with storage.atomic_output(path) as file:
            np.save(file, weights)
        return weights

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return the unit-length embeddings of texts, [M, D]."""
        with self.embedder.computing():
            return embed_texts(self.embedder.model, texts, self.embedder.device).cpu().numpy()


def embed_set(embedder: Embedder, evalset: EvalSet, part: str = "") -> Features:
    """Return the features of a set, showing how far their computing has come."""
    clock = Clock()
    with Progress(f"  {evalset.name} {part}".rstrip(), 1, unit="sets") as progress:

        def advance(rows: int, drops: int) -> None:
            progress.advance(0, rows=rows, drops=drops, in_the_model=f"{clock.share:.0%}")

        features = features_of(embedder, evalset, clock=clock, advance=advance)
        progress.advance()
    return features
