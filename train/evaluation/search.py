"""Find the pictures of a corpus that are nearest to a text or to another picture.

N: pictures of a shard, D: embedding, K: hits.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.errors import InputError
from pipeline.pictures.images import ImageRefused, Pixels, decode
from pipeline.runtime import storage
from pipeline.runtime.manifest import digest
from pipeline.runtime.progress import Progress
from pipeline.shards.corpus import Corpus, Shard, read_stats
from pipeline.shards.verify import read_index
from train.evaluation.embedder import identity_of
from train.evaluation.features import check_finite
from train.models.clip import Clip
from train.samples.augment import CENTRE, square_crop
from train.samples.tokenizer import tokenize

Vector = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float16]

BLOCK_ROWS = 65_536
SHOWN = ("key", "pair_id", "caption", "url")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A picture of the corpus; `similarity` is the cosine, `shard` the tar that holds it."""

    similarity: float
    shard: str
    key: str
    pair_id: str
    caption: str
    url: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class _Place:
    similarity: float
    shard: int
    row: int


def embed_corpus(
    model: Clip,
    corpus: Corpus,
    folder: str,
    *,
    device: torch.device,
    batch_size: int = 256,
    readers: int = 4,
) -> list[str]:
    """Embed every picture of the corpus, and return the file of vectors of each shard, in order.

    Each file, `.npy`, holds float16 [N, D] of unit length in the order of the shard's index; not-a-number
    for pictures that cannot be decoded. Files that are there already are kept, so a run that was cut off
    goes on, and of a corpus that grew only what is new is embedded. Takes 2 D bytes a picture: 1 GB per
    million at 512 numbers.

    Raises:
        InputError: if what the model makes of a picture is not finite.
    """
    key = digest(identity_of(model))[:16]
    paths = [
        storage.join(folder, key, f"{_shard_key(corpus, shard)}.npy") for shard in corpus.shards
    ]
    missing = [i for i, path in enumerate(paths) if not storage.exists(path)]
    if missing:
        with Progress("search", len(missing), unit="shards") as progress:
            for i in missing:
                vectors_ND = _embed_shard(model, corpus.shards[i], device, batch_size, readers)
                file = io.BytesIO()
                np.save(file, vectors_ND)
                storage.write_bytes(paths[i], file.getvalue())
                broken = int(np.isnan(vectors_ND[:, :1]).sum())
                progress.advance(rows=len(vectors_ND), drops=broken)
    return paths


@torch.inference_mode()
def text_vector(model: Clip, text: str) -> Vector:
    """Return the embedding of a text, [D], of unit length.

    Raises:
        InputError: if the model makes no finite numbers of it.
    """
    tokens = torch.from_numpy(tokenize([text], model.spec.text.context))
    return _one("the text", model.encode_text(tokens.to(model.logit_scale.device)))


@torch.inference_mode()
def image_vector(model: Clip, data: bytes, name: str) -> Vector:
    """Return the embedding of a picture's centre square, [D], of unit length.

    Raises:
        InputError: if it cannot be decoded, or the model makes no finite numbers of it.
    """
    try:
        rgb = decode(data, short_side=model.spec.resolution).rgb
    except ImageRefused as refusal:
        raise InputError(f"{name} cannot be decoded: {refusal}") from refusal
    pixels = torch.from_numpy(square_crop(rgb, model.spec.resolution, CENTRE)[None])
    return _one(name, model.encode_image(pixels.to(model.logit_scale.device)))


def search(corpus: Corpus, vectors: Sequence[str], query_D: Vector, *, most: int) -> list[Hit]:
    """Return the `most` pictures with the highest cosine, the highest first; equal ones as they lie.

    Exact: every vector is read, a block at a time.

    Args:
        vectors: what `embed_corpus` returned.

    Raises:
        InputError: if a file of vectors is not whole.
    """
    best: list[_Place] = []
    for number, path in enumerate(vectors):
        best = _merged(best, _nearest(path, query_D, number, most), most)
    rows: dict[int, list[dict[str, Any]]] = {
        number: read_index(corpus.shards[number]).select([*SHOWN, "image_offset", "image_length"])
        .take(pa.array([p.row for p in best if p.shard == number])).to_pylist()
        for number in sorted({place.shard for place in best})
    }  # fmt: skip
    found = {number: iter(of_shard) for number, of_shard in rows.items()}
    return [_hit(corpus.shards[place.shard], place, next(found[place.shard])) for place in best]


def _hit(shard: Shard, place: _Place, row: dict[str, Any]) -> Hit:
    data = storage.read_range(shard.tar, row.pop("image_offset"), row.pop("image_length"))
    return Hit(similarity=place.similarity, shard=shard.tar, data=data, **row)


def _nearest(path: str, query_D: Vector, shard: int, most: int) -> list[_Place]:
    best: list[_Place] = []
    with storage.local_copy(path) as copy:
        try:
            vectors_ND: Vectors = np.load(copy, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise InputError(
                f"{path} is no file of vectors; delete it, and it is made anew"
            ) from error
        for start in range(0, len(vectors_ND), BLOCK_ROWS):
            cosines = vectors_ND[start : start + BLOCK_ROWS].astype(np.float32) @ query_D
            cosines[np.isnan(cosines)] = -np.inf
            order = np.argsort(-cosines, kind="stable")[:most]
            places = [
                _Place(similarity=float(cosines[row]), shard=shard, row=start + int(row))
                for row in order
                if np.isfinite(cosines[row])
            ]
            best = _merged(best, places, most)
    return best


def _merged(left: list[_Place], right: list[_Place], most: int) -> list[_Place]:
    return sorted(left + right, key=lambda p: (-p.similarity, p.shard, p.row))[:most]


@torch.inference_mode()
def _embed_shard(
    model: Clip, shard: Shard, device: torch.device, batch_size: int, readers: int
) -> Vectors:
    index = read_index(shard).select(["image_offset", "image_length"])
    vectors_ND = np.full((len(index), model.spec.embed), np.nan, np.float16)
    for rows, squares_B3SS in _squares(shard, index, model.spec.resolution, batch_size, readers):
        pixels = torch.from_numpy(squares_B3SS).to(device)
        found_BD = _numbers(model.encode_image(pixels))
        check_finite(f"pictures of {shard.tar}", found_BD)
        vectors_ND[rows] = found_BD
    return vectors_ND


def _squares(
    shard: Shard, index: pa.Table, resolution: int, batch_size: int, readers: int
) -> Iterator[tuple[list[int], Pixels]]:
    """Yield rows of the index and the centre squares of their pictures, decoded one batch ahead."""
    places = list(zip(*(column.to_pylist() for column in index.columns), strict=True))
    with (
        storage.storage_errors("read", shard.tar),
        storage.open_input(shard.tar) as tar,
        ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool,
    ):

        def load(place: tuple[int, int]) -> Pixels | None:
            offset, length = place
            try:
                rgb = decode(tar.read_at(length, offset), short_side=resolution).rgb
            except ImageRefused:
                return None
            return square_crop(rgb, resolution, CENTRE)

        batches = [
            places[first : first + batch_size] for first in range(0, len(places), batch_size)
        ]
        ahead = [pool.map(load, batch) for batch in batches[:1]]
        for number in range(len(batches)):
            ahead += [pool.map(load, batch) for batch in batches[number + 1 : number + 2]]
            loaded = list(ahead.pop(0))
            whole = [i for i, square in enumerate(loaded) if square is not None]
            if whole:
                squares = np.stack([square for square in loaded if square is not None])
                yield [number * batch_size + i for i in whole], squares


def _one(what: str, vectors: torch.Tensor) -> Vector:
    numbers_1D = _numbers(vectors)
    check_finite(what, numbers_1D)
    vector: Vector = numbers_1D[0]
    return vector


def _numbers(vectors: torch.Tensor) -> Vector:
    return np.asarray(vectors.float().cpu())


def _shard_key(corpus: Corpus, shard: Shard) -> str:
    stem = shard.tar.rpartition("/")[2].removesuffix(".tar")
    tar = shard.files.get(shard.tar) or read_stats(shard)
    known = tar.sha256 if tar else f"{storage.size(shard.tar)} {corpus.content}"
    return f"{stem}-{hashlib.sha256(known.encode()).hexdigest()[:16]}"
