import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.runtime.manifest import Part
from pipeline.shards.cut import Limits, cut, parse_bytes
from tests.reference.cutting import cut_by_bytes


def parts_of(counts):
    return [Part(path=str(i), rows=n, bytes=0, sha256="") for i, n in enumerate(counts)]


def samples_of(slices, counts) -> list[int]:
    firsts = np.concatenate([[0], np.cumsum(counts)])
    return [int(firsts[int(s.part.path)]) + row for s in slices for row in range(s.start, s.stop)]


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 15))
def test_shards_take_every_row_once_and_leave_no_gaps(counts, samples):
    shards = cut(parts_of(counts), Limits(samples=samples), lambda part: None)
    found = [samples_of(slices, counts) for slices in shards]
    assert [row for rows in found for row in rows] == list(range(sum(counts)))
    assert all(len(rows) == samples for rows in found[:-1])
    assert all(0 < len(rows) <= samples for rows in found[-1:])


@given(st.lists(st.lists(st.integers(1, 3000), max_size=12), max_size=5), st.integers(1, 9000))
@example([[10, 20], [], [30]], 1084)
@example([[5000], [5000]], 1)
@example([[1], [1], [1]], 1026)
def test_cutting_by_bytes_is_what_one_would_do_by_hand(sizes, most):
    counts = [len(each) for each in sizes]
    shards = cut(
        parts_of(counts),
        Limits(bytes=most),
        lambda part: np.array(sizes[int(part.path)], np.int64),
    )
    flat = [size for each in sizes for size in each]
    assert [samples_of(slices, counts) for slices in shards] == cut_by_bytes(flat, most)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("1GB", 10**9), ("500 MiB", 500 << 20), ("1.5kb", 1500), ("2TiB", 2 << 40)],
)
def test_a_size_is_read_with_its_unit(text, expected):
    assert parse_bytes(text) == expected
