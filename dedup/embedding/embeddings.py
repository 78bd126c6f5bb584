"""Embed the stored pictures of a part; keep the vectors in a table beside it, row for row."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.embedding.embedding_models import EmbeddingModel
from pipeline import schemas
from pipeline.errors import CorruptWorkspace
from pipeline.pictures.images import ImageRefused, Pixels, decode
from pipeline.runtime import storage
from pipeline.runtime.manifest import Part
from pipeline.runtime.stage import TaskOutput
from pipeline.runtime.workspace import Workspace

TABLE: Final = "embeddings"
"""Side table that `write_embeddings` writes a part of."""

STORED: Final = ["pair_id", "image_file", "image_offset", "image_length"]
"""Columns of DOWNLOADED by which pictures are found."""

Vectors = npt.NDArray[np.float16]
"""[pictures, dimensions], of unit length."""

# Pictures decoded ahead of the model: 39 MB at a side of 224 pixels.
CHUNK: Final = 256
# Rows of a row group, 10 MB at 1,280 dimensions.
ROW_GROUP: Final = 16 * CHUNK
# Of the offset of a picture in its file, which is less than 17 TB long.
_OFFSET_BITS: Final = 44
# The download stage decided how large a picture may be.
_ANY_SIZE: Final = 1 << 40

Item = TypeVar("Item")
Result = TypeVar("Result")


def write_embeddings(output: TaskOutput, pairs: pa.Table, model: EmbeddingModel) -> Part:
    """Write EMBEDDINGS of `pairs`, in their order; give the result to `output.write(files=...)`.

    However many rows there are, no more than a row group is in memory.

    Args:
        pairs: with at least the columns `STORED`.

    Raises:
        CorruptWorkspace: a stored picture cannot be read.
    """
    path = output.name("parquet", TABLE)
    with (
        storage.atomic_output(output.workspace.path(path)) as file,
        pq.ParquetWriter(
            file, schemas.EMBEDDINGS, compression="zstd", use_dictionary=False
        ) as writer,
    ):
        for rows in embed_part(pairs, output.workspace, model):
            writer.write_table(rows)
    return Part(path=path, rows=pairs.num_rows, bytes=file.size, sha256=file.sha256)


def read_embeddings(workspace: Workspace, part: Part) -> Iterator[Vectors]:
    """Yield the vectors of a part that `write_embeddings` wrote, some thousand rows at a time.

    Raises:
        CorruptWorkspace: the file is not what was written.
    """
    workspace.verify(part)
    path = workspace.path(part.path)
    with storage.storage_errors("read", path), storage.open_input(path) as file:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            yield as_vectors(parquet.read_row_group(group, ["embedding"]).column("embedding"))


def embed_part(pairs: pa.Table, workspace: Workspace, model: EmbeddingModel) -> Iterator[pa.Table]:
    """Yield EMBEDDINGS of `pairs`, a row group at a time; a picture of several rows is embedded once.

    The next pictures are read and decoded while the model computes.
    """
    first_row = _first_rows(pairs)
    own = first_row == np.arange(pairs.num_rows)
    shared = set(first_row[~own].tolist())
    kept: dict[int, Vectors] = {}
    places = pairs.select(STORED[1:])

    def load(start: int) -> Pixels:
        chunk = places.slice(start, CHUNK).filter(pa.array(own[start : start + CHUNK]))
        squares = [model.preparation.square(rgb) for rgb in _decoded(chunk, workspace, model.side)]
        return np.array(squares, np.uint8).reshape(-1, model.side, model.side, 3)

    starts = range(0, pairs.num_rows, CHUNK)
    group: list[Vectors] = []
    for start, squares in zip(starts, _one_ahead(load, starts), strict=True):
        fresh = model.embed_squares(squares).astype(np.float16)
        rows = np.arange(start, min(start + CHUNK, pairs.num_rows))
        vectors = np.empty((len(rows), model.dimensions), np.float16)
        vectors[own[rows]] = fresh
        kept |= {int(row): vectors[row - start].copy() for row in rows if int(row) in shared}
        for row in rows[~own[rows]]:
            vectors[row - start] = kept[int(first_row[row])]
        group.append(vectors)
        if len(group) * CHUNK == ROW_GROUP or start == starts[-1]:
            yield _table(pairs, 1 + int(rows[-1]), np.concatenate(group))
            group = []


def as_vectors(column: pa.ChunkedArray) -> Vectors:
    """Return a column of equally long lists of half floats as an array; of one chunk without a copy.

    Raises:
        ValueError: lists differ in length, or there are nulls.
    """
    lists = column.combine_chunks()
    flat: Vectors = lists.flatten().to_numpy()
    dimensions = len(flat) // max(len(lists), 1)
    lengths = np.diff(lists.offsets.to_numpy())
    if lists.null_count or (lengths != dimensions).any():
        raise ValueError("vectors differ in length")
    return flat.reshape(len(lists), dimensions)


def as_column(vectors: Vectors) -> pa.Array:
    """Return `vectors` as a column of lists of half floats."""
    count, dimensions = vectors.shape
    flat = pa.array(vectors.reshape(-1), pa.float16())
    offsets = np.arange(count + 1, dtype=np.int32) * dimensions
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _table(pairs: pa.Table, end: int, vectors: Vectors) -> pa.Table:
    pair_ids = pairs.column("pair_id").slice(end - len(vectors), len(vectors))
    return pa.table([pair_ids, as_column(vectors)], schemas.EMBEDDINGS)


def _first_rows(pairs: pa.Table) -> npt.NDArray[np.int64]:
    """Return for each row the first that shows the same stored picture."""
    names = pairs.column("image_file").combine_chunks().dictionary_encode()
    place = names.indices.to_numpy().astype(np.int64) << _OFFSET_BITS
    place |= pairs.column("image_offset").to_numpy()
    _, first, which = np.unique(place, return_index=True, return_inverse=True)
    return first[which]


def _decoded(places: pa.Table, workspace: Workspace, side: int) -> Iterator[Pixels]:
    """Yield the pictures at `places`, decoded no finer than `side` needs."""
    # Rows of a part lie in one file as a rule, and next to each other.
    opened = lru_cache(maxsize=1)(storage.open_input)
    for name, offset, length in zip(
        *(column.to_pylist() for column in places.columns), strict=True
    ):
        path = workspace.path(name)
        with storage.storage_errors("read", path):
            data = opened(path).read_at(length, offset)
        try:
            yield decode(data, max_pixels=_ANY_SIZE, short_side=side).rgb
        except ImageRefused as error:
            raise CorruptWorkspace(
                f"{path} is corrupted: at byte {offset} there is no picture, {error}; delete "
                f"{workspace.path('download')} and run `witmill download` again"
            ) from error


def _one_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the result of each of `items`, in order, while a thread works on the next."""
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        waiting = None
        for item in items:
            following = pool.submit(work, item)
            if waiting:
                yield waiting.result()
            waiting = following
        if waiting:
            yield waiting.result()
