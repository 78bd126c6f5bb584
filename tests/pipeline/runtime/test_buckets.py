from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.runtime.buckets import read_bucket, write_buckets

NUMBERS = pa.schema([("number", pa.int64()), ("text", pa.string())])


def numbers(values: list[int]) -> pa.Table:
    return pa.table({"number": values, "text": [f"é{v}" for v in values]}, NUMBERS)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 99)), max_size=4), st.integers(1, 5))
def test_each_bucket_holds_its_rows_of_all_files_in_their_order(
    tmp_path_factory: object, files: list[list[int]], count: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("buckets")  # type: ignore[attr-defined]
    paths = [str(folder / str(i)) for i in range(len(files))]
    for path, values in zip(paths, files, strict=True):
        write_buckets(path, numbers(values), np.array(values, np.int64) % count, count)
    for bucket in range(count):
        expected = [v for values in files for v in values if v % count == bucket]
        assert read_bucket(paths, bucket, NUMBERS).equals(numbers(expected))


def test_buckets_are_read_from_object_storage(s3_bucket: str) -> None:
    path = f"{s3_bucket}/buckets.arrow"
    write_buckets(path, numbers([3, 4, 5]), np.array([1, 0, 1]), 2)
    assert read_bucket([path], 1, NUMBERS).equals(numbers([3, 5]))
