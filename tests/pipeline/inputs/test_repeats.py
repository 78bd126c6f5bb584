import tempfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs import repeats
from pipeline.inputs.repeats import (
    count_partitions,
    find_repeats,
    read_repeats,
    write_keys,
    write_repeats,
)
from tests.reference.repeats import repeated_places

# Few ids, some that share their upper or lower half, and the ends of the range.
IDS = st.sampled_from(
    ["0" * 32, "f" * 32, "0" * 16 + "f" * 16, "f" * 16 + "0" * 16, "8" + "0" * 31, "7" + "f" * 31]
    + [f"{i:01x}" * 32 for i in range(1, 8)]
)


@given(st.lists(st.lists(IDS, max_size=12), min_size=1, max_size=5), st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_the_later_occurrences_are_found_in_any_number_of_partitions(
    chunks: list[list[str]], partitions: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = []
        for i, chunk in enumerate(chunks):
            ids = pa.chunked_array([pa.array(chunk, pa.string())])
            keys.append(write_keys(f"{folder}/{i}-keys.parquet", ids).path)
        files = [
            write_repeats(f"{folder}/{p}.parquet", find_repeats(keys, p, partitions)).path
            for p in range(partitions)
        ]
        found = [(i, row) for i in range(len(chunks)) for row in read_repeats(files, i).to_pylist()]
    assert found == repeated_places(chunks)


def test_many_row_groups_are_read_only_where_they_overlap(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ids = [f"{(i * 2654435761) % 2**32:08x}" * 4 for i in range(30_000)]
    path = write_keys(str(tmp_path / "keys"), pa.chunked_array([ids, ids[:3]])).path
    places = [find_repeats([path], p, 5) for p in range(5)]
    assert sorted(row for t in places for row in t.column("row").to_pylist()) == [
        30_000,
        30_001,
        30_002,
    ]


@pytest.mark.parametrize(("keys", "partitions"), [(0, 1), (10, 1), (11, 2), (30, 3)])
def test_partitions_hold_a_bounded_number_of_keys(
    keys: int, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "KEYS_PER_PARTITION", 10)
    assert count_partitions(keys) == partitions
