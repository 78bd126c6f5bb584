"""Find the corpus pictures that are, or nearly are, pictures of an evaluation set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.buckets import read_bucket, write_whole
from dedup.evalsets import EvalSet, items
from dedup.perceptual import Positions, Words, as_words, find_near
from pipeline.errors import InputError
from pipeline.pictures.images import ImageRefused, decode, pdq, pixel_hash
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.stage import StageRun

EVALUATION: Final = pa.schema(
    [
        ("evalset", pa.string()),
        ("item", pa.string()),
        ("image_sha256", pa.string()),
        ("pixel_hash", pa.string()),
        ("pdq", pa.binary(32)),
        ("max_distance", pa.int32()),
    ]
)
"""What is known of an evaluation picture; `pdq` is null where only exact tests apply."""

READ: Final = ["pair_id", "image_sha256", "pixel_hash", "pdq", "pdq_quality"]

FOUND: Final = pa.schema(
    [
        ("row", pa.int64()),
        ("evalset", pa.string()),
        ("item", pa.string()),
        ("method", pa.string()),
        ("distance", pa.int32()),
    ]
)
"""One row per corpus row and evaluation picture met, by the closest relation."""


@dataclass(frozen=True, kw_only=True)
class HashTask:
    """One evaluation set to hash."""

    evalset: EvalSet
    min_quality: int
    hashes: str


def hash_evalsets(
    stage: StageRun, executor: Executor, evalsets: Sequence[EvalSet], *, min_quality: int
) -> tuple[list[str], list[Outcome]]:
    """Hash every picture of every set; return the files of EVALUATION and what was counted."""
    folder = stage.scratch("evaluation")
    tasks = [
        HashTask(
            evalset=evalset,
            min_quality=min_quality,
            hashes=storage.join(folder, f"{evalset.name}.arrow"),
        )
        for evalset in evalsets
    ]
    outcomes = stage.map(executor, "evaluation", hash_one, tasks) if tasks else []
    return [task.hashes for task in tasks], outcomes


def hash_one(task: HashTask) -> Outcome:
    """Hash one set; runs in a worker."""
    hashes = hash_evalset(task.evalset, min_quality=task.min_quality)
    write_whole(task.hashes, hashes)
    return Outcome(
        counters={
            "evaluation_pictures": hashes.num_rows,
            "evaluation_unreadable": hashes.column("pixel_hash").null_count,
            "evaluation_exact_only": hashes.column("pdq").null_count,
        }
    )


@cache
def load_evaluation(paths: tuple[str, ...]) -> pa.Table:
    """Return the EVALUATION rows of all `paths`; kept for the worker's next tasks."""
    return read_bucket(paths, 0, EVALUATION)


def hash_evalset(evalset: EvalSet, *, min_quality: int) -> pa.Table:
    """Return the EVALUATION rows of a set, by item.

    A picture that cannot be decoded has no `pixel_hash`: it is matched by its bytes alone.

    Raises:
        InputError: if not one picture of the set can be decoded.
    """
    rows = []
    refusal = ""
    for item in items(evalset):
        row = {
            "evalset": evalset.name,
            "item": item.item,
            "image_sha256": hashlib.sha256(item.data).hexdigest(),
            "max_distance": evalset.max_distance,
        }
        try:
            row |= _hash_picture(item.data, min_quality)
        except ImageRefused as error:
            refusal = f"{item.item} is refused, {error}"
        rows.append(row)
    if not any("pixel_hash" in row for row in rows):
        raise InputError(
            f"evaluation set {evalset.name}: {evalset.path} holds no readable picture: {refusal}"
        )
    return pa.Table.from_pylist(rows, EVALUATION)


def find_overlaps(pairs: pa.Table, evaluation: pa.Table, *, min_quality: int) -> pa.Table:
    """Return FOUND: which rows of `pairs` show a picture of `evaluation`, ordered by row, set, item.

    Args:
        pairs: rows with at least the columns `READ`.
        evaluation: EVALUATION of all sets.
        min_quality: pictures whose PDQ quality is lower are compared by bytes and pixels alone.
    """
    near = _near_pairs(pairs, evaluation, min_quality)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("pairs", _numbered(pairs.select(READ)))
        connection.register("evaluation", _numbered(evaluation))
        connection.register("near", near)
        return connection.sql(_CLOSEST).to_arrow_table().cast(FOUND)


_CLOSEST: Final = """
WITH met AS (
    SELECT p.row, e.row AS other, 1 AS rank, 'same_bytes' AS method, 0 AS distance
    FROM pairs p JOIN evaluation e USING (image_sha256)
    UNION ALL
    SELECT p.row, e.row, 2, 'same_pixels', 0 FROM pairs p JOIN evaluation e USING (pixel_hash)
    UNION ALL
    SELECT row, other, 3, 'near_duplicate', distance FROM near
)
SELECT met.row, evalset, item, method, distance
FROM met JOIN evaluation ON met.other = evaluation.row
QUALIFY row_number() OVER (PARTITION BY met.row, other ORDER BY rank) = 1
ORDER BY met.row, evalset, item
"""


def _hash_picture(data: bytes, min_quality: int) -> dict[str, str | bytes | None]:
    picture = decode(data)
    hashed = pdq(picture.rgb)
    is_comparable = hashed is not None and hashed[1] >= min_quality
    return {
        "pixel_hash": pixel_hash(picture.rgb),
        "pdq": hashed[0] if hashed and is_comparable else None,
    }


def _near_pairs(pairs: pa.Table, evaluation: pa.Table, min_quality: int) -> pa.Table:
    """Return row numbers of pairs and evaluation pictures within each set's distance."""
    fine = pc.fill_null(pc.greater_equal(pairs.column("pdq_quality"), min_quality), False)
    rows, words = _hashed(pairs, pc.and_(fine, pairs.column("pdq").is_valid()))
    tables = [_NEAR.empty_table()]
    for radius in pc.unique(evaluation.column("max_distance")).to_pylist():
        wanted = pc.equal(evaluation.column("max_distance"), radius)
        others, targets = _hashed(evaluation, pc.and_(wanted, evaluation.column("pdq").is_valid()))
        near = find_near(words, targets, radius)
        columns = [rows[near.query], others[near.target], near.distance]
        tables.append(pa.table([pa.array(c) for c in columns], _NEAR))
    return pa.concat_tables(tables)


_NEAR: Final = pa.schema([("row", pa.int64()), ("other", pa.int64()), ("distance", pa.int64())])


def _hashed(table: pa.Table, wanted: pa.ChunkedArray) -> tuple[Positions, Words]:
    """Return the numbers of the wanted rows and their hashes."""
    rows = np.flatnonzero(wanted.to_numpy())
    return rows, as_words(table.column("pdq").filter(wanted))


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column("row", pa.array(np.arange(table.num_rows)))
