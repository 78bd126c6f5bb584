"""Tables of pairs, from ingest to captions."""

import pyarrow as pa

from pipeline.schemas.columns import column, extend

PAIRS = pa.schema(
    [
        column(
            "pair_id", pa.string(), "128-bit xxh3 of url, a zero byte and caption, as 32 hex digits"
        ),
        column("url", pa.string(), "absolute http(s) address of the image"),
        column("caption", pa.string(), "text found beside the image, as crawled"),
        column(
            "caption_source",
            pa.string(),
            "where the text stood: alt, title, figcaption, og_alt, og_description, og_title; or table",
        ),
        column("page_url", pa.string(), "page the image stood on", nullable=True),
        column("source", pa.string(), "input file, relative to what was given"),
        column(
            "source_offset", pa.int64(), "byte offset of the record in the file, or row of a table"
        ),
        column(
            "blur_boxes",
            pa.list_(pa.list_(pa.float32())),
            "left, top, right and bottom of what is blurred before the image is stored, each as a "
            "share of width or height, 0 to 1; null where nothing is",
            nullable=True,
        ),
    ]
)

SOURCE_KEYS = pa.schema(
    [
        column("pair_id", pa.string(), "the pair"),
        column("key", pa.string(), "what the input called the row, such as DataComp's uid"),
    ]
)

CAPTURES = pa.schema(
    [
        column("url", pa.string(), "absolute http(s) address of the picture"),
        column("source", pa.string(), "input file that holds it, relative to what was given"),
        column("source_offset", pa.int64(), "first byte of the record or tar member in the file"),
        column("length", pa.int64(), "bytes from there on that hold it"),
        column("media_type", pa.string(), "as the server or file name says, empty if neither does"),
        column(
            "container", pa.string(), "what stands there: warc, a record; tar, the bare picture"
        ),
    ]
)

DROPS = pa.schema(
    [
        column(
            "pair_id",
            pa.string(),
            "null where there never was both a URL and a caption",
            nullable=True,
        ),
        column("reason", pa.string(), "the stage's reason code"),
        column(
            "detail",
            pa.string(),
            "what was seen, such as the value or the file and offset",
            nullable=True,
        ),
    ]
)

MATCHES = extend(
    PAIRS, column("query_ids", pa.list_(pa.int32()), "ascending ids into QUERIES, never empty")
)

LANGUAGES = extend(
    MATCHES,
    column("language", pa.string(), "ISO 639 code of the most probable language"),
    column("language_probability", pa.float32(), "the model's probability for it, 0 to 1"),
)

CAPTIONS = LANGUAGES
