"""Find the corpus pictures that are, or nearly are, pictures of an evaluation set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.bands import Positions, Words
from dedup.evaluation.evalsets import EvalSet
from dedup.perceptual import as_words, find_near
from pipeline import schemas
from pipeline.runtime.parquet import read_parquet

READ: Final = ["pair_id", "image_sha256", "pixel_hash", "pdq", "pdq_quality"]

FOUND: Final = pa.schema(
    [
        ("row", pa.int64()),
        *(
            (name, schemas.EVAL_OVERLAPS.field(name).type)
            for name in schemas.EVAL_OVERLAPS.names[1:]
        ),
    ]
)
"""One row per corpus row and evaluation picture met, by the first of METHODS that says so."""

ORDER: Final = [(name, "ascending") for name in ("row", "evalset", "item", "split", "method")]
"""How FOUND is sorted: no two rows of it are the same in all of these."""

METHODS: Final = ("same_bytes", "same_pixels", "near_duplicate", "mirrored", "embedding")

COMPARED: Final = [
    "evalset", "split", "item", "image_sha256", "pixel_hash", "pdq", "pdq_mirrored", "pdq_quality",
]  # fmt: skip

# Evaluation pictures whose embeddings are held at once: half a gigabyte at 1,280 dimensions.
EMBEDDED_AT_ONCE = 200_000

Blocks = Callable[[], Iterator[npt.NDArray[Any]]]
"""Gives the embeddings of all corpus rows in their order, some thousands at a time, every time it is called."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known of the pictures of all sets.

    Attributes:
        pictures: COMPARED of EVALUATION_PICTURES, the files one after another.
        files: where they come from, and the number of the first row of each.
        evalsets: by name; they say what counts as a copy.
    """

    pictures: pa.Table
    files: tuple[tuple[str, int], ...]
    evalsets: Mapping[str, EvalSet]


@dataclass(frozen=True, kw_only=True)
class _Met:
    """Numbers of corpus rows and evaluation pictures, and how far they are apart."""

    row: Positions
    other: Positions
    distance: npt.NDArray[np.float64]


def load_evaluation(paths: tuple[str, ...], evalsets: Sequence[EvalSet]) -> Evaluation:
    """Return what the files of EVALUATION_PICTURES hold; kept for the worker's next tasks."""
    pictures, files = _load(paths)
    by_name = {evalset.name: evalset for evalset in evalsets}
    return Evaluation(pictures=pictures, files=files, evalsets=by_name)


@cache
def _load(paths: tuple[str, ...]) -> tuple[pa.Table, tuple[tuple[str, int], ...]]:
    tables = [read_parquet(path, columns=COMPARED) for path in paths]
    starts = np.cumsum([0, *(len(table) for table in tables)]).tolist()
    empty = pa.schema([schemas.EVALUATION_PICTURES.field(name) for name in COMPARED]).empty_table()
    pictures = pa.concat_tables([empty, *tables]).combine_chunks()
    return pictures, tuple(zip(paths, starts[:-1], strict=True))


def find_overlaps(
    pairs: pa.Table,
    evaluation: Evaluation,
    *,
    min_quality: int,
    embeddings: Blocks | None = None,
) -> pa.Table:
    """Return FOUND: which rows of `pairs` show an evaluation picture, in ORDER.

    Args:
        pairs: rows with at least the columns `READ`.
        min_quality: pictures whose PDQ quality is lower are not compared by PDQ.
        embeddings: of `pairs`, by the model of the evaluation pictures'; compared where a set asks for it.
    """
    pictures = evaluation.pictures
    met = [
        _equal(pairs.column("image_sha256"), pictures.column("image_sha256")),
        _equal(pairs.column("pixel_hash"), pictures.column("pixel_hash")),
        _near(pairs, evaluation, min_quality, "pdq"),
        _near(pairs, evaluation, min_quality, "pdq_mirrored"),
        _similar(evaluation, embeddings) if embeddings else _NONE,
    ]
    row, other = (
        np.concatenate([getattr(some, name) for some in met]) for name in ("row", "other")
    )
    distance = np.concatenate([some.distance for some in met])
    method = np.repeat(np.arange(len(met)), [len(some.row) for some in met])
    order = np.lexsort((method, other, row))
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(row[order]) != 0) | (np.diff(other[order]) != 0)
    kept = order[is_first]
    named = pictures.select(["evalset", "split", "item"]).take(pa.array(other[kept]))
    found = {
        "row": pa.array(row[kept]),
        **{name: named.column(name) for name in named.column_names},
        "method": pa.array(METHODS).take(pa.array(method[kept])),
        "distance": pa.array(distance[kept]),
    }
    return pa.table(found, FOUND).sort_by(ORDER)


def _equal(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> _Met:
    """Return which values of one column stand in the other, each with each."""
    values = theirs.combine_chunks().dictionary_encode()
    code = values.indices.fill_null(-1).to_numpy()
    # Rows of the evaluation pictures by their value, those without one in front.
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(len(values.dictionary) + 1))
    place = pc.index_in(ours, value_set=values.dictionary, skip_nulls=True)
    row = np.flatnonzero(place.is_valid().to_numpy())
    value = place.drop_null().to_numpy()
    counts = starts[value + 1] - starts[value]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    other = order[np.repeat(starts[value], counts) + within]
    return _Met(row=np.repeat(row, counts), other=other, distance=np.zeros(len(other)))


def _near(pairs: pa.Table, evaluation: Evaluation, min_quality: int, column: str) -> _Met:
    """Return what lies within each set's distance, by one of the evaluation pictures' hashes."""
    rows, words = _hashed(pairs, "pdq", min_quality)
    pictures = evaluation.pictures
    others, targets = _hashed(pictures, column, min_quality)
    sets = pictures.column("evalset").take(pa.array(others)).combine_chunks().dictionary_encode()
    by_set = [evaluation.evalsets[n].max_distance for n in sets.dictionary.to_pylist()]
    radii = np.array(by_set, np.int64)[sets.indices.to_numpy()]
    met = [_NONE]
    for one in np.unique(radii):
        of_one = np.flatnonzero(radii == one)
        near = find_near(words, targets[of_one], int(one))
        met.append(
            _Met(
                row=rows[near.query],
                other=others[of_one[near.target]],
                distance=near.distance.astype(np.float64),
            )
        )
    return _joined(met)


def _hashed(table: pa.Table, column: str, min_quality: int) -> tuple[Positions, Words]:
    """Return the numbers of the rows that PDQ tells apart, and their hashes."""
    is_fine = pc.greater_equal(table.column("pdq_quality"), min_quality)
    wanted = pc.and_(pc.fill_null(is_fine, False), table.column(column).is_valid())
    return np.flatnonzero(wanted.to_numpy()), as_words(table.column(column).filter(wanted))


def _similar(evaluation: Evaluation, blocks: Blocks) -> _Met:
    """Return what is at least as similar as each set asks, by embeddings."""
    from dedup.embedding.vectors import find_similar

    met = [_NONE]
    for others, vectors, least in _targets(evaluation):
        first = 0
        for block in blocks():
            met += [
                _Met(
                    row=first + similar.query,
                    other=others[similar.target],
                    distance=np.maximum(1 - similar.similarity, 0),
                )
                for similar in find_similar(block, vectors, least)
            ]
            first += len(block)
    return _joined(met)


def _targets(
    evaluation: Evaluation,
) -> Iterator[tuple[Positions, npt.NDArray[Any], float]]:
    """Yield numbers and embeddings of pictures for which one similarity counts, not too many at once."""
    by_least: dict[float, list[tuple[str, int]]] = {}
    names = evaluation.pictures.column("evalset")
    ends = [first for _, first in evaluation.files[1:]] + [len(names)]
    for (path, first), end in zip(evaluation.files, ends, strict=True):
        least = evaluation.evalsets[names[first].as_py()].min_similarity if end > first else None
        if least is not None:
            by_least.setdefault(least, []).append((path, first))
    for least, files in by_least.items():
        held: list[tuple[Positions, npt.NDArray[Any]]] = []
        for path, first in files:
            held.append(_embedded(path, first))
            if sum(len(others) for others, _ in held) >= EMBEDDED_AT_ONCE:
                yield *_stacked(held), least
                held = []
        if held:
            yield *_stacked(held), least


@cache
def _embedded(path: str, first: int) -> tuple[Positions, npt.NDArray[Any]]:
    from dedup.embedding.embeddings import as_vectors

    column = read_parquet(path, columns=["embedding"]).column("embedding")
    return first + np.flatnonzero(column.is_valid().to_numpy()), as_vectors(column.drop_null())


def _stacked(
    held: Sequence[tuple[Positions, npt.NDArray[Any]]],
) -> tuple[Positions, npt.NDArray[Any]]:
    kept = [(others, vectors) for others, vectors in held if len(others)]
    if not kept:
        return np.empty(0, np.int64), np.empty((0, 1), np.float16)
    return np.concatenate([others for others, _ in kept]), np.concatenate([v for _, v in kept])


def _joined(met: Sequence[_Met]) -> _Met:
    return _Met(
        row=np.concatenate([some.row for some in met]),
        other=np.concatenate([some.other for some in met]),
        distance=np.concatenate([some.distance for some in met]),
    )


_NONE: Final = _Met(
    row=np.empty(0, np.int64), other=np.empty(0, np.int64), distance=np.empty(0, np.float64)
)
