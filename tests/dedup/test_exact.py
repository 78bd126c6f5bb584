import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.exact import KEYS, ROWS, bucket_of, keep_one


def rows(areas: list[int], values: list[int]) -> pa.Table:
    """Return rows whose pixel hash is the value, in a table of several chunks."""
    table = pa.Table.from_pylist(
        [
            {
                "place": i,
                "pair_id": f"{i:032x}",
                "area": area,
                "is_earlier": 0,
                "caption_fit": 1,
                **{key: value.to_bytes(16, "big") for key in KEYS},
            }
            for i, (area, value) in enumerate(zip(areas, values, strict=True))
        ],
        ROWS,
    )
    return pa.concat_tables([table.slice(0, 2), table.slice(2)])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=20), st.randoms())
def test_one_of_each_value_stays_whatever_the_order(
    pairs: list[tuple[int, int]], shuffler: object
) -> None:
    table = rows([a for a, _ in pairs], [v for _, v in pairs])
    order = list(range(len(pairs)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    kept, links = keep_one(table.take(pa.array(order, pa.int64())), "pixel_hash")
    best = {
        value: min((-area, i) for i, (area, v) in enumerate(pairs) if v == value)[1]
        for _, value in pairs
    }
    assert sorted(kept.column("place").to_pylist()) == sorted(best.values())
    assert dict(zip(links["place"].to_pylist(), links["target"].to_pylist(), strict=True)) == {
        i: best[value] for i, (_, value) in enumerate(pairs) if best[value] != i
    }


@pytest.mark.parametrize("count", [1, 3])
def test_equal_values_share_a_bucket_and_buckets_are_all_used(count: int) -> None:
    values = [v << 64 for v in range(30)] * 2
    bucket = bucket_of(rows([1] * 60, values).slice(7, 45)["url"], count)
    again = bucket_of(rows([1] * 60, values).slice(37, 23)["url"], count)
    assert np.array_equal(bucket[:23], again)
    assert set(bucket.tolist()) == set(range(count))
