from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planted_overlap import Picture, pair_id_of, write_download
from dedup import alike, clusters
from dedup.alike import Alike, find_preferred, keep_apart, with_vectors
from dedup.deduplicate import DedupConfig, run
from dedup.embedding import vectors
from dedup.exact import PICTURES
from pipeline import schemas
from pipeline.errors import ConfigError
from pipeline.runtime.executor import Executor, InlineExecutor
from pipeline.runtime.workspace import Workspace
from tests.dedup.embedding.test_embedding_models import save_script
from tests.dedup.pictures import Patches, Pixels, png
from tests.dedup.test_deduplicate import evaluation, kept, read
from tests.dedup.test_perceptual import as_bytes, crowd
from tests.reference import neighbours

SIMILAR = 0.9
Vectors = npt.NDArray[np.float16]


def some_pictures(count: int, seed: int) -> tuple[pa.Table, Vectors]:
    """Return pictures by preference, with hashes and vectors that each lie near a few of their own."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(1 + count // 5, 16))
    raw = middle[rng.integers(len(middle), size=count)] + 0.15 * rng.normal(size=(count, 16))
    vectors = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float16)
    rows = [
        {
            "place": i,
            "pair_id": f"{i:04d}",
            "is_earlier": 0,
            "area": 1,
            "caption_fit": 1,
            "pdq": hashed,
        }
        for i, hashed in enumerate(as_bytes(crowd(count, 1 + count // 5, 25, seed)))
    ]
    return with_vectors(pa.Table.from_pylist(rows, PICTURES), vectors), vectors


def is_alike(pictures: pa.Table, vectors: Vectors, by: Alike, i: int, j: int) -> tuple[str, float]:
    """Return the method by which two pictures are the same, if any, and how far they are apart."""
    bits = neighbours.distance(pictures["pdq"][i].as_py(), pictures["pdq"][j].as_py())
    cosine = float(vectors[i].astype(np.float64) @ vectors[j].astype(np.float64))
    is_sure = by.confirm_similarity is None or cosine >= by.confirm_similarity
    if bits <= by.max_distance and is_sure:
        return "near_duplicate", bits
    if by.min_similarity is not None and cosine >= by.min_similarity:
        return "similar", max(1 - cosine, 0)
    return "", 0


@settings(max_examples=20)
@given(
    seed=st.integers(0, 99),
    few=st.sampled_from([1, 7, 100]),
    min_similarity=st.sampled_from([None, SIMILAR]),
    confirm_similarity=st.sampled_from([None, 0.0, SIMILAR]),
)
def test_a_picture_is_dropped_for_the_first_that_stays_and_is_the_same(
    seed: int, few: int, min_similarity: float | None, confirm_similarity: float | None
) -> None:
    by = Alike(
        max_distance=31, min_similarity=min_similarity, confirm_similarity=confirm_similarity
    )
    pictures, embedded = some_pictures(40, seed)
    expected: dict[int, tuple[int, str, float]] = {}
    for i in range(40):
        for j in range(i):
            method, distance = is_alike(pictures, embedded, by, i, j)
            if j not in expected and method:
                expected[i] = (j, method, distance)
                break
    shuffled = pictures.take(pa.array(np.random.default_rng(seed).permutation(40)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "FEW", few)
        stays, links = keep_apart(shuffled, by)
    assert stays["place"].to_pylist() == [i for i in range(40) if i not in expected]
    found = {r["place"]: (r["target"], r["method"], r["distance"]) for r in links.to_pylist()}
    named = {i: (j, alike.METHODS.index(m), pytest.approx(d)) for i, (j, m, d) in expected.items()}
    assert found == named


def test_the_first_that_is_the_same_is_found_in_whatever_pieces_pairs_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by = Alike(max_distance=0, min_similarity=SIMILAR)
    pictures, _ = some_pictures(60, 3)
    expected = find_preferred(pictures.slice(30), pictures.slice(0, 30), by)
    assert expected.num_rows == 30
    monkeypatch.setattr(vectors, "QUERY_BLOCK", 7)
    monkeypatch.setattr(vectors, "TARGET_BLOCK", 2)
    assert find_preferred(pictures.slice(30), pictures.slice(0, 30), by).equals(expected)


def test_blocks_of_vectors_change_nothing() -> None:
    by = Alike(max_distance=31, min_similarity=SIMILAR)
    pictures, _ = some_pictures(60, 3)
    former, latter = pictures.slice(0, 25), pictures.slice(25)
    stays, links = keep_apart(former, by)
    earlier = find_preferred(latter, stays, by)
    more, rest = clusters.thin_table(latter, earlier, by)
    whole, all_links = keep_apart(pictures, by)
    assert pa.concat_tables([stays, more]).equals(whole)
    assert pa.concat_tables([links, rest]).sort_by("place").equals(all_links.sort_by("place"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a TorchScript file of a model that sees colours and no detail."""
    pytest.importorskip("faiss", reason="embeddings are an extra")
    path = tmp_path_factory.mktemp("model") / "patches.pt"
    save_script(path, Patches())
    path.with_name("patches.pt.toml").write_text("side = 64\n", encoding="utf-8")
    return str(path)


def checked(colours: int, detail: int) -> Pixels:
    """Return a picture of four by four colours under detail that PDQ goes by and the model does not."""
    base = np.random.default_rng(colours).integers(60, 196, (4, 4, 3))
    noise = np.random.default_rng(1000 + detail).choice([-50, 50], (4, 4, 2, 4, 1))
    # Above and below in each colour, so that its mean stays.
    noise = np.concatenate([noise, -noise], axis=2).transpose(0, 2, 1, 3, 4).reshape(16, 16, 1)
    small = np.kron(base, np.ones((4, 4, 1), np.int64)) + noise
    return np.kron(small, np.ones((8, 8, 1), np.int64)).clip(0, 255).astype(np.uint8)


def show(workspace: Workspace, **pictures: Pixels) -> None:
    shown = [Picture(name=name, data=png(rgb)) for name, rgb in pictures.items()]
    write_download(workspace, shown, len(shown))


def names(workspace: Workspace, of: dict[str, Pixels]) -> set[str]:
    by_id = {pair_id_of(Picture(name=name, data=b"")): name for name in of}
    return {by_id[i] for i in kept(workspace)}


def test_embeddings_find_what_pdq_does_not(
    workspace: Workspace, model: str, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {"one": checked(1, 1), "again": checked(1, 2), "other": checked(2, 3)}
    show(workspace, **pictures)
    run(DedupConfig(embeddings=model), workspace, InlineExecutor())
    assert names(workspace, pictures) == set(pictures)
    monkeypatch.setattr(clusters, "VECTOR_BLOCK_ROWS", 2)
    run(DedupConfig(embeddings=model, min_similarity=0.99), workspace, executor)
    (row,) = read(workspace, "duplicates", schemas.DUPLICATES)
    assert (row["method"], len(kept(workspace))) == ("similar", 2)
    assert 0 < float(str(row["distance"])) <= 0.01
    assert workspace.read_table("dedup", "embeddings", schemas.EMBEDDINGS).num_rows == 3


def test_embeddings_confirm_what_pdq_says(workspace: Workspace, model: str) -> None:
    # The same brightness everywhere, and so the same hash, in other colours.
    red, blue = checked(1, 1), checked(1, 1)
    red[:, :, 0], blue[:, :, 2] = 255, 255
    pictures = {"red": red, "blue": blue, "red again": np.ascontiguousarray(red[:-2, :-2])}
    show(workspace, **pictures)
    run(DedupConfig(max_distance=63), workspace, InlineExecutor())
    assert len(kept(workspace)) == 1
    config = DedupConfig(max_distance=63, embeddings=model, confirm_similarity=0.99)
    run(config, workspace, InlineExecutor())
    assert names(workspace, pictures) == {"red", "blue"}


def test_embeddings_find_evaluation_pictures_where_a_set_asks_for_it(
    workspace: Workspace, model: str, tmp_path: Path
) -> None:
    show(workspace, one=checked(1, 1), other=checked(2, 3))
    toml = evaluation(tmp_path, png(checked(1, 2)))
    assert (
        run(DedupConfig(evalsets=toml, embeddings=model), workspace, InlineExecutor()).rows_out == 2
    )
    with Path(toml).open("a", encoding="utf-8") as file:
        file.write("min_similarity = 0.99\n")
    run(DedupConfig(evalsets=toml, embeddings=model), workspace, InlineExecutor())
    (row,) = read(workspace, "eval_overlaps", schemas.EVAL_OVERLAPS)
    assert (row["evalset"], row["method"]) == ("scenes", "embedding")


def test_a_set_that_asks_for_embeddings_without_a_model_is_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    show(workspace, one=checked(1, 1))
    toml = evaluation(tmp_path, png(checked(1, 2)))
    with Path(toml).open("a", encoding="utf-8") as file:
        file.write("min_similarity = 0.99\n")
    with pytest.raises(ConfigError, match="sets min_similarity for scenes, which compares embed"):
        run(DedupConfig(evalsets=toml), workspace, InlineExecutor())


def test_similarities_without_a_model_are_refused() -> None:
    for name in ("min_similarity", "confirm_similarity"):
        with pytest.raises(ConfigError, match=r"set dedup\.embeddings"):
            DedupConfig(**{name: 0.9})  # type: ignore[arg-type]
