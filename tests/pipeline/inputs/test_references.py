import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.inputs import references
from pipeline.inputs.references import read_references, split_input, split_row_groups
from pipeline.inputs.tables import ColumnChoice

ANY = ColumnChoice()


def parquet(rows: int, group: int) -> io.BytesIO:
    urls = [f"http://x/{i}" for i in range(rows)]
    file = io.BytesIO()
    pq.write_table(pa.table({"url": urls, "text": ["A dog"] * rows}), file, row_group_size=group)
    return file


def test_a_large_parquet_file_is_cut_between_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "PIECE_ROWS", 5)
    pieces = list(split_row_groups(pq.read_metadata(parquet(20, 3))))
    assert [(p.first, p.after, p.first_row) for p in pieces] == [
        (0, 2, 0),
        (2, 4, 6),
        (4, 6, 12),
        (6, 7, 18),
    ]


def test_the_pieces_hold_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "PIECE_ROWS", 7)
    file = parquet(50, 4)
    pieces = split_input(file, "x", ANY)
    assert len(pieces) > 1
    rows = [row for piece in pieces for row in read_references(file, "x", ANY, piece)]
    assert rows == list(read_references(file, "x", ANY))


def test_a_file_of_another_kind_is_one_piece() -> None:
    assert split_input(io.BytesIO(b"url,text\nhttp://x/a,A dog\n"), "x", ANY) == [None]


def test_an_empty_parquet_file_is_one_piece_without_rows() -> None:
    file = parquet(0, 4)
    [piece] = split_input(file, "x", ANY)
    assert list(read_references(file, "x", ANY, piece)) == []


def test_a_compressed_table_that_breaks_off_keeps_what_came_before() -> None:
    text = "url,text\n" + "".join(f"http://x/{i * 7919},A dog {i}\n" for i in range(20_000))
    cut = gzip.compress(text.encode())[:-5000]
    rows = list(read_references(io.BytesIO(cut), "x", ANY))
    assert len(rows) > 1000
    assert {type(row).__name__ for row in rows[:-1]} == {"Reference"}
    assert (rows[-1].reason, rows[-1].offset) == ("broken_record", len(rows) - 1)  # type: ignore[union-attr]
