from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, StorageError
from queries.user_lists import user_queries


def test_text_and_tables_are_normalised_and_joined_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffRed  Kite\r\nT-Shirt\n\n".encode())
    pq.write_table(pa.table({"query": ["red kite", None, "Ёлка"]}), tmp_path / "b.parquet")
    table = user_queries([str(tmp_path / "a.txt"), str(tmp_path / "b.parquet")])
    assert table["query"].to_pylist() == ["red kite", "t - shirt", "ёлка"]
    assert table["rank"].to_pylist() == [1, 2, 3]


def test_an_earlier_list_may_be_given_whatever_else_it_holds(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"query": pa.array(["dog"], pa.large_string()), "score": [1.0]}),
        tmp_path / "old.parquet",
    )
    assert user_queries([str(tmp_path / "old.parquet")])["query"].to_pylist() == ["dog"]


@pytest.mark.parametrize("table", [{"text": ["dog"]}, {"query": [7]}, {}])
def test_a_table_without_queries_is_refused(tmp_path: Path, table: dict[str, list[object]]) -> None:
    pq.write_table(pa.table(table), tmp_path / "mine.parquet")
    with pytest.raises(InputError, match="has no column `query` of strings"):
        user_queries([str(tmp_path / "mine.parquet")])


def test_a_list_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(" \n\n")
    with pytest.raises(InputError, match=r"mine\.txt holds no queries"):
        user_queries([str(tmp_path / "mine.txt")])


def test_a_broken_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        user_queries([str(tmp_path / "mine.parquet")])


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.txt"):
        user_queries([str(tmp_path / "nowhere.txt")])
