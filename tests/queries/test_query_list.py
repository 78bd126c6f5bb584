from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schemas
from pipeline.errors import InputError, SchemaError, StorageError
from queries.query_list import read_queries


def write(path: Path, queries: list[str], ids: list[int] | None = None) -> str:
    rows = len(queries)
    numbers = ids if ids is not None else range(rows)
    table = [
        {"query_id": i, "query": query, "source": "unigram", "sources": ["unigram"]}
        for i, query in zip(numbers, queries, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(table, schemas.QUERIES), path)
    return str(path)


def test_lines_of_text_are_normalised_and_repetitions_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffGolden  Retriever\r\n\r\nT-Shirt\ngolden retriever\n猫\nЁлка".encode())
    table = read_queries(str(path))
    assert table["query"].to_pylist() == ["golden retriever", "t - shirt", "猫", "ёлка"]
    assert table["query_id"].to_pylist() == [0, 1, 2, 3]
    assert set(table["source"].to_pylist()) == {"user"}
    assert table["sources"].to_pylist() == [["user"]] * 4
    assert table.schema.equals(schemas.QUERIES)


def test_lines_of_text_stay_as_they_are_by_the_rules_of_metaclip(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Apple\napple\n")
    table = read_queries(str(tmp_path / "mine.txt"), rules="metaclip")
    assert table["query"].to_pylist() == ["Apple", "apple"]


def test_a_parquet_list_is_read_as_it_is(tmp_path: Path) -> None:
    table = read_queries(write(tmp_path / "list.parquet", ["dog", "hot dog"]))
    assert table["query"].to_pylist() == ["dog", "hot dog"]


@pytest.mark.parametrize("query", ["Dog", "hot  dog", "t-shirt", ""])
def test_a_parquet_query_that_is_not_normalised_is_refused(tmp_path: Path, query: str) -> None:
    path = write(tmp_path / "list.parquet", ["dog", query])
    with pytest.raises(InputError, match="is not normalised or empty"):
        read_queries(path)


def test_a_query_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a query twice"):
        read_queries(write(tmp_path / "list.parquet", ["dog", "dog"]))


@pytest.mark.parametrize("ids", [[1, 2], [0, 0], [1, 0]])
def test_ids_that_are_not_positions_are_refused(tmp_path: Path, ids: list[int]) -> None:
    with pytest.raises(InputError, match="query_id is not the position"):
        read_queries(write(tmp_path / "list.parquet", ["dog", "cat"], ids))


@pytest.mark.parametrize("content", [b"", b"\n\n", "\u200b\n".encode()])
def test_a_list_without_queries_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(InputError, match="holds no queries"):
        read_queries(str(tmp_path / "mine.txt"))


def test_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"dog\ncaf\xe9\n")
    with pytest.raises(InputError, match="line 2 is not UTF-8"):
        read_queries(str(tmp_path / "mine.txt"))


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "list.parquet", ["dog"]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_queries(str(path))


def test_other_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": ["dog"]}), tmp_path / "list.parquet")
    with pytest.raises(SchemaError, match="missing query_id; missing source"):
        read_queries(str(tmp_path / "list.parquet"))


def test_a_list_of_an_earlier_version_is_named_as_such(tmp_path: Path) -> None:
    columns = {"query_id": pa.array([0], pa.int32()), "query": ["dog"], "source": ["unigram"],
               "count": [9], "score": [1.5]}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "old.parquet")
    with pytest.raises(
        InputError, match=r"old\.parquet is a list of an earlier witmill.*build it again"
    ):
        read_queries(str(tmp_path / "old.parquet"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere\.txt"):
        read_queries(str(tmp_path / "nowhere.txt"))
