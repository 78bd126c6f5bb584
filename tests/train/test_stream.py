from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, InputError
from tests.reference.stream_order import samples_in_order
from train.samples.order import Layout, epoch_length
from train.stream import LOCATED, Sample, ShardStream, Source, prompted

ROWS = st.lists(st.integers(0, 23), min_size=1, max_size=9).filter(lambda rows: sum(rows) > 0)
WEIGHTS = st.sampled_from(["1", "2", "0.5", "1.5", "0.3", "3"]).map(Fraction)
SOURCES = st.lists(st.tuples(ROWS, WEIGHTS), min_size=1, max_size=3)
Met = tuple[int, str]


@dataclass
class Drawn:
    """Sources with samples that are only names."""

    sources: list[Source]
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def read(self, sample: Sample) -> bytes:
        return sample.pair_id.encode()

    def read_ahead(self, window: Sequence[pa.Table]) -> None:
        assert all(table.schema == LOCATED for table in window)


def names_of(number: int, rows: Sequence[int]) -> list[list[str]]:
    return [[f"{number}-{shard}-{row}" for row in range(n)] for shard, n in enumerate(rows)]


def drawn(*sources: tuple[Sequence[int], Fraction]) -> Drawn:
    data = Drawn([])
    for number, (rows, weight) in enumerate(sources):
        names = names_of(number, rows)

        def read(shard: int, first: int, last: int, names: list[list[str]] = names) -> pa.Table:
            data.asked.append((shard, first, last))
            some = names[shard][first:last]
            columns = [some, [f"{shard}.tar"] * len(some), some]
            numbers = [[512 * i for i in range(first, last)], [100] * len(some)]
            return pa.table([*columns, *numbers], schema=LOCATED)

        layout = Layout(rows=np.array(rows, np.int64), weight=weight)
        data.sources.append(
            Source(name=f"source{number}", layout=layout, identity=str(rows), read=read)
        )
    return data


def stream(*sources: tuple[Sequence[int], Fraction], batch_size: int, **how: int) -> ShardStream:
    return ShardStream(drawn(*sources), batch_size=batch_size, **{"seed": 3, "window": 40, **how})


def one(rows: Sequence[int]) -> tuple[Sequence[int], Fraction]:
    return rows, Fraction(1)


def take(some: ShardStream, batches: int) -> list[list[Met]]:
    with some:
        return [[(s.epoch, s.pair_id) for s in next(some).samples] for _ in range(batches)]


def in_order(
    sources: Sequence[tuple[Sequence[int], Fraction]], count: int, *, window: int = 40
) -> list[Met]:
    shards = [(names_of(number, rows), weight) for number, (rows, weight) in enumerate(sources)]
    found = samples_in_order(shards, window=window, seed=3)
    return [(turn, name) for _, turn, name in islice(found, count)]


@given(sources=SOURCES, batch_size=st.integers(1, 60), window=st.integers(1, 120))
def test_the_stream_is_the_plain_sequence_cut_into_batches(
    sources: list[tuple[list[int], Fraction]], batch_size: int, window: int
) -> None:
    batches = -(-3 * sum(sum(rows) for rows, _ in sources) // batch_size)
    read = take(stream(*sources, batch_size=batch_size, window=window), batches)
    assert [len(batch) for batch in read] == [batch_size] * batches
    assert list(chain(*read)) == in_order(sources, batches * batch_size, window=window)


@given(rows=ROWS, batch_size=st.integers(1, 90), window=st.integers(1, 90))
def test_every_sample_is_read_once_an_epoch(rows: list[int], batch_size: int, window: int) -> None:
    total = sum(rows)
    batches = take(
        stream(one(rows), batch_size=batch_size, window=window), -(-3 * total // batch_size)
    )
    read = list(chain(*batches))
    names = list(chain(*names_of(0, rows)))
    for epoch in range(3):
        of_epoch = read[epoch * total : (epoch + 1) * total]
        assert Counter(of_epoch) == Counter((epoch, name) for name in names)


@given(sources=SOURCES, window=st.integers(20, 120))
def test_a_weight_says_how_often_each_sample_is_read_an_epoch(
    sources: list[tuple[list[int], Fraction]], window: int
) -> None:
    # Of all these weights, ten epochs are whole turns.
    some = stream(*sources, batch_size=37, window=window)
    layouts = [Layout(rows=np.array(rows), weight=weight) for rows, weight in sources]
    length = sum(epoch_length(layouts, epoch) for epoch in range(10))
    met = chain(*take(some, -(-length // 37)))
    read = Counter(name for _, name in islice(met, length))
    expected = {
        name: 10 * weight
        for number, (rows, weight) in enumerate(sources)
        for name in chain(*names_of(number, rows))
    }
    assert read == expected


@given(
    sources=SOURCES,
    runs=st.lists(
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(1, 3)),
        min_size=1,
        max_size=4,
    ),
    window=st.integers(1, 90),
)
def test_resumed_with_other_batches_ranks_and_workers_it_goes_on_where_it_stood(
    sources: list[tuple[list[int], Fraction]],
    runs: list[tuple[int, int, int, int]],
    window: int,
) -> None:
    read: list[Met] = []
    state = None
    for batches, batch_size, world_size, workers in runs:
        batches = -(-batches // workers) * workers
        shares: dict[tuple[int, int], list[Met]] = {}
        for rank in range(world_size):
            for worker in range(workers):
                some = stream(
                    *sources,
                    batch_size=batch_size,
                    window=window,
                    rank=rank,
                    world_size=world_size,
                    worker=worker,
                    workers=workers,
                )
                if state:
                    some.load_state_dict(state)
                for number, batch in enumerate(take(some, batches // workers)):
                    shares[number * workers + worker, rank] = batch
        state = some.state_dict()
        read += chain(*(shares[place] for place in sorted(shares)))
    assert read == in_order(sources, len(read), window=window)


def test_three_shards_feed_eight_workers() -> None:
    rows = [5, 4, 6]
    shares = [
        take(stream(one(rows), batch_size=5, worker=worker, workers=8), 6) for worker in range(8)
    ]
    read = list(chain(*chain(*zip(*shares, strict=True))))
    assert read == in_order([one(rows)], 240)
    assert Counter(name for _, name in read) == dict.fromkeys(chain(*names_of(0, rows)), 16)


def test_a_slice_says_where_the_stream_stands_after_it() -> None:
    with stream(one([4, 3]), batch_size=5) as some:
        states = [next(some).state for _ in range(3)]
    assert [(state["epoch"], state["position"]) for state in states] == [(0, 5), (1, 3), (2, 1)]


def test_only_the_index_of_the_window_at_hand_and_the_next_is_read() -> None:
    data = drawn(one([5] * 50))
    with ShardStream(data, batch_size=5, seed=0, window=40) as some:
        for _ in range(3):
            next(some)
        assert 8 <= len(data.asked) <= 16
        for _ in range(6):
            next(some)
    assert 16 <= len(data.asked) <= 24
    assert len(set(data.asked)) == len(data.asked)


def test_workers_do_not_read_the_windows_of_others() -> None:
    data = drawn(one([5] * 48))
    with ShardStream(data, batch_size=40, seed=0, window=40, worker=1, workers=3) as some:
        next(some)
        assert some.state_dict()["position"] == 80
    assert len(data.asked) <= 16


def test_a_large_shard_is_read_in_runs_of_an_eighth_of_a_window() -> None:
    data = drawn(one([1000]))
    with ShardStream(data, batch_size=1000, seed=0, window=80) as some:
        samples = next(some).samples
    assert max(last - first for _, first, last in data.asked) == 10
    # Neighbours in the shard are strewn over the epoch.
    places = {sample.pair_id: i for i, sample in enumerate(samples)}
    gaps = [abs(places[f"0-0-{i}"] - places[f"0-0-{i + 10}"]) for i in range(990)]
    assert np.mean(gaps) > 250


def test_the_state_of_another_stream_is_refused() -> None:
    with stream(one([4, 3]), batch_size=2) as some:
        state = next(some).state
    for other in (
        stream(one([3, 4]), batch_size=2),
        stream(one([4, 3]), batch_size=2, seed=4),
        stream(one([4, 3]), batch_size=2, window=41),
        stream(([4, 3], Fraction(2)), batch_size=2),
    ):
        with other, pytest.raises(ConfigError, match="other samples"):
            other.load_state_dict(state)
    with stream(one([4, 3]), batch_size=3, rank=1, world_size=2) as same:
        same.load_state_dict(state)
        assert same.state_dict() == state


def test_a_stream_without_samples_or_sense_is_refused() -> None:
    with pytest.raises(InputError, match="no samples"):
        stream(one([0]), batch_size=1)
    for wrong in ({"rank": 1}, {"world_size": 0}, {"workers": 2, "worker": 2}, {"window": 0}):
        with pytest.raises(ConfigError, match="expected"):
            stream(one([3]), batch_size=1, **wrong)


def test_an_error_of_the_index_is_met_when_its_window_is_needed() -> None:
    data = drawn(one([5] * 9))

    def broken(shard: int, first: int, last: int) -> pa.Table:
        raise InputError("the index is gone")

    data.sources[0] = Source(name="broken", layout=data.sources[0].layout, identity="", read=broken)
    with ShardStream(data, batch_size=5, seed=0) as some, pytest.raises(InputError, match="gone"):
        next(some)


def test_captions_of_labels_are_drawn_anew_each_turn() -> None:
    prompts = ("a {label}", "the {label}")
    drawn_captions = {prompted(prompts, "cat|kitten", f"0:{turn}:x") for turn in range(40)}
    assert drawn_captions == {"a cat", "the cat", "a kitten", "the kitten"}
    assert prompted(prompts, "cat", "0:1:x") == prompted(prompts, "cat", "0:1:x")


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt()])
def test_no_sample_is_lost_where_a_shard_fails_once(error: BaseException) -> None:
    data = drawn(([10, 10, 10], Fraction(1)))
    read, failures = data.sources[0].read, [error]

    def failing(shard: int, first: int, last: int) -> pa.Table:
        if shard == 1 and failures:
            raise failures.pop()
        return read(shard, first, last)

    data.sources[0] = replace(data.sources[0], read=failing)
    met: list[str] = []
    failed = False
    with ShardStream(data, batch_size=6, window=8) as stream:
        while len(met) < 30:
            before = stream.state_dict()
            try:
                met += [sample.pair_id for sample in next(stream).samples]
            except (OSError, KeyboardInterrupt):
                failed = True
                assert stream.state_dict() == before
    assert failed
    assert len(set(met)) == 30


def test_workers_that_have_begun_go_on_in_turn_from_a_state() -> None:
    data = drawn(([30], Fraction(1)))
    streams = [ShardStream(data, batch_size=3, worker=i, workers=2) for i in range(2)]
    first = [next(streams[i % 2]) for i in range(4)]
    for stream in streams:
        stream.load_state_dict(first[0].state)
    again = [next(streams[i % 2]) for i in range(3)]
    assert [batch.samples for batch in again] == [batch.samples for batch in first[1:]]
    for stream in streams:
        stream.close()


@pytest.mark.parametrize(
    "state", [{}, {"epoch": 0}, {"epoch": -1, "position": 0}, {"epoch": 0, "position": 9}]
)
def test_what_is_no_state_is_refused(state: dict[str, int]) -> None:
    with ShardStream(drawn(([9], Fraction(1))), batch_size=3) as stream:
        with pytest.raises(ConfigError, match="expected a stream's own state"):
            stream.load_state_dict(state)
        assert stream.state_dict()["position"] == 0
