import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import StorageError
from pipeline.pictures.images import ImageRefused, decode
from tests.train.shards import Pair, coloured_pairs
from train.models.recipes import find_recipe
from train.samples import batches as module
from train.samples.augment import (
    SQUARE,
    Crop,
    draw_box,
    empty_pixels,
    random_corner,
    resize_into,
    square_crop,
)
from train.samples.batches import Batch, read_batches, sample_loader
from train.samples.tokenizer import tokenize
from train.stream import Sample, Slice

SPEC = find_recipe("ViT-mini").model
BATCH = 10


def slices(pairs: Sequence[Pair]) -> Iterator[Slice]:
    """Give the pairs in their order without end, ten at a time, as a stream does."""
    at = 0
    while True:
        numbers = [(at + i) % len(pairs) for i in range(BATCH)]
        samples = [
            Sample(
                pair_id=f"{number:032x}",
                source="test",
                shard="0.tar",
                caption=pairs[number][1],
                image_offset=number,
                image_length=len(pairs[number][0]),
                epoch=(at + i) // len(pairs),
            )
            for i, number in enumerate(numbers)
        ]
        at += BATCH
        yield Slice(samples=tuple(samples), state={"position": at})


def reader(pairs: Sequence[Pair]) -> Callable[[Sample], bytes]:
    return lambda sample: pairs[sample.image_offset][0]


def read(
    pairs: Sequence[Pair], *, count: int, readers: int = 3, crop: Crop = SQUARE
) -> list[Batch]:
    load = sample_loader(reader(pairs), SPEC, 0, crop)
    return list(read_batches(slices(pairs), load, context=24, count=count, readers=readers))


def pictures(batches: list[Batch]) -> dict[tuple[int, str], np.ndarray]:
    found = {}
    for batch in batches:
        broken = {(b.sample.epoch, b.sample.pair_id) for b in batch.broken}
        keys = [(s.epoch, s.pair_id) for s in batch.samples]
        whole = [key for key in keys if key not in broken]
        found |= dict(zip(whole, batch.pixels_B3SS.numpy(), strict=True))
    return found


def test_batches_hold_the_pictures_and_captions_of_their_samples() -> None:
    pairs = coloured_pairs(40)
    for number, batch in enumerate(read(pairs, count=4)):
        expected = pairs[BATCH * number : BATCH * (number + 1)]
        assert batch.state == {"position": BATCH * (number + 1)}
        assert [sample.caption for sample in batch.samples] == [caption for _, caption in expected]
        tokens = tokenize([caption for _, caption in expected], 24)
        np.testing.assert_array_equal(batch.tokens_BL.numpy(), tokens)
        for sample, (data, _), pixels in zip(
            batch.samples, expected, batch.pixels_B3SS.numpy(), strict=True
        ):
            corner = random_corner(0, sample.epoch, sample.pair_id)
            np.testing.assert_array_equal(pixels, square_crop(decode(data).rgb, 28, corner))


def test_another_pass_shows_another_part() -> None:
    pairs = [wide_picture(i) for i in range(BATCH)]
    first, second = read(pairs, count=2)
    assert not torch.equal(first.pixels_B3SS, second.pixels_B3SS)
    assert torch.equal(first.tokens_BL, second.tokens_BL)


def wide_picture(number: int) -> Pair:
    rgb = np.random.default_rng(number).integers(0, 256, (40, 400, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue(), "noise"


def test_parts_are_those_that_the_crop_says() -> None:
    pairs = [wide_picture(i) for i in range(BATCH)]
    crop = Crop(scale=(0.2, 0.6))
    (batch,) = read(pairs, count=1, crop=crop)
    for sample, (data, _), pixels in zip(batch.samples, pairs, batch.pixels_B3SS, strict=True):
        expected = empty_pixels(1, 28)
        box = draw_box(400, 40, crop, seed=0, epoch=0, key=sample.pair_id)
        resize_into(decode(data).rgb, box, expected)
        torch.testing.assert_close(pixels, expected[0], rtol=0, atol=0)


@pytest.mark.parametrize("readers", [0, 1, 2, 16])
def test_the_number_of_readers_changes_nothing(readers: int) -> None:
    pairs = coloured_pairs(40)
    once, again = read(pairs, count=7), read(pairs, count=7, readers=readers)
    for a, b in zip(once, again, strict=True):
        assert a.samples == b.samples
        assert torch.equal(a.pixels_B3SS, b.pixels_B3SS)
        assert torch.equal(a.tokens_BL, b.tokens_BL)


@pytest.mark.parametrize("chunk", [1, 3, 10, 64])
def test_how_samples_are_dealt_out_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    pairs = coloured_pairs(20)
    once = read(pairs, count=2)
    monkeypatch.setattr(module, "CHUNK", chunk)
    for a, b in zip(once, read(pairs, count=2), strict=True):
        assert torch.equal(a.pixels_B3SS, b.pixels_B3SS)
        assert torch.equal(a.tokens_BL, b.tokens_BL)


def test_a_broken_sample_is_named_and_moves_no_other() -> None:
    pairs = coloured_pairs(40)
    whole = read(pairs, count=8)
    damaged: list[Pair] = [*pairs]
    for number, data in ((7, b"no picture"), (23, pairs[23][0][:60]), (24, b"")):
        damaged[number] = (data, pairs[number][1])
    batches = read(damaged, count=8)
    broken = sorted((b.sample.pair_id[-2:], b.reason) for batch in batches for b in batch.broken)
    assert broken[::2] == [
        ("07", "not_an_image"),
        ("17", "truncated_image"),
        ("18", "not_an_image"),
    ]
    assert [len(b.pixels_B3SS) + len(b.broken) for b in batches] == [BATCH] * 8
    assert [len(b.pixels_B3SS) for b in batches] == [len(b.tokens_BL) for b in batches]
    before, after = pictures(whole), pictures(batches)
    assert len(before) == len(after) + 6
    for key, pixels in after.items():
        np.testing.assert_array_equal(pixels, before[key])
    ids = dict(zip((s.pair_id for s in whole[0].samples), whole[0].tokens_BL, strict=True))
    kept = [s.pair_id for s in batches[0].samples if not s.pair_id.endswith("07")]
    assert torch.equal(batches[0].tokens_BL, torch.stack([ids[key] for key in kept]))


def test_a_batch_of_broken_samples_is_an_empty_one() -> None:
    (batch,) = read([(b"", "nothing")] * BATCH, count=1)
    assert batch.pixels_B3SS.shape == (0, 3, 28, 28)
    assert batch.tokens_BL.shape == (0, 24)
    assert len(batch.broken) == BATCH


def test_a_sample_whose_bytes_are_gone_is_broken_for_the_reason_given() -> None:
    pairs = coloured_pairs(10)

    def read_most(sample: Sample) -> bytes:
        if sample.image_offset == 3:
            raise ImageRefused("missing_file", "0.tar is gone")
        return pairs[sample.image_offset][0]

    load = sample_loader(read_most, SPEC, 0)
    (batch,) = read_batches(slices(pairs), load, context=24, count=1, readers=2)
    (broken,) = batch.broken
    assert (broken.sample.pair_id, broken.reason, broken.detail) == (
        f"{3:032x}",
        "missing_file",
        "0.tar is gone",
    )


def test_a_storage_that_fails_stops_the_reading() -> None:
    def fail(sample: Sample) -> bytes:
        raise StorageError("cannot read shard/00000.tar")

    load = sample_loader(fail, SPEC, 0)
    with pytest.raises(StorageError, match=r"cannot read shard/00000\.tar"):
        list(read_batches(slices(coloured_pairs(10)), load, context=24, count=3, readers=2))


def test_a_stream_that_fails_stops_the_reading() -> None:
    def fail() -> Iterator[Slice]:
        yield next(slices(coloured_pairs(10)))
        raise StorageError("cannot read shard/00000.parquet")

    batches = read_batches(
        fail(), sample_loader(reader(coloured_pairs(10)), SPEC, 0), context=24, count=3, readers=2
    )
    assert len(next(batches).samples) == BATCH
    with pytest.raises(StorageError, match="parquet"):
        next(batches)


def test_reading_can_be_left_early_and_leaves_no_thread_behind() -> None:
    pairs = coloured_pairs(20)
    before = threading.active_count()
    load = sample_loader(reader(pairs), SPEC, 0)
    batches = read_batches(slices(pairs), load, context=24, count=10**6, readers=2)
    assert next(batches).state == {"position": BATCH}
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("limit", "ahead"), [(1 << 30, 2), (1, 1)])
def test_as_many_batches_are_read_ahead_as_memory_allows(
    monkeypatch: pytest.MonkeyPatch, limit: int, ahead: int
) -> None:
    monkeypatch.setattr(module, "BYTES_AHEAD", limit)
    pairs = coloured_pairs(20)
    taken: list[int] = []

    def counted() -> Iterator[Slice]:
        for number, item in enumerate(slices(pairs)):
            taken.append(number)
            yield item

    load = sample_loader(reader(pairs), SPEC, 0)
    batches = read_batches(counted(), load, context=24, count=10, readers=2)
    for number in range(3):
        next(batches)
        wait_until(lambda expected=number + 1 + ahead: len(taken) >= expected)
        time.sleep(0.02)
        assert len(taken) == number + 1 + ahead
    batches.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_no_more_is_read_than_asked_for() -> None:
    pairs = coloured_pairs(20)
    stream = slices(pairs)
    load = sample_loader(reader(pairs), SPEC, 0)
    assert not list(read_batches(stream, load, context=24, count=0))
    assert len(list(read_batches(stream, load, context=24, count=2))) == 2
    assert next(stream).state == {"position": 3 * BATCH}


def test_time_spent_waiting_is_told_apart_from_time_spent_computing() -> None:
    pairs = coloured_pairs(20)

    def slow(sample: Sample) -> bytes:
        time.sleep(0.02)
        return pairs[sample.image_offset][0]

    load = sample_loader(slow, SPEC, 0)
    batches = read_batches(slices(pairs), load, context=24, count=3, readers=BATCH)
    # Chunks are larger than these batches, so one thread sleeps through each.
    assert next(batches).waited >= BATCH * 0.02
    time.sleep(3 * BATCH * 0.02)
    assert next(batches).waited < BATCH * 0.02
    batches.close()


def test_batches_kept_are_not_written_over() -> None:
    pairs = coloured_pairs(30)
    load = sample_loader(reader(pairs), SPEC, 0)
    batches = read_batches(slices(pairs), load, context=24, count=3, readers=2)
    first = next(batches)
    copy = first.pixels_B3SS.clone(), first.tokens_BL.clone()
    list(batches)
    assert torch.equal(first.pixels_B3SS, copy[0])
    assert torch.equal(first.tokens_BL, copy[1])


def test_memory_is_used_again_when_no_tensor_refers_to_it() -> None:
    pairs = coloured_pairs(30)
    load = sample_loader(reader(pairs), SPEC, 0)
    places, kept = [], []
    for batch in read_batches(slices(pairs), load, context=24, count=12, readers=2):
        places.append(batch.pixels_B3SS.data_ptr())
        if len(kept) < 2:
            # The one by a view of torch, the other by a view of numpy.
            kept.append(batch.pixels_B3SS[3:4] if kept else batch.pixels_B3SS.numpy()[3:4])
    assert len(set(places)) <= 6
    assert not set(places[:2]) & set(places[2:])
    for number, view in enumerate(kept):
        expected = read(pairs, count=2)[number].pixels_B3SS[3:4].numpy()
        np.testing.assert_array_equal(view, expected)


def test_a_large_jpeg_is_decoded_at_half_its_size_only_where_the_margin_allows() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).resize((120, 120), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    pairs = [(file.getvalue(), "noise")] * BATCH
    sharp, soft = (
        read(pairs, count=1, crop=Crop(jpeg_margin=margin))[0].pixels_B3SS for margin in (3, 2)
    )
    whole = square_crop(decode(file.getvalue()).rgb, 28, (0, 0))
    assert torch.equal(sharp[0], torch.from_numpy(whole))
    assert not torch.equal(soft, sharp)
    assert (soft.float() - sharp.float()).abs().mean() < 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_can_be_page_locked() -> None:
    pairs = coloured_pairs(10)
    load = sample_loader(reader(pairs), SPEC, 0)
    (batch,) = read_batches(slices(pairs), load, context=24, count=1, pinned=True)
    assert batch.pixels_B3SS.is_pinned()
    assert batch.tokens_BL.is_pinned()
    assert torch.equal(batch.pixels_B3SS.to("cuda", non_blocking=True).cpu(), batch.pixels_B3SS)
