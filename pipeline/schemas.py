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
            "first source that gave it: user, number, wordnet, unigram, bigram or title",
        ),
        _column(
            "sources",
            pa.list_(pa.string()),
            "every source that gave it, in the order of priority, never empty",
        ),
        _column(
            "count", pa.int64(), "occurrences of the word or pair in its corpus", nullable=True
        ),
        _column("pmi", pa.float64(), "pointwise mutual information of a pair, bits", nullable=True),
        _column("views", pa.int64(), "page views of the articles of that name", nullable=True),
        _column("redirects", pa.int64(), "redirects to the article of that name", nullable=True),
    ]
)

QUERY_CANDIDATES = pa.schema(
    [
        _column("query", pa.string(), "normalised text; once for each source that knows it"),
        _column("source", pa.string(), "user, number, wordnet, unigram, bigram or title"),
        _column(
            "rank",
            pa.int32(),
            "place among the source's own that reach its floors, from 1; null where one is missed",
            nullable=True,
        ),
        _column(
            "missed",
            pa.string(),
            "the first floor it does not reach, see docs/queries.md",
            nullable=True,
        ),
        *(QUERIES.field(name) for name in ("count", "pmi", "views", "redirects")),
    ]
)

QUERY_RECORD = _extend(
    QUERY_CANDIDATES,
    _column(
        "query_id", pa.int32(), "id into QUERIES; null where it is not in the list", nullable=True
    ),
)

PAGE_VIEWS = pa.schema(
    [
        _column("title", pa.string(), "title of an article, with spaces"),
        _column(
            "views", pa.int64(), "page views in the hours counted, those of redirects included"
        ),
    ]
)

WIKIPEDIA_WORDS = pa.schema(
    [
        _column("word", pa.string(), "a token with a letter or digit in it, normalised"),
        _column("count", pa.int64(), "occurrences in the text of articles"),
    ]
)

WIKIPEDIA_BIGRAMS = pa.schema(
    [
        _column("bigram", pa.string(), "two words that stand side by side, a space between"),
        _column("count", pa.int64(), "occurrences in the text of articles"),
        _column("pmi", pa.float64(), "pointwise mutual information, bits, to three decimals"),
    ]
)

WIKIPEDIA_PAGES = pa.schema(
    [
        _column("title", pa.string(), "title of an article or redirect, as written"),
        _column(
            "redirect_to", pa.string(), "title that it leads to; null for articles", nullable=True
        ),
        _column("disambiguation", pa.bool_(), "whether the page lists what its title may mean"),
    ]
)

PAIRS = pa.schema(
    [
        _column(
            "pair_id", pa.string(), "128-bit xxh3 of url, a zero byte and caption, as 32 hex digits"
        ),
        _column("url", pa.string(), "absolute http(s) address of the image"),
        _column("caption", pa.string(), "text found beside the image, as crawled"),
        _column(
            "caption_source",
            pa.string(),
            "where the text stood: alt, title, figcaption, og_alt, og_description, og_title; or table",
        ),
        _column("page_url", pa.string(), "page the image stood on", nullable=True),
        _column("source", pa.string(), "input file, relative to what was given"),
        _column(
            "source_offset", pa.int64(), "byte offset of the record in the file, or row of a table"
        ),
    ]
)

SOURCE_KEYS = pa.schema(
    [
        _column("pair_id", pa.string(), "the pair"),
        _column("key", pa.string(), "what the input called the row, such as DataComp's uid"),
    ]
)

CAPTURES = pa.schema(
    [
        _column("url", pa.string(), "absolute http(s) address of the picture"),
        _column("source", pa.string(), "input file that holds it, relative to what was given"),
        _column("source_offset", pa.int64(), "first byte of the record or tar member in the file"),
        _column("length", pa.int64(), "bytes from there on that hold it"),
        _column(
            "media_type", pa.string(), "as the server or file name says, empty if neither does"
        ),
        _column(
            "container", pa.string(), "what stands there: warc, a record; tar, the bare picture"
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
        _column(
            "first_cap",
            pa.int64(),
            "pairs that it may keep at balance: cap times headroom, rounded up",
        ),
        _column(
            "tail_share",
            pa.float64(),
            "share of the matches for which the cap was chosen; null where it was given",
            nullable=True,
        ),
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

BALANCE_SUMMARY = pa.schema(
    [
        _column("cap", pa.int64(), "pairs that a query may keep at this stage"),
        _column("pairs", pa.int64(), "different pairs to choose from, of all crawls added"),
        _column("kept", pa.int64(), "pairs kept"),
        _column("queries", pa.int64(), "queries of the list"),
        _column("queries_unmatched", pa.int64(), "queries without a match"),
        _column("queries_over_cap", pa.int64(), "queries with more matches than the cap"),
        _column("matches", pa.int64(), "matches of all queries"),
        _column("matches_over_cap", pa.int64(), "matches of the queries over the cap"),
        _column(
            "tail_share",
            pa.float64(),
            "share of the matches that queries at or under the cap hold",
            nullable=True,
        ),
        _column("matches_per_pair", pa.float64(), "matches / pairs", nullable=True),
        _column("selected", pa.int64(), "selections, summed over queries"),
        _column("present", pa.int64(), "matches that are left in the kept pairs"),
        _column(
            "queries_short",
            pa.int64(),
            "queries whose headroom ran out: cap matches or more at balance, fewer than cap pairs now; "
            "null at balance",
            nullable=True,
        ),
    ]
)

QUERY_DISTRIBUTION = pa.schema(
    [
        _column("measure", pa.string(), "matched, selected or present, as in QUERY_COUNTS"),
        _column("count", pa.int64(), "pairs of a query"),
        _column("queries", pa.int64(), "queries with so many"),
        _column("queries_up_to", pa.int64(), "queries with so many or fewer"),
        _column("pairs_up_to", pa.int64(), "pairs of these queries, summed over them"),
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
