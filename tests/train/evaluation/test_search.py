from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.errors import InputError
from pipeline.pictures.images import decode
from pipeline.shards.corpus import Corpus, open_corpus
from tests.train.shards import Pair, coloured_pairs, write_shard
from tests.train.small_models import VIT, build
from train.evaluation import search as searching
from train.evaluation.search import embed_corpus, image_vector, search, text_vector
from train.models.clip import Clip
from train.samples.augment import CENTRE, square_crop

CPU = torch.device("cpu")
PAIRS = coloured_pairs(40)


@pytest.fixture(scope="module")
def model() -> Clip:
    return build(VIT).eval()


def packed(folder: Path, pairs: Sequence[Pair]) -> Corpus:
    for number, start in enumerate(range(0, len(pairs), 16)):
        tar = folder / f"{number:05d}.tar"
        pq.write_table(
            write_shard(tar, tar.name, pairs[start : start + 16], start),
            tar.with_suffix(".parquet"),
        )
    return open_corpus(str(folder))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return packed(tmp_path / "shards", PAIRS)


@torch.inference_mode()
def cosines(model: Clip, query: np.ndarray) -> list[tuple[float, str]]:
    """Compare with one picture after the other, in float64."""
    found = []
    for data, caption in PAIRS:
        square = square_crop(decode(data).rgb, VIT.resolution, CENTRE)
        vector = model.encode_image(torch.from_numpy(square[None]))[0].double().numpy()
        found.append((float(vector @ query.astype(np.float64)), caption))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("batch_size", [3, 16, 64])
def test_the_nearest_are_those_of_a_loop(
    model: Clip, corpus: Corpus, tmp_path: Path, batch_size: int
) -> None:
    query = text_vector(model, "a picture painted red")
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU, batch_size=batch_size)
    found = search(corpus, files, query, most=7)
    expected = cosines(model, query)[:7]
    assert [hit.similarity for hit in found] == pytest.approx([c for c, _ in expected], abs=2e-3)
    exact = dict((caption, cosine) for cosine, caption in cosines(model, query))
    assert [exact[hit.caption] for hit in found] == pytest.approx(
        [c for c, _ in expected], abs=2e-3
    )


def test_a_picture_of_the_corpus_finds_itself_first(
    model: Clip, corpus: Corpus, tmp_path: Path
) -> None:
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU)
    for data, caption in PAIRS[::9]:
        best = search(corpus, files, image_vector(model, data, "x"), most=1)[0]
        assert (best.caption, best.data) == (caption, data)
        assert best.similarity == pytest.approx(1, abs=2e-3)


def test_more_than_there_are_gives_all_once(model: Clip, corpus: Corpus, tmp_path: Path) -> None:
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU)
    found = search(corpus, files, text_vector(model, "x"), most=1000)
    assert sorted(hit.caption for hit in found) == sorted(caption for _, caption in PAIRS)
    assert [hit.similarity for hit in found] == sorted((h.similarity for h in found), reverse=True)


def test_blocks_make_no_difference(
    model: Clip, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU)
    query = text_vector(model, "blue")
    whole = search(corpus, files, query, most=9)
    monkeypatch.setattr(searching, "BLOCK_ROWS", 3)
    assert [h.key for h in search(corpus, files, query, most=9)] == [h.key for h in whole]


def test_a_run_that_was_cut_off_embeds_what_is_missing_alone(
    model: Clip, corpus: Corpus, tmp_path: Path
) -> None:
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU)
    kept = Path(files[0]).stat().st_mtime_ns
    Path(files[1]).unlink()
    assert embed_corpus(model, corpus, str(tmp_path), device=CPU) == files
    assert Path(files[1]).exists()
    assert Path(files[0]).stat().st_mtime_ns == kept


def test_another_model_has_vectors_of_its_own(model: Clip, corpus: Corpus, tmp_path: Path) -> None:
    other = build(VIT, seed=1).eval()
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU)
    assert set(embed_corpus(other, corpus, str(tmp_path), device=CPU)).isdisjoint(files)


def test_a_broken_picture_is_never_found(model: Clip, tmp_path: Path) -> None:
    pairs = [*PAIRS[:5], (b"no picture", "broken"), *PAIRS[5:8]]
    corpus = packed(tmp_path / "shards", pairs)
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU)
    found = search(corpus, files, text_vector(model, "x"), most=100)
    assert len(found) == 8
    assert "broken" not in {hit.caption for hit in found}


def test_a_file_of_vectors_that_is_cut_off_is_one_line(
    model: Clip, corpus: Corpus, tmp_path: Path
) -> None:
    files = embed_corpus(model, corpus, str(tmp_path), device=CPU)
    Path(files[0]).write_bytes(Path(files[0]).read_bytes()[:200])
    with pytest.raises(InputError, match="is no file of vectors; delete it"):
        search(corpus, files, text_vector(model, "x"), most=1)


def test_a_query_that_is_no_picture_is_one_line(model: Clip) -> None:
    with pytest.raises(InputError, match=r"photo\.jpg cannot be decoded"):
        image_vector(model, b"nothing", "photo.jpg")


def test_weights_that_are_not_numbers_are_one_line(corpus: Corpus, tmp_path: Path) -> None:
    broken = build(VIT)
    with torch.no_grad():
        for name in ("visual.proj", "text_projection"):
            broken.state_dict()[name].fill_(torch.nan)
    with pytest.raises(InputError, match="the text: the model gives numbers that are not finite"):
        text_vector(broken, "red")
    with pytest.raises(InputError, match=r"red\.png: the model gives"):
        image_vector(broken, PAIRS[0][0], "red.png")
    with pytest.raises(InputError, match=r"00000\.tar: the model gives .* 16 of 16"):
        embed_corpus(broken, corpus, str(tmp_path / "vectors"), device=CPU)
    assert not list(tmp_path.rglob("*.npy"))
