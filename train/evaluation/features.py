"""What a model makes of the pictures of an evaluation set, computed once and kept.

N: pictures, W: width of the image tower, D: embedding.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.parquet import read_parquet

BROKEN = "broken_image"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The pictures of a set that could be decoded, as a model sees them.

    Attributes:
        items: each picture's name in the set.
        splits: such as "test"; empty where the set has none.
        labels: classes in words.
        vectors_ND: projected into the space of pictures and texts, not of unit length.
        drops: rows of DROPS, of the pictures that could not be decoded.
        hidden_NW: before that projection, if it is a matrix of its own; None in a ResNet, which has none.
    """

    evalset: str
    items: list[str]
    splits: list[str]
    labels: list[str | None]
    captions: list[tuple[str, ...]]
    vectors_ND: Vectors
    drops: list[dict[str, Any]] = field(default_factory=list)
    hidden_NW: Vectors | None = None

    @property
    def unit_ND(self) -> Vectors:
        """The vectors at unit length, as similarities are taken of."""
        lengths = np.linalg.norm(self.vectors_ND, axis=1, keepdims=True)
        return np.asarray(self.vectors_ND / np.maximum(lengths, 1e-12), np.float32)

    def before_projection(self) -> "Features":
        """Return what the paper's linear probes learn from, as vectors."""
        if self.hidden_NW is None:
            return self
        return replace(self, vectors_ND=self.hidden_NW, hidden_NW=None)

    def labelled(self) -> "Features":
        """Return the pictures that have a class."""
        if None not in self.labels:
            return self
        return self.only([i for i, label in enumerate(self.labels) if label is not None])

    def only(self, rows: list[int]) -> "Features":
        """Return the pictures in `rows`, in that order."""
        return Features(
            evalset=self.evalset,
            items=[self.items[i] for i in rows],
            splits=[self.splits[i] for i in rows],
            labels=[self.labels[i] for i in rows],
            captions=[self.captions[i] for i in rows],
            vectors_ND=self.vectors_ND[rows],
            drops=self.drops,
            hidden_NW=None if self.hidden_NW is None else self.hidden_NW[rows],
        )


def check_finite(what: str, vectors_ND: npt.NDArray[Any]) -> None:
    """Refuse vectors of which nothing can be compared: a comparison with not-a-number is never true.

    Args:
        what: names them in the message.

    Raises:
        InputError: if not all numbers are finite.
    """
    broken = int((~np.isfinite(vectors_ND).all(axis=1)).sum())
    if broken:
        raise InputError(
            f"{what}: the model gives numbers that are not finite for {broken:,} of {len(vectors_ND):,}, "
            "expected whole weights; with --precision fp16, take bf16 or fp32"
        )


def write_features(path: str, features: Features) -> None:
    """Keep `features` in a Parquet file, the broken pictures last.

    What is projected is not kept where `hidden_NW` is, from which it follows.
    """
    vectors = features.vectors_ND if features.hidden_NW is None else features.hidden_NW
    rows, width = vectors.shape
    kind = pa.list_(pa.float32(), width)
    broken = [str(drop["detail"]) for drop in features.drops]
    names = [*features.items, *([""] * len(broken))]
    table = pa.table(
        {
            "item": pa.array(names, pa.string()),
            "split": pa.array([*features.splits, *([""] * len(broken))], pa.string()),
            "label": pa.array([*features.labels, *([None] * len(broken))], pa.string()),
            "captions": pa.array(
                [*map(list, features.captions), *([[]] * len(broken))], pa.list_(pa.string())
            ),
            "refused": pa.array([*([None] * rows), *broken], pa.string()),
            "vector": pa.chunked_array(
                [
                    pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=kind),
                    pa.nulls(len(broken), kind),
                ]
            ),
        }
    )
    with storage.atomic_output(path) as file:
        pq.write_table(table, file, compression="zstd", use_dictionary=["split", "label"])


def read_features(path: str, evalset: str) -> Features:
    """Return what `write_features` kept, vectors as they were kept."""
    table = read_parquet(path)
    broken = table.filter(pc.is_valid(table["refused"]))["refused"].to_pylist()
    table = table.filter(pc.is_null(table["refused"]))
    vectors = table["vector"].combine_chunks()
    return Features(
        evalset=evalset,
        items=table["item"].to_pylist(),
        splits=table["split"].to_pylist(),
        labels=table["label"].to_pylist(),
        captions=[tuple(captions) for captions in table["captions"].to_pylist()],
        vectors_ND=vectors.flatten().to_numpy().reshape(len(table), vectors.type.list_size),
        drops=[{"pair_id": None, "reason": BROKEN, "detail": detail} for detail in broken],
    )
