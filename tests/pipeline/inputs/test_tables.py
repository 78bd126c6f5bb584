import gzip
import io
import json
import tracemalloc
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.inputs import tables
from pipeline.inputs.files import open_text
from pipeline.inputs.pairs import Reference, Skipped
from pipeline.inputs.tables import (
    ColumnChoice,
    find_columns,
    parquet_columns,
    read_delimited,
    read_json_lines,
    read_parquet,
)

ANY = ColumnChoice()
DOG = Reference("http://x/a.jpg", "A dog", "table", None, 0)


def outline(rows: object) -> list[str]:
    return [r.caption if isinstance(r, Reference) else r.reason for r in rows]  # type: ignore[attr-defined]


def csv(text: str, delimiter: str = ",", choice: ColumnChoice = ANY) -> list[Reference | Skipped]:
    return list(read_delimited(io.StringIO(text, newline=""), delimiter, choice, table="t"))


def lines(text: str | bytes, choice: ColumnChoice = ANY) -> list[Reference | Skipped]:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return list(read_json_lines(open_text(io.BytesIO(data)), choice, table="t"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["URL", "TEXT"], ("URL", "TEXT", None, None, None)),
        (["id", "image_url", "alt", "page-url"], ("image_url", "alt", "page-url", None, None)),
        (["uid", "url", "text", "caption"], ("url", "caption", None, "uid", None)),
        (["TOP_CAPTION", "Image URL"], ("Image URL", "TOP_CAPTION", None, None, None)),
        (["url", "text", "face_bboxes"], ("url", "text", None, None, "face_bboxes")),
    ],
)
def test_usual_names_are_recognised(names: list[str], expected: tuple[str, ...]) -> None:
    assert find_columns(names, ANY, table="t") == expected


def test_named_columns_win() -> None:
    choice = ColumnChoice(url="b", caption="text")
    assert find_columns(["url", "text", "caption", "b"], choice, table="t")[:2] == ("b", "text")


@pytest.mark.parametrize(
    ("names", "choice", "option"),
    [
        (["a", "text"], ANY, "for image URLs.*a, text.*--url-column"),
        (["url", "b"], ANY, "for captions.*url, b.*--caption-column"),
        (["url", "text"], ColumnChoice(url="zzz"), '"zzz".*--url-column'),
        (["url", "text"], ColumnChoice(caption="zzz"), '"zzz".*--caption-column'),
        (["url", "text"], ColumnChoice(key="zzz"), '"zzz".*--key-column'),
        (["url", "text"], ColumnChoice(boxes="zzz"), '"zzz".*--boxes-column'),
        ([], ANY, "--url-column"),
    ],
)
def test_a_missing_column_names_those_found_and_the_option(
    names: list[str], choice: ColumnChoice, option: str
) -> None:
    with pytest.raises(InputError, match=option):
        find_columns(names, choice, table="t")


def test_a_first_line_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="t has no readable first line"):
        csv("url,text" + "x" * 200_000)


def test_a_csv_row_is_a_pair_with_its_number() -> None:
    found = csv('url,caption,page\r\nhttp://x/a.jpg,"A ""big"" dog,\nasleep",http://x/\r\n')
    assert found == [Reference("http://x/a.jpg", 'A "big" dog,\nasleep', "table", "http://x/", 0)]


def test_a_quote_in_a_tsv_is_a_character() -> None:
    assert outline(csv('url\ttext\nhttp://x/a\t"A dog\nhttp://x/b\tA cat"\n', "\t")) == [
        '"A dog',
        'A cat"',
    ]


@pytest.mark.parametrize("text", ["A dog\thttp://x/a.jpg\n", "http://x/a.jpg\tA dog\n"])
def test_two_columns_need_no_header(text: str) -> None:
    assert csv(text + text.replace("a.jpg", "b.jpg"), "\t") == [
        DOG,
        Reference("http://x/b.jpg", "A dog", "table", None, 1),
    ]


def test_rows_of_another_width_are_broken_and_counted() -> None:
    found = csv("url,text\nhttp://x/a,A dog\nhttp://x/b\n\nhttp://x/c,A,cat\n,x\nhttp://x/d,A cow")
    assert outline(found) == ["A dog", "broken_record", "broken_record", "no_url", "A cow"]
    assert [row.offset for row in found] == [0, 1, 3, 4, 5]


def test_a_field_without_end_is_one_broken_row() -> None:
    rows = "".join(f"http://x/{i},A dog\n" for i in range(20_000))
    found = outline(csv('url,text\nhttp://x/a,A cat\nhttp://x/b,"unclosed\n' + rows))
    assert found[0] == "A cat"
    assert "broken_record" in found
    assert found.count("A dog") > 5000


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("long", ["x" * 350, "x," * 175, '"' + "x" * 350, "x" * 99 + "\r\nx"])
def test_a_row_too_long_is_one_broken_row_and_the_next_is_read(
    long: str, delimiter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MAX_LINE_CHARACTERS", 100)
    good = f"http://x/a{delimiter}A dog\n"
    text = f"url{delimiter}text\n{good}{long}\n{good}"
    found = outline(csv(text, delimiter))
    assert found[0] == found[-1] == "A dog"
    assert set(found[1:-1]) == {"broken_record"}
    assert long.count("\n") or len(found) == 3


def test_a_field_of_many_megabytes_is_not_held_in_memory() -> None:
    packed = gzip.compress(b"x" * (100 << 20), compresslevel=1)
    tracemalloc.start()
    try:
        data = open_text(io.BytesIO(packed))
        with pytest.raises(InputError, match="t has no readable first line"):
            next(read_delimited(data, ",", ANY, table="t"))
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


def test_a_json_line_is_a_pair() -> None:
    found = lines('{"url": "http://x/a.jpg", "text": "A dog", "width": 3}\n')
    assert found == [DOG]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"url": null, "text": "x"}', ["no_url"]),
        ('{"url": 5, "text": "x"}', ["no_url"]),
        ('{"text": "x"}', ["no_url"]),
        ('{"url": "http://x/a", "text": ["x"]}', ["no_caption"]),
        ('{"url": "ftp://x/a", "text": "x"}', ["bad_scheme"]),
        ('{"url": "http://x/a", "text": "a\\ud800"}', ["a\ufffd"]),
        ('{"url": "http://x/a", "text": "a\\u0000b"}', ["a\ufffdb"]),
        ('{"url": "http://x/a", "text": "a\ud800"}', ["a\ufffd\ufffd\ufffd"]),
        ("[1, 2]", ["broken_record"]),
        ('{"url": ', ["broken_record"]),
        ("[" * 100_000, ["broken_record"]),
        ("", []),
    ],
)
def test_other_json_is_dropped_with_a_reason(line: str, expected: list[str]) -> None:
    good = '{"url": "http://x/a", "text": "A dog"}'
    assert outline(lines(f"{good}\n{line}\n{good}")) == ["A dog", *expected, "A dog"]


def test_an_object_without_its_nulls_does_not_hide_a_column() -> None:
    text = '{"id": 1}\n{"url": "http://x/b"}\n{"text": "A dog", "url": "http://x/a.jpg"}\n'
    found = lines(text)
    assert outline(found) == ["no_url", "no_caption", "A dog"]
    assert [row.offset for row in found] == [0, 1, 2]


def test_columns_are_found_behind_many_broken_lines() -> None:
    found = lines("[]\n" * 3000 + '{"text": "A dog", "url": "http://x/a"}\n')
    assert outline(found) == ["broken_record"] * 3000 + ["A dog"]


def test_long_lines_are_not_gathered_to_name_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_LINE_CHARACTERS", 100)
    text = io.StringIO('{"url": "http://x/a", "text": "A dog"}\n' * 50)
    assert next(read_json_lines(text, ANY, table="t")).offset == 0
    assert text.tell() < 300


def test_the_rest_of_a_line_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_LINE_CHARACTERS", 100)
    good = '{"url": "http://x/a", "text": "A dog"}\n'
    found = lines(good + "{" * 350 + "\n" + good)
    assert outline(found) == ["A dog", "broken_record", "A dog"]
    assert [row.offset for row in found] == [0, 1, 2]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines_are_read_in_their_encoding(encoding: str, end: str) -> None:
    text = end.join(f'{{"url": "http://x/{i}", "text": "Käse 犬 {i}"}}' for i in range(3))
    mark = "\ufeff" if encoding.endswith("e") else ""
    assert outline(lines((mark + text).encode(encoding))) == [f"Käse 犬 {i}" for i in range(3)]


def write(table: pa.Table, **settings: int) -> pq.ParquetFile:
    file = io.BytesIO()
    pq.write_table(table, file, **settings)
    return pq.ParquetFile(file)


def read_all(file: pq.ParquetFile) -> list[Reference | Skipped]:
    columns = parquet_columns(file.schema_arrow, ANY, table="t")
    return list(read_parquet(file, range(file.num_row_groups), columns, first_row=0))


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_every_kind_of_text_column_is_read(kind: pa.DataType) -> None:
    table = pa.table({"URL": ["http://x/a.jpg", None], "TEXT": ["A dog", "x"]})
    cast = table.cast(pa.schema([("URL", kind), ("TEXT", kind)]))
    assert read_all(write(cast)) == [DOG, Skipped("no_url", 1)]


def test_a_column_of_nulls_gives_no_captions() -> None:
    table = pa.table({"url": ["http://x/a"], "text": pa.nulls(1)})
    assert outline(read_all(write(table))) == ["no_caption"]


def test_a_column_that_holds_no_text_is_named() -> None:
    with pytest.raises(InputError, match='t has int64 in its column "url"'):
        read_all(write(pa.table({"url": [1], "text": ["x"]})))


@pytest.mark.parametrize(
    ("names", "repeated"), [(["url", "url", "text"], "url"), (["text", "url", "text"], "text")]
)
def test_a_column_that_is_there_twice_is_named(names: list[str], repeated: str) -> None:
    table = pa.Table.from_arrays([pa.array(["http://x/a"])] * 3, names=names)
    with pytest.raises(InputError, match=f't has 2 columns "{repeated}", expected one'):
        read_all(write(table))


def test_a_column_that_is_there_twice_and_not_read_does_not_matter() -> None:
    values = [pa.array([v]) for v in (1, 2, "http://x/a.jpg", "A dog")]
    assert read_all(write(pa.Table.from_arrays(values, names=["n", "n", "url", "text"]))) == [DOG]


def test_invalid_strings_of_a_parquet_file_are_replaced() -> None:
    wrong = pa.array([b"A \xff dog"]).view(pa.string())
    assert outline(read_all(write(pa.table({"url": ["http://x/a"], "text": wrong})))) == [
        "A \ufffd dog"
    ]


def test_a_broken_row_group_is_one_drop_and_the_next_is_read() -> None:
    names = [f"A dog {i}" for i in range(300)]
    table = pa.table({"url": [f"http://x/{i}" for i in range(300)], "text": names})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=100, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(file).metadata.row_group(1).column(1)
    data = bytearray(file.getvalue())
    data[place.data_page_offset : place.data_page_offset + 20] = b"\xff" * 20
    rows = read_all(pq.ParquetFile(io.BytesIO(bytes(data))))
    assert [row.offset for row in rows if isinstance(row, Skipped)] == [100]
    assert [row.offset for row in rows if isinstance(row, Reference)] == [
        *range(100),
        *range(200, 300),
    ]


def test_rows_are_numbered_from_the_first_of_the_file() -> None:
    table = pa.table({"url": ["http://x/a"] * 6, "text": list("abcdef")})
    file = write(table, row_group_size=2)
    columns = parquet_columns(file.schema_arrow, ANY, table="t")
    rows = list(read_parquet(file, [1, 2], columns, first_row=2))
    assert [(r.offset, r.caption) for r in rows if isinstance(r, Reference)] == [
        (2, "c"),
        (3, "d"),
        (4, "e"),
        (5, "f"),
    ]


def test_json_lines_and_csv_give_the_same_pairs() -> None:
    values = [("http://x/1", "A dog"), ("http://x/2", "Ein Hund, groß"), ("http://x/3", '"犬"')]
    as_json = "\n".join(json.dumps({"url": u, "caption": c}) for u, c in values)
    as_csv = "url,caption\n" + "".join(
        f'{u},"{c}"\n'.replace('""犬""', '"""犬"""') for u, c in values
    )
    assert lines(as_json) == csv(as_csv)


KEYED = ColumnChoice(key="id")


def keys(rows: Iterable[Reference | Skipped]) -> list[str | None]:
    return [row.key for row in rows if isinstance(row, Reference)]


def test_a_row_keeps_its_own_key_in_every_kind_of_table() -> None:
    values = {"id": ["7", None], "url": ["http://x/a", "http://x/b"], "text": ["A dog", "A cat"]}
    assert keys(csv("id,url,text\n7,http://x/a,A dog\n,http://x/b,A cat\n", choice=KEYED)) == [
        "7",
        None,
    ]
    json_lines = "".join(
        json.dumps(dict(zip(values, row, strict=True))) + "\n"
        for row in zip(*values.values(), strict=True)
    )
    assert keys(lines(json_lines, choice=KEYED)) == ["7", None]
    assert keys(lines(json_lines.replace('"7"', "7"), choice=KEYED)) == ["7", None]
    for ids in (["7", None], [7, None]):
        file = write(pa.table({**values, "id": ids}))
        columns = parquet_columns(file.schema_arrow, KEYED, table="t")
        assert keys(read_parquet(file, [0], columns, first_row=0)) == ["7", None]


@pytest.mark.parametrize("key", ["[" * 1000 + "]" * 1000, "{}", "null"])
def test_what_is_no_text_or_number_is_no_key(key: str) -> None:
    line = f'{{"id": {key}, "url": "http://x/a", "text": "A dog"}}\n'
    assert keys(lines(line, choice=KEYED)) == [None]


def test_a_date_that_python_cannot_hold_does_not_stop_the_reading() -> None:
    values = {"url": ["http://x/a"], "text": ["A dog"]}
    far = pa.array([10**12], pa.timestamp("s"))
    for ids, expected in ((far, "A dog"), (pa.array([[far[0]]]), "broken_record")):
        file = write(pa.table({**values, "id": ids}))
        columns = parquet_columns(file.schema_arrow, KEYED, table="t")
        assert outline(read_parquet(file, [0], columns, first_row=0)) == [expected]


def test_a_key_may_be_a_column_that_is_read_anyway() -> None:
    file = write(pa.table({"url": ["http://x/a"], "text": ["A dog"]}))
    columns = parquet_columns(file.schema_arrow, ColumnChoice(key="url"), table="t")
    assert keys(read_parquet(file, [0], columns, first_row=0)) == ["http://x/a"]


# The columns of published sets, in their order.
SETS = {
    "LAION-400M": ["SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "NSFW", "similarity"],
    "LAION-2B": ["URL", "TEXT", "WIDTH", "HEIGHT", "similarity", "punsafe", "pwatermark"],
    "COYO-700M": ["id", "url", "text", "width", "height", "image_phash", "text_length"],
    "DataComp": ["uid", "url", "text", "original_width", "original_height", "clip_b32_similarity"],
    "img2dataset": ["url", "caption", "key", "status", "error_message", "width", "height"],
}


@pytest.mark.parametrize("name", SETS)
def test_published_sets_need_no_options(name: str) -> None:
    numbers = {"SAMPLE_ID": 1.0, "id": 841814333321}
    row = {column: [numbers.get(column, "x")] for column in SETS[name]}
    place = {column.lower(): column for column in row}
    row[place["url"]] = ["http://x/a.jpg"]
    row[place.get("text") or place["caption"]] = ["A dog"]
    [found] = read_all(write(pa.table(row)))
    assert found == DOG._replace(key="x" if "uid" in row else None)


@pytest.mark.parametrize(
    "line",
    ["a dog on a beach\thttp://x/a.jpg", "http://x/a.jpg\ta dog on a beach"],
    ids=["CC3M", "CC12M"],
)
def test_conceptual_captions_need_no_header(line: str) -> None:
    assert [tuple(row)[:2] for row in csv(f"{line}\n", "\t")] == [
        ("http://x/a.jpg", "a dog on a beach")
    ]
