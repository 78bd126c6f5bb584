"""Retrieval: find a picture's captions among all captions, and a caption's picture among all pictures.

N: pictures, M: captions, D: embedding, Q: queries, T: targets, P: pairs that belong together.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.intervals import clopper_pearson
from train.evaluation.features import Features, Vectors, check_finite
from train.evaluation.results import HeadResult, Row

KS = (1, 5, 10)
CONFIDENCE = 0.95

TIE = 1e-6
"""Cosines that differ by no more are equal: float32 products of unit vectors are off by some 1e-7."""

TILE = 1 << 24
"""Similarities held at once."""

Ranks = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
EmbedTexts = Callable[[Sequence[str]], Vectors]


def retrieval(
    test: Features,
    embed_texts: EmbedTexts,
    *,
    prefix: str = "",
    device: torch.device | str = "cpu",
) -> HeadResult:
    """Return recall of a set with captions, in both directions.

    Args:
        embed_texts: gives unit-length embeddings.
        prefix: put before every caption, such as "a photo of ".

    Raises:
        InputError: if no picture has a caption, or embeddings are not finite.
    """
    # An empty caption says nothing, so no picture can be found by it.
    whole = [[text for text in texts if text.strip()] for texts in test.captions]
    captions = [caption for of_picture in whole for caption in of_picture]
    owners_M = np.repeat(np.arange(len(test.items)), [len(texts) for texts in whole])
    if not captions:
        raise InputError(f"retrieval on {test.evalset}: no picture has a caption, expected some")
    texts_MD = embed_texts([prefix + caption for caption in captions])
    rows = recalls(test.unit_ND, texts_MD, owners_M, device=device)
    notes: dict[str, object] = {
        "captions": len(captions),
        "pictures_without_caption": sum(not texts for texts in whole),
        "prefix": prefix,
    }
    return HeadResult(rows=rows, notes=notes)


def recalls(
    images_ND: Vectors,
    texts_MD: Vectors,
    owners_M: Indices,
    ks: Sequence[int] = KS,
    *,
    device: torch.device | str = "cpu",
    tile: int = TILE,
) -> list[Row]:
    """Return the share of queries one of whose own is among the `k` most similar, for each direction and k.

    Ties count against the model: of equal similarities, the query's own come last. A picture without
    captions is no query, but one more picture that captions may be mistaken for.

    Args:
        images_ND, texts_MD: unit-length embeddings.
        owners_M: row of the picture that each caption is of.

    Raises:
        InputError: if embeddings are not finite.
    """
    for what, vectors in (("pictures", images_ND), ("captions", texts_MD)):
        check_finite(f"retrieval, {what}", vectors)
    by_picture = np.argsort(owners_M, kind="stable")
    captioned, counts = np.unique(owners_M, return_counts=True)
    image_ranks = own_ranks(
        images_ND, texts_MD, owners_M[by_picture], by_picture, device=device, tile=tile
    )[captioned]
    text_ranks = own_ranks(
        texts_MD, images_ND, np.arange(len(texts_MD)), owners_M, device=device, tile=tile
    )
    pictures, texts = len(images_ND), len(texts_MD)
    return [
        *(_image_row(k, image_ranks <= k, counts, texts) for k in ks),
        *(_text_row(k, text_ranks <= k, owners_M, counts, pictures) for k in ks),
    ]


def _image_row(
    k: int, hits_N: npt.NDArray[np.bool_], counts_N: npt.NDArray[np.int64], texts: int
) -> Row:
    low, high = clopper_pearson(int(hits_N.sum()), len(hits_N), CONFIDENCE)
    return Row(
        variant="image_to_text",
        metric=f"recall{k}",
        value=float(hits_N.mean()),
        low=low,
        high=high,
        chance=_chance(texts, counts_N, k),
        images=len(hits_N),
        classes=texts,
    )


def _text_row(
    k: int,
    hits_M: npt.NDArray[np.bool_],
    owners_M: Indices,
    counts_N: npt.NDArray[np.int64],
    pictures: int,
) -> Row:
    of_picture = np.bincount(owners_M[hits_M], minlength=pictures)[np.unique(owners_M)]
    low, high = clustered_interval(of_picture, counts_N)
    return Row(
        variant="text_to_image",
        metric=f"recall{k}",
        value=float(hits_M.mean()),
        low=low,
        high=high,
        chance=min(k, pictures) / pictures,
        images=len(counts_N),
        classes=pictures,
    )


@torch.inference_mode()
def own_ranks(
    queries_QD: Vectors,
    targets_TD: Vectors,
    query_P: Indices,
    target_P: Indices,
    *,
    device: torch.device | str = "cpu",
    tile: int = TILE,
) -> Ranks:
    """Return the rank, from 1, of each query's most similar own target; queries without one get 0.

    The rank is one more than the number of others' targets that are as similar or more.

    Args:
        query_P, target_P: rows that belong together, in order of query.
        tile: similarities computed at once; memory is about ten bytes each.
    """
    queries, targets_DT = torch.from_numpy(queries_QD), torch.from_numpy(targets_TD).to(device).T
    ranks = np.zeros(len(queries_QD), np.int64)
    height = max(1, tile // max(1, len(targets_TD)))
    for first in range(0, len(queries_QD), height):
        last = min(first + height, len(queries_QD))
        start, end = np.searchsorted(query_P, [first, last])
        if start == end:
            continue
        of_query = torch.from_numpy(query_P[start:end] - first).to(device)
        own = torch.from_numpy(target_P[start:end]).to(device)
        similarity_QT = queries[first:last].to(device) @ targets_DT
        ranks[first:last] = _ranks_of_tile(similarity_QT, of_query, own).cpu().numpy()
    return ranks


def _ranks_of_tile(similarity_QT: Tensor, query_P: Tensor, target_P: Tensor) -> Tensor:
    own_P = similarity_QT[query_P, target_P]
    best_Q = similarity_QT.new_full((len(similarity_QT),), torch.inf)
    best_Q.scatter_reduce_(0, query_P, own_P, "amax", include_self=False)
    least_Q = best_Q - TIE
    as_similar_Q = (similarity_QT >= least_Q[:, None]).sum(dim=1)
    own_Q = torch.zeros_like(as_similar_Q)
    own_Q.index_add_(0, query_P, (own_P >= least_Q[query_P]).to(own_Q.dtype))
    has_own_Q = torch.zeros_like(as_similar_Q).index_fill_(0, query_P, 1)
    return (as_similar_Q - own_Q + 1) * has_own_Q


def _chance(texts: int, counts: npt.NDArray[np.int64], k: int) -> float:
    """Return how often `k` of all captions at random hold one of a picture's own, averaged over pictures."""
    missed = np.ones(len(counts))
    for drawn in range(min(k, texts)):
        missed *= np.maximum(texts - counts - drawn, 0) / (texts - drawn)
    return float(1 - missed.mean())


def clustered_interval(
    hits: npt.NDArray[np.int64], trials: npt.NDArray[np.int64], confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Return the interval of a share whose trials come in clusters, such as the captions of a picture.

    It is Korn and Graubard's: Clopper and Pearson's, for as many independent trials as have the
    variance that is seen between clusters. None for a single cluster.

    Args:
        hits, trials: of each cluster.
    """
    from scipy.stats import beta, t

    clusters, total = len(trials), int(trials.sum())
    if clusters < 2:
        return None, None
    tail = (1 - confidence) / 2
    share = float(hits.sum() / total)
    variance = clusters / (clusters - 1) * float(((hits - share * trials) ** 2).sum()) / total**2
    # Without variance, all or none hit: no more is known than that clusters are independent.
    effective = share * (1 - share) / variance if variance else clusters
    effective *= float(t.ppf(tail, total - 1) / t.ppf(tail, clusters - 1)) ** 2 if variance else 1
    effective = min(effective, total)
    found = share * effective
    low = float(beta.ppf(tail, found, effective - found + 1)) if found > 0 else 0.0
    high = float(beta.ppf(1 - tail, found + 1, effective - found)) if found < effective else 1.0
    return low, high
