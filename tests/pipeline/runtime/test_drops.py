import pyarrow as pa

from pipeline.runtime.drops import drop_rows
from pipeline.schemas import DROPS


def test_drops_share_a_reason_or_have_one_each() -> None:
    ids = pa.chunked_array([["a"], ["b"]])
    shared = drop_rows(ids, "too_old")
    assert shared.schema.equals(DROPS, check_metadata=True)
    assert shared.to_pylist() == [
        {"pair_id": "a", "reason": "too_old", "detail": None},
        {"pair_id": "b", "reason": "too_old", "detail": None},
    ]
    own = drop_rows([None, "b"], ["too_old", "too_new"], ["1999", "2099"])
    assert own.to_pylist() == [
        {"pair_id": None, "reason": "too_old", "detail": "1999"},
        {"pair_id": "b", "reason": "too_new", "detail": "2099"},
    ]


def test_no_pairs_are_no_drops() -> None:
    assert drop_rows([], "too_old").num_rows == 0
