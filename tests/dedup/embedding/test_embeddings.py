import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dedup.embedding import embeddings
from dedup.embedding.embedding_models import EmbeddingModel, Preparation
from dedup.embedding.embeddings import (
    STORED,
    TABLE,
    as_column,
    as_vectors,
    embed_part,
    read_embeddings,
    write_embeddings,
)
from dedup.embedding.networks import Floats, Network
from pipeline import schemas
from pipeline.errors import CorruptWorkspace
from pipeline.pictures.tar import TarWriter
from pipeline.runtime import storage
from pipeline.runtime.stage import TaskOutput
from pipeline.runtime.workspace import Workspace
from tests.dedup.pictures import Pixels, png, scenes


def patches(pictures: Floats) -> Floats:
    count, channels, side, _ = pictures.shape
    grid = pictures.reshape(count, channels, 4, side // 4, 4, side // 4)
    return np.asarray(grid.mean((3, 5)).reshape(count, -1), np.float32)


@pytest.fixture
def model() -> EmbeddingModel:
    return EmbeddingModel(
        name="patches",
        dimensions=48,
        preparation=Preparation(side=32),
        fingerprint="",
        network=Network(compute=patches, batch=4),
    )


def store(workspace: Workspace, pictures: Sequence[Pixels], rows: Sequence[int]) -> pa.Table:
    """Put pictures into two tars; return pairs of which row i shows picture rows[i]."""
    places = []
    for half in (0, 1):
        name = f"download/images/{half:05d}.tar"
        with storage.atomic_output(workspace.path(name)) as file, TarWriter(file) as tar:
            for i, rgb in enumerate(pictures):
                if i % 2 == half:
                    places.append((i, name, *tar.add(f"{i}.png", png(rgb))))
    place = {i: where for i, *where in places}
    columns = [
        [f"{i:032x}" for i in range(len(rows))],
        *zip(*(place[i] for i in rows), strict=True),
    ]
    types = [schemas.DOWNLOADED.field(name).type for name in STORED]
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], STORED)


def output_of(workspace: Workspace) -> TaskOutput:
    return TaskOutput(workspace=workspace, stage="dedup", index=3)


def test_every_row_gets_the_vector_of_its_picture(
    workspace: Workspace, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK", 3)
    monkeypatch.setattr(embeddings, "ROW_GROUP", 6)
    pictures = scenes(7)
    rows = [0, 1, 2, 3, 3, 0, 4, 5, 0, 6, 6, 1, 2]
    pairs = store(workspace, pictures, rows)
    tables = list(embed_part(pairs, workspace, model))
    assert [table.num_rows for table in tables] == [6, 6, 1]
    whole = pa.concat_tables(tables)
    assert whole.schema == schemas.EMBEDDINGS
    assert whole.column("pair_id").equals(pairs.column("pair_id"))
    expected = model.embed([pictures[i] for i in rows])
    assert np.array_equal(as_vectors(whole.column("embedding")), expected)


def test_a_picture_of_several_pairs_is_embedded_once(
    workspace: Workspace, model: EmbeddingModel
) -> None:
    seen = []

    def counting(pictures: Floats) -> Floats:
        seen.append(len({picture.tobytes() for picture in pictures if picture.any()}))
        return patches(pictures)

    watched = replace(model, network=replace(model.network, compute=counting))
    pairs = store(workspace, scenes(3), [0, 1, 0, 2, 2, 0])
    list(embed_part(pairs, workspace, watched))
    assert sum(seen) == 3


def test_what_is_written_is_read_again_and_the_same_bytes_every_time(
    workspace: Workspace, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = store(workspace, scenes(9), list(range(9)))
    part = write_embeddings(output_of(workspace), pairs, model)
    assert (part.path, part.rows) == (f"dedup/{TABLE}/00003.parquet", 9)
    content = storage.read_bytes(workspace.path(part.path))
    assert hashlib.sha256(content).hexdigest() == part.sha256
    read = np.concatenate(list(read_embeddings(workspace, part)))
    assert np.array_equal(read, model.embed(scenes(9)))
    assert workspace.read(part, schemas.EMBEDDINGS).num_rows == 9
    # Neither what was decoded together nor what was embedded together shows.
    monkeypatch.setattr(embeddings, "CHUNK", 2)
    other = replace(model, network=replace(model.network, batch=5))
    assert write_embeddings(output_of(workspace), pairs, other) == part


def test_sql_reads_the_vectors(workspace: Workspace, model: EmbeddingModel) -> None:
    part = write_embeddings(output_of(workspace), store(workspace, scenes(2), [0, 1]), model)
    query = f"SELECT list_cosine_similarity(embedding::FLOAT[], embedding::FLOAT[]) FROM '{workspace.path(part.path)}'"
    with duckdb.connect() as connection:
        assert connection.sql(query).fetchall() == [(pytest.approx(1),)] * 2


def test_a_part_without_rows_has_an_empty_file(workspace: Workspace, model: EmbeddingModel) -> None:
    part = write_embeddings(output_of(workspace), store(workspace, scenes(1), [0])[:0], model)
    assert part.rows == 0
    assert list(read_embeddings(workspace, part)) == []


def test_a_stored_picture_that_is_none_is_named(
    workspace: Workspace, model: EmbeddingModel
) -> None:
    pairs = store(workspace, scenes(2), [0, 1])
    path = Path(workspace.path("download/images/00001.tar"))
    content = bytearray(path.read_bytes())
    content[512:520] = b"not one!"
    path.write_bytes(content)
    with pytest.raises(CorruptWorkspace, match=r"00001\.tar is corrupted: at byte 512"):
        list(embed_part(pairs, workspace, model))


def test_vectors_that_were_changed_are_noticed(workspace: Workspace, model: EmbeddingModel) -> None:
    part = write_embeddings(output_of(workspace), store(workspace, scenes(2), [0, 1]), model)
    path = Path(workspace.path(part.path))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptWorkspace, match="sha256 differs"):
        list(read_embeddings(workspace, part))


def test_columns_and_arrays_are_the_same_numbers() -> None:
    vectors = np.random.default_rng(0).standard_normal((11, 5)).astype(np.float16)
    column = as_column(vectors)
    chunked = pa.chunked_array([column.slice(2, 3), column.slice(5, 0), column.slice(7)])
    assert np.array_equal(as_vectors(chunked), np.concatenate([vectors[2:5], vectors[7:]]))
    assert as_vectors(pa.chunked_array([], column.type)).shape == (0, 0)


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [1.0]], [[1.0], None, [1.0, 2.0]], [[1.0], None]])
def test_vectors_of_different_length_are_no_array(rows: list[list[float] | None]) -> None:
    with pytest.raises(ValueError, match="differ in length"):
        as_vectors(pa.chunked_array([pa.array(rows, pa.list_(pa.float16()))]))


def test_row_groups_stay_small(
    workspace: Workspace, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK", 2)
    monkeypatch.setattr(embeddings, "ROW_GROUP", 4)
    part = write_embeddings(
        output_of(workspace), store(workspace, scenes(9), list(range(9))), model
    )
    metadata = pq.read_metadata(workspace.path(part.path))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 1]
