from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train.samples.conditions
from pipeline.errors import ConfigError, InputError
from train.samples.conditions import chosen
from train.samples.indexed import Indexed

COLUMNS = pa.schema([("pair_id", pa.string()), ("width", pa.int64()), ("caption", pa.string())])


class Asked:
    """Shards of rows with a width each, and which columns of them were asked for."""

    def __init__(self, *shards: Sequence[int]) -> None:
        self.columns: list[list[str]] = []
        self.tables = [
            pa.table(
                [[f"{i}-{j}" for j in range(len(s))], list(s), [f"text {w}" for w in s]],
                schema=COLUMNS,
            )
            for i, s in enumerate(shards)
        ]

    def read(self, shard: int, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        self.columns.append(list(columns))
        return self.tables[shard].slice(first, last - first).select(list(columns))

    @property
    def indexed(self) -> Indexed:
        rows = np.array([len(table) for table in self.tables])
        return Indexed(rows=rows, identity=str(self.tables), columns=COLUMNS, read=self.read)


@settings(max_examples=25)
@given(
    shards=st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=6),
    least=st.integers(0, 9),
    together=st.integers(1, 30),
)
def test_the_samples_that_meet_a_condition_are_read_in_their_order(
    shards: list[list[int]],
    least: int,
    together: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    expected = [[f"{i}-{j}" for j, w in enumerate(s) if w >= least] for i, s in enumerate(shards)]
    where = f"width >= {least}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.samples.conditions, "ROWS_TOGETHER", together)
        cache = str(tmp_path_factory.mktemp("cache"))
        if not any(expected):
            with pytest.raises(InputError, match="no sample meets"):
                chosen(Asked(*shards).indexed, where, cache)
            return
        found = chosen(Asked(*shards).indexed, where, cache)
    assert found.rows.tolist() == [len(keys) for keys in expected]
    for shard, keys in enumerate(expected):
        for first in range(len(keys)):
            for last in range(first + 1, len(keys) + 1):
                table = found.read(shard, first, last, ["pair_id"])
                assert table.column("pair_id").to_pylist() == keys[first:last]


def test_the_answer_is_kept_and_asked_anew_for_other_samples(tmp_path: Path) -> None:
    some = Asked([1, 2], [3])
    chosen(some.indexed, "width > 1", str(tmp_path))
    some.columns.clear()
    again = chosen(some.indexed, "width > 1", str(tmp_path))
    assert not some.columns
    assert again.rows.tolist() == [1, 1]
    other = Asked([2, 2], [3])
    assert chosen(other.indexed, "width > 1", str(tmp_path)).rows.tolist() == [2, 1]


def test_only_the_columns_of_the_condition_are_read(tmp_path: Path) -> None:
    some = Asked([1, 2], [3])
    chosen(some.indexed, 'samples."WIDTH" > 1', str(tmp_path))
    assert some.columns == [["width"]] * 2
    for where in (
        "COLUMNS(*) IS NOT NULL",
        "#1 <> '' AND width > 0",
        "samples <> NULL OR width > 0",
    ):
        some.columns.clear()
        chosen(some.indexed, where, str(tmp_path))
        assert some.columns == [COLUMNS.names] * 2


def test_a_list_in_another_file_is_read_anew_each_time(tmp_path: Path) -> None:
    some = Asked([1, 2], [3])
    scores = tmp_path / "scores.csv"
    where = f"pair_id IN (SELECT id FROM '{scores}' WHERE score > 0.5)"
    scores.write_text("id,score\n0-1,0.9\n1-0,0.2\n")
    first = chosen(some.indexed, where, str(tmp_path))
    scores.write_text("id,score\n0-1,0.9\n1-0,0.8\n")
    second = chosen(some.indexed, where, str(tmp_path))
    assert (first.rows.tolist(), second.rows.tolist()) == ([1, 0], [1, 1])
    assert first.identity != second.identity
    scores.write_text("id,score\n0-0,0.9\n1-0,0.8\n")
    third = chosen(some.indexed, where, str(tmp_path))
    assert third.rows.tolist() == [1, 1]
    assert third.identity != second.identity
    # What was opened before stays as it was.
    assert second.read(0, 0, 1, ["pair_id"]).column(0).to_pylist() == ["0-1"]


def test_a_damaged_answer_is_asked_for_anew(tmp_path: Path) -> None:
    some = Asked([1, 2], [3])
    chosen(some.indexed, "width > 1", str(tmp_path))
    (kept,) = tmp_path.rglob("chosen/*")
    for left in (0, 3, kept.stat().st_size - 4):
        kept.write_bytes(kept.read_bytes()[:left])
        found = chosen(some.indexed, "width > 1", str(tmp_path))
        assert found.read(0, 0, 1, ["width"]).column(0).to_pylist() == [2]


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ("widht > 1", "widht"),
        ("width >", "syntax error"),
        ("width > 1) OR (1 = 1; DROP TABLE samples", "failed"),
        ("1 = 1); COPY (SELECT 1) TO 'x.csv'; SELECT (1 = 1", "3 statements"),
        ("true) UNION ALL SELECT (999", "closes a bracket"),
        ("true) GROUP BY (1", "closes a bracket"),
        ("random() < 0.5", r"random\(\)"),
        ("width = (SELECT max(width) FROM samples)", "asks of all samples together"),
        ("caption::INTEGER > 1", "Conversion Error"),
        ("width IN (SELECT x FROM 'https://example.org/x.parquet')", "failed"),
        ("sum(width) > 3", "aggregates"),
    ],
)
def test_a_wrong_condition_is_one_line(where: str, seen: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=seen) as error:
        chosen(Asked([1, 2]).indexed, where, str(tmp_path))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("chosen/*"))
