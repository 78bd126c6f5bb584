from collections import Counter
from collections.abc import Sequence
from itertools import chain

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas
from train.stream import COLUMNS, ShardStream

SHARDS = st.lists(st.integers(0, 17), min_size=1, max_size=9).filter(lambda rows: sum(rows) > 0)


def index_of(shard: int, rows: int) -> pa.Table:
    columns = {
        "pair_id": [f"{shard}-{row}" for row in range(rows)],
        "shard": [f"shard/{shard:05d}.tar"] * rows,
        "caption": ["a caption"] * rows,
        "image_offset": [512 * row for row in range(rows)],
        "image_length": [100] * rows,
    }
    return pa.table(columns, schema=pa.schema([schemas.SHARD_INDEX.field(c) for c in COLUMNS]))


def stream(
    rows: Sequence[int], *, batch_size: int, window: int = 40, rank: int = 0, world_size: int = 1
) -> ShardStream:
    return ShardStream(
        rows,
        lambda shard: index_of(shard, rows[shard]),
        batch_size=batch_size,
        seed=3,
        window=window,
        rank=rank,
        world_size=world_size,
    )


def take(some: ShardStream, batches: int) -> list[list[tuple[int, str]]]:
    return [[(s.epoch, s.pair_id) for s in next(some).samples] for _ in range(batches)]


@settings(deadline=None)
@given(rows=SHARDS, share=st.floats(0, 1), window=st.integers(1, 90))
def test_every_sample_is_read_once_an_epoch(rows: list[int], share: float, window: int) -> None:
    total = sum(rows)
    batch_size = max(1, round(share * total))
    batches = -(-3 * total // batch_size)
    read = [
        sample
        for b in take(stream(rows, batch_size=batch_size, window=window), batches)
        for sample in b
    ]
    for epoch in range(3):
        of_epoch = read[epoch * total : (epoch + 1) * total]
        expected = {(epoch, f"{shard}-{row}") for shard, n in enumerate(rows) for row in range(n)}
        assert Counter(of_epoch) == Counter(expected)


@settings(deadline=None)
@given(rows=SHARDS, batch_size=st.integers(1, 12), world_size=st.integers(1, 7))
def test_the_ranks_together_read_the_global_batches(
    rows: list[int], batch_size: int, world_size: int
) -> None:
    batch_size = min(batch_size, sum(rows))
    alone = take(stream(rows, batch_size=batch_size), 5)
    ranks = [
        take(stream(rows, batch_size=batch_size, rank=rank, world_size=world_size), 5)
        for rank in range(world_size)
    ]
    assert [list(chain(*shares)) for shares in zip(*ranks, strict=True)] == alone


@settings(deadline=None)
@given(
    rows=SHARDS,
    first=st.integers(1, 12),
    then=st.integers(1, 12),
    stop_after=st.integers(0, 9),
    world_size=st.integers(1, 4),
)
def test_a_resumed_stream_goes_on_where_it_stood_even_in_other_batches_and_ranks(
    rows: list[int], first: int, then: int, stop_after: int, world_size: int
) -> None:
    first, then = min(first, sum(rows)), min(then, sum(rows))
    stopped = stream(rows, batch_size=first)
    before = [sample for batch in take(stopped, stop_after) for sample in batch]
    ranks = []
    for rank in range(world_size):
        resumed = stream(rows, batch_size=then, rank=rank, world_size=world_size)
        resumed.load_state_dict(stopped.state_dict())
        ranks.append(take(resumed, 4))
    after = [sample for shares in zip(*ranks, strict=True) for share in shares for sample in share]
    whole = [
        sample
        for batch in take(stream(rows, batch_size=1), len(before + after))
        for sample in batch
    ]
    assert before + after == whole


def test_a_slice_says_where_the_stream_stands_after_it() -> None:
    some = stream([4, 3], batch_size=5)
    assert [next(some).state for _ in range(3)] == [
        {"epoch": 0, "position": 5},
        {"epoch": 1, "position": 3},
        {"epoch": 2, "position": 1},
    ]


def test_only_the_index_of_the_window_at_hand_is_read() -> None:
    read: list[int] = []

    def index(shard: int) -> pa.Table:
        read.append(shard)
        return index_of(shard, 10)

    some = ShardStream([10] * 50, index, batch_size=5, seed=0, window=20)
    take(some, 3)
    assert len(read) == 2
    take(some, 97)
    assert sorted(read) == list(range(50))
