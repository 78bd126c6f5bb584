import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.inputs.boxes import parse_boxes
from pipeline.inputs.pairs import Reference, Skipped, hash_pair
from pipeline.inputs.tables import (
    ColumnChoice,
    parquet_columns,
    read_delimited,
    read_json_lines,
    read_parquet,
)

FACE = [0.25, 0.5, 0.75, 1.0]
ANY = ColumnChoice()


@pytest.mark.parametrize("nothing", [None, "", " ", [], "[]", "null"])
def test_a_row_may_have_no_boxes(nothing: object) -> None:
    assert parse_boxes(nothing) is None


@pytest.mark.parametrize("value", [[FACE, [0, 0, 1, 1]], "[[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]]"])
def test_boxes_are_lists_of_numbers_or_json(value: object) -> None:
    assert parse_boxes(value) == [FACE, [0.0, 0.0, 1.0, 1.0]]


def test_what_lies_outside_the_picture_is_cut_off() -> None:
    assert parse_boxes([[-0.2, 0.5, 0.3, 1.4]]) == [[0.0, 0.5, 0.3, 1.0]]


@pytest.mark.parametrize(
    "broken",
    [
        "a face",
        5,
        {"left": 0},
        [FACE, None],
        [0.1, 0.2, 0.3, 0.4],
        [[0.1, 0.2, 0.3]],
        [[0.1, 0.2, 0.3, None]],
        [[0.1, 0.2, 0.3, "0.4"]],
        [[0.1, 0.2, True, True]],
        [[0.1, 0.2, float("nan"), 0.4]],
        [[0.1, 0.2, float("inf"), 0.4]],
        [[0.5, 0.2, 0.1, 0.4]],
        [[0.1, 0.4, 0.5, 0.2]],
        [[120, 80, 200, 160]],
        "[[1, 2",
        ["0.1"],
    ],
)
def test_a_box_that_cannot_be_trusted_is_an_error(broken: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_boxes(broken)


BROKEN = Skipped("broken_box", 1, "a box is not four numbers", hash_pair("http://x/b.jpg", "A cat"))


def boxes_of(rows: list[Reference | Skipped]) -> list[object]:
    return [row.blur_boxes if isinstance(row, Reference) else row for row in rows]


URLS = [f"http://x/{name}.jpg" for name in "abc"]
TEXTS = ["A dog", "A cat", "A cow"]
EXPECTED = [[FACE], BROKEN, None]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float64())),
        pa.list_(pa.list_(pa.float32())),
        pa.large_list(pa.list_(pa.float64())),
        pa.string(),
    ],
)
def test_boxes_come_from_a_column_of_a_parquet_file(kind: pa.DataType) -> None:
    given: list[object] = [[FACE], [[0.5]], None]
    if pa.types.is_string(kind):
        given = [None if boxes is None else json.dumps(boxes) for boxes in given]
    table = pa.table({"url": URLS, "text": TEXTS, "face_bboxes": pa.array(given, kind)})
    file = io.BytesIO()
    pq.write_table(table, file)
    with pq.ParquetFile(file) as parquet:
        columns = parquet_columns(parquet.schema_arrow, ANY, table="t")
        assert boxes_of(list(read_parquet(parquet, [0], columns, first_row=0))) == EXPECTED


def test_boxes_come_from_json_lines() -> None:
    rows = [
        {"url": URLS[i], "text": TEXTS[i], "faces": boxes}
        for i, boxes in enumerate([[FACE], [[0.5]], None])
    ]
    text = io.StringIO("".join(f"{json.dumps(row)}\n" for row in rows))
    choice = ColumnChoice(boxes="faces")
    assert boxes_of(list(read_json_lines(text, choice, table="t"))) == EXPECTED


def test_boxes_come_from_json_in_a_column_of_tsv() -> None:
    boxes = [json.dumps([FACE]), "[[0.5]]", ""]
    lines = [f"{URLS[i]}\t{TEXTS[i]}\t{boxes[i]}\n" for i in range(3)]
    text = io.StringIO("".join(["url\ttext\tface_bboxes\n", *lines]), newline="")
    assert boxes_of(list(read_delimited(text, "\t", ANY, table="t"))) == EXPECTED
