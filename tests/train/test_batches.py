from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StorageError
from pipeline.pictures.images import decode
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import Pair, coloured_pairs
from train.augment import random_corner, square_crop
from train.batches import Batch, read_batches, sample_loader
from train.recipes import find_recipe
from train.stream import ShardStream, read_shard_index
from train.tokenizer import tokenize

SPEC = find_recipe("ViT-mini").model


def read(workspace: Workspace, shards: Manifest, *, count: int, readers: int = 3) -> list[Batch]:
    stream = ShardStream(
        [part.rows for part in shards.parts],
        read_shard_index(workspace, shards.parts),
        batch_size=10,
        seed=0,
        window=20,
    )
    load = sample_loader(workspace, SPEC, 0)
    return list(read_batches(stream, load, context=24, count=count, readers=readers))


def pictures(batches: list[Batch]) -> dict[tuple[int, str], np.ndarray]:
    found = {}
    for batch in batches:
        broken = {(b.sample.epoch, b.sample.pair_id) for b in batch.broken}
        keys = [(s.epoch, s.pair_id) for s in batch.samples]
        whole = [key for key in keys if key not in broken]
        found |= dict(zip(whole, batch.pixels_B3SS, strict=True))
    return found


def test_batches_hold_the_pictures_and_captions_of_the_shards(
    workspace: Workspace, finish_shards: Callable[..., Manifest]
) -> None:
    pairs = coloured_pairs(40)
    batches = read(workspace, finish_shards(pairs), count=4)
    for batch in batches:
        numbers = [int(s.pair_id, 16) for s in batch.samples]
        assert [s.caption for s in batch.samples] == [pairs[i][1] for i in numbers]
        np.testing.assert_array_equal(batch.tokens_BL, tokenize([pairs[i][1] for i in numbers], 24))
    first = batches[0].samples[0]
    rgb = decode(pairs[int(first.pair_id, 16)][0]).rgb
    expected = square_crop(rgb, 28, random_corner(0, 0, first.pair_id))
    np.testing.assert_array_equal(batches[0].pixels_B3SS[0], expected)


@pytest.mark.parametrize("readers", [1, 2, 16])
def test_the_number_of_readers_changes_nothing(
    workspace: Workspace, finish_shards: Callable[..., Manifest], readers: int
) -> None:
    shards = finish_shards(coloured_pairs(40))
    once, again = (
        read(workspace, shards, count=7),
        read(workspace, shards, count=7, readers=readers),
    )
    for a, b in zip(once, again, strict=True):
        assert a.samples == b.samples
        np.testing.assert_array_equal(a.pixels_B3SS, b.pixels_B3SS)


def test_a_broken_sample_is_named_and_moves_no_other(
    workspace: Workspace, finish_shards: Callable[..., Manifest]
) -> None:
    pairs = coloured_pairs(40)
    whole = read(workspace, finish_shards(pairs), count=8)
    damaged: list[Pair] = [*pairs]
    for number, data in ((7, b"no picture"), (23, pairs[23][0][:60]), (24, b"")):
        damaged[number] = (data, pairs[number][1])
    shards = finish_shards(damaged, made_by="damage")
    batches = read(workspace, shards, count=8)
    order = [[s.pair_id for s in batch.samples] for batch in batches]
    assert order == [[s.pair_id for s in batch.samples] for batch in whole]
    broken = sorted((b.sample.pair_id[-2:], b.reason) for batch in batches for b in batch.broken)
    assert broken[::2] == [
        ("07", "not_an_image"),
        ("17", "truncated_image"),
        ("18", "not_an_image"),
    ]
    assert [len(b.pixels_B3SS) + len(b.broken) for b in batches] == [10] * 8
    before, after = pictures(whole), pictures(batches)
    assert len(before) == len(after) + 6
    for key, pixels in after.items():
        np.testing.assert_array_equal(pixels, before[key])


def test_a_missing_tar_is_one_line(
    workspace: Workspace, finish_shards: Callable[..., Manifest]
) -> None:
    shards = finish_shards(coloured_pairs(20))
    Path(workspace.path("shard/00000.tar")).unlink()
    with pytest.raises(StorageError, match=r"cannot read .*shard/00000\.tar"):
        read(workspace, shards, count=2)


def test_reading_can_be_left_early(
    workspace: Workspace, finish_shards: Callable[..., Manifest]
) -> None:
    shards = finish_shards(coloured_pairs(20))
    stream = ShardStream(
        [part.rows for part in shards.parts],
        read_shard_index(workspace, shards.parts),
        batch_size=10,
        seed=0,
        window=20,
    )
    batches = read_batches(
        stream, sample_loader(workspace, SPEC, 0), context=24, count=10**6, readers=2
    )
    assert next(batches).state == {"epoch": 0, "position": 10}
    batches.close()
