from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.intervals import clopper_pearson
from tests.reference.retrieval import recall
from tests.train.evaluation.clusters import features_from
from train.evaluation.features import Vectors
from train.evaluation.retrieval import clustered_interval, own_ranks, recalls, retrieval

pytest.importorskip("scipy", reason="heads need scikit-learn, and it scipy")

# Of unit length and with products that are exact, so that there are real ties.
CORNERS = st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4)


def unit(vectors: object) -> Vectors:
    array = np.asarray(vectors, np.float32)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


@given(st.data())
def test_recall_is_that_of_two_loops_ties_and_all(data: st.DataObject) -> None:
    images = data.draw(st.lists(CORNERS, min_size=1, max_size=8))
    texts = data.draw(st.lists(CORNERS, min_size=1, max_size=20))
    pictures = st.integers(0, len(images) - 1)
    owners = data.draw(st.lists(pictures, min_size=len(texts), max_size=len(texts)))
    tile = data.draw(st.sampled_from([1, 7, 1 << 20]))
    ks = (1, 2, 5)
    rows = recalls(np.float32(images), np.float32(texts), np.array(owners), ks, tile=tile)
    of_images = [{t for t, o in enumerate(owners) if o == i} for i in range(len(images))]
    expected = [recall(images, texts, of_images, k) for k in ks]
    expected += [recall(texts, images, [{o} for o in owners], k) for k in ks]
    assert [row["value"] for row in rows] == pytest.approx(expected)
    assert [row["metric"] for row in rows] == ["recall1", "recall2", "recall5"] * 2
    assert [row["variant"] for row in rows] == ["image_to_text"] * 3 + ["text_to_image"] * 3
    assert {row["images"] for row in rows} == {len(set(owners))}


@given(st.integers(0, 50), st.sampled_from([1, 100, 1 << 20]))
def test_tiles_make_no_difference_to_random_vectors(seed: int, tile: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = unit(rng.normal(size=(40, 8))), unit(rng.normal(size=(120, 8)))
    owners = np.repeat(np.arange(40), 3)
    ranks = own_ranks(texts, images, np.arange(120), owners, tile=tile)
    products = texts @ images.T
    np.testing.assert_array_equal(
        ranks, [(row >= row[own] - 1e-6).sum() for row, own in zip(products, owners, strict=True)]
    )


def test_recall_is_scikit_learns_top_k_where_nothing_ties() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(60, 8)))
    texts = unit(images + rng.normal(scale=0.6, size=(60, 8)))
    order = rng.permutation(60)
    rows = recalls(images, texts[order], order)
    for row in rows:
        scores = images @ texts.T if row["variant"] == "image_to_text" else texts @ images.T
        expected = sklearn.top_k_accuracy_score(range(60), scores, k=int(row["metric"][6:]))
        assert row["value"] == pytest.approx(expected)
    assert 0.1 < rows[0]["value"] < 0.9


def test_pictures_that_are_equal_are_never_told_apart() -> None:
    same = unit(np.random.default_rng(0).normal(size=(1, 512))).repeat(9, axis=0)
    rows = recalls(same, same, np.arange(9), tile=20)
    assert [row["value"] for row in rows] == [0, 0, 1, 0, 0, 1]


def test_a_picture_without_captions_is_only_mistaken() -> None:
    images = np.float32([[1, 0], [0, 1], [1, 0]])
    rows = recalls(images, np.float32([[1, 0], [0, 1]]), np.array([0, 1]), ks=(1,))
    assert [(row["value"], row["images"], row["classes"]) for row in rows] == [
        (1, 2, 2),
        (0.5, 2, 3),
    ]


def test_chance_is_that_of_a_random_order() -> None:
    from scipy.stats import hypergeom

    rng = np.random.default_rng(0)
    owners = np.repeat([0, 1, 2, 5], [1, 2, 7, 4])
    rows = recalls(unit(rng.normal(size=(6, 4))), unit(rng.normal(size=(14, 4))), owners)
    for row in rows[:3]:
        k = int(row["metric"][6:])
        expected = np.mean([hypergeom.sf(0, 14, own, min(k, 14)) for own in (1, 2, 7, 4)])
        assert row["chance"] == pytest.approx(expected)
    assert [row["chance"] for row in rows[3:]] == pytest.approx([1 / 6, 5 / 6, 1])


def test_intervals_of_pictures_are_exact_ones() -> None:
    rng = np.random.default_rng(1)
    images = unit(rng.normal(size=(50, 4)))
    texts = unit(images.repeat(2, axis=0) + rng.normal(scale=0.4, size=(100, 4)))
    row = recalls(images, texts, np.arange(50).repeat(2), ks=(1,))[0]
    assert (row["low"], row["high"]) == clopper_pearson(round(row["value"] * 50), 50)
    assert row["low"] is not None
    assert 0 < row["low"] < row["value"]


def test_the_interval_of_captions_holds_the_truth_though_they_come_in_fives() -> None:
    rng = np.random.default_rng(0)
    held = too_narrow = 0
    for _ in range(1000):
        # Captions of one picture are found together: of some pictures most, of others few.
        hits = rng.binomial(5, rng.beta(1.2, 0.8, 150))
        low, high = clustered_interval(hits, np.full(150, 5))
        assert low is not None
        assert high is not None
        held += low <= 0.6 <= high
        low, high = clopper_pearson(int(hits.sum()), 750)
        too_narrow += not low <= 0.6 <= high
    assert 940 <= held <= 985
    assert too_narrow > 100


@pytest.mark.parametrize("share", [0, 1])
def test_an_interval_of_none_or_all_is_that_of_the_pictures(share: int) -> None:
    low, high = clustered_interval(np.full(40, 5 * share), np.full(40, 5))
    assert (low, high) == pytest.approx(clopper_pearson(40 * share, 40))


def test_captions_of_one_picture_alone_have_no_interval() -> None:
    assert clustered_interval(np.array([3]), np.array([5])) == (None, None)


def test_captions_are_asked_for_with_what_stands_before_them() -> None:
    asked: list[str] = []

    def embed(texts: Sequence[str]) -> Vectors:
        asked.extend(texts)
        return np.eye(3, dtype=np.float32)

    # Pictures need not be of unit length.
    features = features_from(np.diag([2.0, 3.0, 0.1]), [None] * 3)
    features = replace(features, captions=[("a dog",), ("a cat", "a tom"), ()])
    result = retrieval(features, embed, prefix="a photo of ")
    assert asked == ["a photo of a dog", "a photo of a cat", "a photo of a tom"]
    assert [row["value"] for row in result.rows] == [1, 1, 1, 2 / 3, 1, 1]
    assert result.notes == {"captions": 3, "pictures_without_caption": 1, "prefix": "a photo of "}
    assert not result.predictions


def test_an_empty_caption_is_none() -> None:
    features = features_from(np.eye(3), [None] * 3)
    features = replace(features, captions=[("a", ""), (" ",), ("b",)])
    result = retrieval(features, lambda texts: np.eye(3, dtype=np.float32)[[0, 2]])
    assert result.notes == {"captions": 2, "pictures_without_caption": 1, "prefix": ""}
    assert [row["value"] for row in result.rows] == [1.0] * 6


def test_what_cannot_be_retrieved_is_one_line() -> None:
    features = features_from(np.eye(2), [None] * 2)
    with pytest.raises(InputError, match="no picture has a caption"):
        retrieval(features, lambda texts: np.eye(2, dtype=np.float32))
    captioned = replace(features, captions=[("a",), ("b",)])
    with pytest.raises(
        InputError, match="retrieval, captions: the model gives numbers that are not finite"
    ):
        retrieval(captioned, lambda texts: np.full((2, 2), np.nan, np.float32))
