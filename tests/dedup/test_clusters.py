import random

import numpy as np
import pyarrow as pa
import pytest

from dedup.alike import Alike, find_preferred, keep_apart
from dedup.clusters import block_of, thin_table
from dedup.exact import PICTURES, by_preference
from dedup.links import LINKS
from tests.dedup.test_perceptual import as_bytes, crowd

BY_PDQ = Alike(max_distance=31)


def some_pictures(count: int, seed: int) -> pa.Table:
    rng = random.Random(seed)
    hashes = as_bytes(crowd(count, 1 + count // 6, 25, seed))
    return pa.Table.from_pylist(
        [
            {
                "place": i,
                "pair_id": f"{rng.getrandbits(128):032x}",
                "area": rng.choice([1, 2, 3]),
                "is_earlier": rng.choice([0, 0, 1]),
                "caption_fit": rng.choice([5, 6]),
                "pdq": hashed,
            }
            for i, hashed in enumerate(hashes)
        ],
        PICTURES,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("blocks", "every"), [(1, 10), (3, 1), (7, 4), (40, 3)])
def test_blocks_change_nothing(seed: int, blocks: int, every: int) -> None:
    pictures = some_pictures(50, seed)
    sample = pictures.take(pa.array(np.arange(0, 50, every)))
    block = block_of(pictures, sample, blocks)
    kept: list[pa.Table] = []
    links = []
    for number in range(blocks):
        own = pictures.filter(pa.array(block == number))
        earlier = [find_preferred(own, better, BY_PDQ) for better in kept]
        stays, dropped = thin_table(own, pa.concat_tables([LINKS.empty_table(), *earlier]), BY_PDQ)
        kept.append(stays)
        links.append(dropped)
    whole, all_links = keep_apart(pictures, BY_PDQ)
    assert pa.concat_tables(kept).equals(whole)
    assert pa.concat_tables(links).sort_by("place").equals(all_links.sort_by("place"))
    assert 0 < whole.num_rows < 50


@pytest.mark.parametrize("blocks", [1, 2, 5, 90])
def test_blocks_ascend_with_preference(blocks: int) -> None:
    pictures = by_preference(some_pictures(60, 1))
    block = block_of(pictures, pictures, blocks)
    assert np.all(np.diff(block) >= 0)
    assert block.min() >= 0
    assert block.max() < blocks
    assert np.bincount(block).max() <= 1 + -(-60 // blocks)


def test_a_picture_is_dropped_for_the_most_preferred_not_for_the_nearest() -> None:
    middle, left, right = bytes(32), b"\xff" * 3 + bytes(29), bytes(29) + b"\x0f" * 3
    rows = [(0, 3, left), (1, 2, right), (2, 1, middle)]
    pictures = pa.Table.from_pylist(
        [
            {
                "place": i,
                "pair_id": str(i),
                "area": area,
                "is_earlier": 0,
                "caption_fit": 1,
                "pdq": pdq,
            }
            for i, area, pdq in rows
        ],
        PICTURES,
    )
    kept, links = keep_apart(pictures, BY_PDQ)
    assert kept.column("place").to_pylist() == [0, 1]
    assert (links["target"].to_pylist(), links["distance"].to_pylist()) == ([0], [24])
