from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from queries.partitions import (
    partitions_of_keys,
    partitions_of_words,
    read_partition,
    write_partitioned,
)

WORDS = [f"word{i}" for i in range(40_000)]


@pytest.mark.parametrize("partitions", [1, 3, 1024])
def test_every_row_is_in_the_partition_of_its_word_alone(tmp_path: Path, partitions: int) -> None:
    paths = [str(tmp_path / f"{i}.parquet") for i in range(2)]
    for path, words in zip(paths, (WORDS, WORDS[::2]), strict=True):
        where = partitions_of_words(words, partitions)
        write_partitioned(path, pa.table({"word": words, "count": range(len(words))}), where)
    chosen = [*range(min(partitions, 5)), partitions - 1]
    for partition in sorted(set(chosen)):
        found = read_partition(paths, partition, ["word"]).column("word").to_pylist()
        mine = np.flatnonzero(partitions_of_words(WORDS, partitions) == partition)
        expected = [WORDS[i] for i in mine] + [WORDS[i] for i in mine if i % 2 == 0]
        assert found == expected


def test_a_partition_may_be_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "one.parquet")
    write_partitioned(path, pa.table({"key": [7]}), np.array([2], np.int32))
    assert [len(read_partition([path], i, ["key"])) for i in range(4)] == [0, 0, 1, 0]
    write_partitioned(path, pa.table({"key": pa.array([], pa.int64())}), np.empty(0, np.int32))
    assert read_partition([path], 0, ["key"]).schema == pa.schema([("key", pa.int64())])


@pytest.mark.parametrize("partitions", [1, 7, 350])
def test_partitions_are_even(partitions: int) -> None:
    keys = np.arange(100_000, dtype=np.int64) << 20 | 5
    for where in (partitions_of_keys(keys, partitions), partitions_of_words(WORDS, partitions)):
        rows = np.bincount(where, minlength=partitions)
        assert len(rows) == partitions
        expected = len(where) / partitions
        assert rows.max() < 1.5 * expected + 20
