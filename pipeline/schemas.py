"""Arrow schemas: the only contract between stages.

Each stage's main table is `W/STAGE/*.parquet`; a side table is `W/STAGE/TABLE/*.parquet`.
"""

import pyarrow as pa

from pipeline.errors import SchemaError


def _column(name: str, kind: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"about": about})


def _extend(schema: pa.Schema, *columns: pa.Field) -> pa.Schema:
    return pa.schema([*schema, *columns])


QUERIES = pa.schema(
    [
        _column("query_id", pa.int32(), "position in the list, from 0"),
        _column("query", pa.string(), "normalised text, tokens separated by single spaces"),
        _column(
            "source",
            pa.string(),
            "first source that gave it: wordnet, unigram, bigram, title or user",
        ),
        _column("count", pa.int64(), "occurrences in the source's corpus", nullable=True),
        _column(
            "score",
            pa.float64(),
            "what the source ranks by, see docs/queries.md",
            nullable=True,
        ),
    ]
)

PAIRS = pa.schema(
    [
        _column(
            "pair_id", pa.string(), "128-bit xxh3 of url, a zero byte and caption, as 32 hex digits"
        ),
        _column("url", pa.string(), "absolute http(s) address of the image"),
        _column("caption", pa.string(), "text found beside the image, as crawled"),
        _column("caption_source", pa.string(), "where the text stood: alt, table"),
        _column("page_url", pa.string(), "page the image stood on", nullable=True),
        _column("source", pa.string(), "input file, relative to what was given"),
        _column(
            "source_offset", pa.int64(), "byte offset of the record in the file, or row of a table"
        ),
    ]
)

DROPS = pa.schema(
    [
        _column(
            "pair_id",
            pa.string(),
            "null where there never was both a URL and a caption",
            nullable=True,
        ),
        _column("reason", pa.string(), "the stage's reason code"),
        _column(
            "detail",
            pa.string(),
            "what was seen, such as the value or the file and offset",
            nullable=True,
        ),
    ]
)

MATCHES = _extend(
    PAIRS, _column("query_ids", pa.list_(pa.int32()), "ascending ids into QUERIES, never empty")
)

LANGUAGES = _extend(
    MATCHES,
    _column("language", pa.string(), "ISO 639 code of the most probable language"),
    _column("language_probability", pa.float32(), "the model's probability for it, 0 to 1"),
)

CAPTIONS = LANGUAGES

BALANCED = _extend(
    CAPTIONS,
    _column(
        "selected_by",
        pa.list_(pa.int32()),
        "queries that chose the pair under their cap, ascending, never empty",
    ),
)

CAP = pa.schema(
    [
        _column("cap", pa.int64(), "pairs that a query may keep in the end"),
        _column("seed", pa.int64(), "of the priorities"),
    ]
)

QUERY_COUNTS = pa.schema(
    [
        _column("query_id", pa.int32(), "id into QUERIES"),
        _column("matched", pa.int64(), "pairs whose caption contains the query"),
        _column(
            "selected",
            pa.int64(),
            "pairs that the query chose: at most cap times headroom at balance, at most cap at rebalance",
        ),
        _column(
            "present",
            pa.int64(),
            "kept pairs whose caption contains the query, whichever query chose them",
        ),
        _column(
            "threshold",
            pa.uint64(),
            "largest priority selected; null where all were",
            nullable=True,
        ),
    ]
)

DOWNLOADED = _extend(
    BALANCED,
    _column("image_sha256", pa.string(), "of the bytes as fetched, hex"),
    _column("image_bytes", pa.int64(), "size of the bytes as fetched"),
    _column("image_format", pa.string(), "as fetched, by content: jpeg, png, webp, ..."),
    _column("width", pa.int32(), "pixels, as fetched, after EXIF rotation"),
    _column("height", pa.int32(), "pixels, as fetched, after EXIF rotation"),
    _column("pixel_hash", pa.string(), "xxh3-128 of width, height and the decoded RGB pixels, hex"),
    _column(
        "pdq",
        pa.binary(32),
        "PDQ perceptual hash; null where the picture is too small for one",
        nullable=True,
    ),
    _column("pdq_quality", pa.int32(), "PDQ's own measure, 0 to 100", nullable=True),
    _column("image_file", pa.string(), "tar with the stored image, relative to the workspace"),
    _column("image_offset", pa.int64(), "first byte of the stored image in that file"),
    _column("image_length", pa.int64(), "bytes of the stored image"),
)

DEDUPLICATED = DOWNLOADED

DUPLICATES = pa.schema(
    [
        _column("pair_id", pa.string(), "the dropped pair"),
        _column("duplicate_of", pa.string(), "the pair that stays"),
        _column("method", pa.string(), "same_url, same_bytes, same_pixels or near_duplicate"),
        _column("distance", pa.int32(), "differing PDQ bits; 0 for the exact methods"),
    ]
)

EVAL_OVERLAPS = pa.schema(
    [
        _column("pair_id", pa.string(), "the corpus pair"),
        _column("evalset", pa.string(), "name of the evaluation set"),
        _column("item", pa.string(), "file of the evaluation picture within the set"),
        _column("method", pa.string(), "same_bytes, same_pixels or near_duplicate"),
        _column("distance", pa.int32(), "differing PDQ bits; 0 for the exact methods"),
    ]
)

SHARD_INDEX = pa.schema(
    [
        _column("pair_id", pa.string(), "the sample's pair"),
        _column("shard", pa.string(), "tar file, relative to the workspace"),
        _column("key", pa.string(), "the sample's key in the tar"),
        _column("caption", pa.string(), "content of KEY.txt"),
        _column("image_member", pa.string(), "name of the image member, such as KEY.jpg"),
        _column("image_offset", pa.int64(), "first byte of the image in the tar"),
        _column("image_length", pa.int64(), "bytes of the image"),
        _column("caption_offset", pa.int64(), "first byte of KEY.txt in the tar"),
        _column("caption_length", pa.int64(), "bytes of KEY.txt"),
        _column("metadata_offset", pa.int64(), "first byte of KEY.json in the tar"),
        _column("metadata_length", pa.int64(), "bytes of KEY.json"),
    ]
)

SHARDS = pa.schema(
    [
        _column("shard", pa.string(), "tar file, relative to the workspace"),
        _column("samples", pa.int64(), "samples in it"),
        _column("bytes", pa.int64(), "size of the tar"),
        _column("sha256", pa.string(), "of the tar, hex"),
    ]
)

TRAINING_STEPS = pa.schema(
    [
        _column("step", pa.int64(), "optimiser steps taken, from 1"),
        _column("epoch", pa.int64(), "passes over the shards begun, from 0"),
        _column("samples", pa.int64(), "samples seen so far"),
        _column("loss", pa.float64(), "symmetric contrastive loss of the step's batch, nats"),
        _column("logit_scale", pa.float64(), "inverse temperature after the step"),
        _column("learning_rate", pa.float64(), "used for the step"),
    ]
)

EVALUATIONS = pa.schema(
    [
        _column("evalset", pa.string(), "name of the evaluation set"),
        _column("metric", pa.string(), "top1, top5 or mean_per_class"),
        _column("value", pa.float64(), "0 to 1"),
        _column(
            "low", pa.float64(), "lower end of the 95% Clopper-Pearson interval", nullable=True
        ),
        _column("high", pa.float64(), "upper end", nullable=True),
        _column("chance", pa.float64(), "expected of a guess"),
        _column("images", pa.int64(), "pictures evaluated"),
        _column("classes", pa.int64(), "classes to choose from"),
    ]
)

PREDICTIONS = pa.schema(
    [
        _column("evalset", pa.string(), "name of the evaluation set"),
        _column("item", pa.string(), "file of the picture within the set"),
        _column("label", pa.string(), "its true class"),
        _column("predicted", pa.string(), "class with the highest similarity"),
        _column("rank", pa.int32(), "rank of the true class, from 1"),
    ]
)


def check(table: pa.Table, expected: pa.Schema, *, source: str) -> pa.Table:
    """Return `table` unchanged if it has exactly the `expected` columns, and no null where none may be.

    Raises:
        SchemaError: naming `source` and every column that is missing, extra, mistyped or null.
    """
    problems = [f"missing {n}" for n in expected.names if n not in table.schema.names]
    problems += [f"unexpected {n}" for n in table.schema.names if n not in expected.names]
    for field in expected:
        if field.name not in table.schema.names:
            continue
        column = table.column(field.name)
        if column.type != field.type:
            problems.append(f"{field.name} is {column.type}, not {field.type}")
        elif column.null_count and not field.nullable:
            problems.append(f"{field.name} has {column.null_count} nulls")
    if not problems and table.schema.names != expected.names:
        problems.append(f"columns are in the order {table.schema.names}")
    if problems:
        raise SchemaError(f"{source}: {'; '.join(problems)}")
    return table
