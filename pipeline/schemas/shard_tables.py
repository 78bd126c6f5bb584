"""Tables of finished shards."""

import pyarrow as pa

from pipeline.schemas.columns import column, extend
from pipeline.schemas.duplicate_tables import DEDUPLICATED

_NAMES_IN_SHARDS = {
    "image_sha256": "sha256",
    "width": "original_width",
    "height": "original_height",
}

_NOT_IN_SHARDS = ("query_ids", "selected_by", "pdq", "image_file", "image_offset", "image_length")

SAMPLE = pa.schema(
    [
        *(
            field.with_name(_NAMES_IN_SHARDS.get(field.name, field.name))
            for field in DEDUPLICATED
            if field.name not in _NOT_IN_SHARDS
        ),
        column(
            "pdq",
            pa.string(),
            "PDQ perceptual hash, hex",
            nullable=DEDUPLICATED.field("pdq").nullable,
        ),
        column(
            "queries",
            pa.list_(pa.string()),
            "queries that the caption contains, in the list's order",
        ),
        column(
            "selected_by",
            pa.list_(pa.string()),
            "queries that chose the pair under their cap, in the list's order",
        ),
        column("width", pa.int32(), "pixels, as stored"),
        column("height", pa.int32(), "pixels, as stored"),
        column(
            "uid",
            pa.string(),
            "what the input called the row, such as DataComp's uid; null where it had no name for it",
            nullable=True,
        ),
    ]
)

SHARD_INDEX = extend(
    SAMPLE,
    column("shard", pa.string(), "tar file, relative to the workspace"),
    column("key", pa.string(), "the sample's key in the tar"),
    column("status", pa.string(), "success, as img2dataset has it: other pairs have no sample"),
    column("error_message", pa.string(), "null, as img2dataset has it", nullable=True),
    column("image_member", pa.string(), "name of the image member, such as KEY.jpg"),
    column("image_offset", pa.int64(), "first byte of the image in the tar"),
    column("image_length", pa.int64(), "bytes of the image"),
    column("caption_offset", pa.int64(), "first byte of KEY.txt in the tar"),
    column("caption_length", pa.int64(), "bytes of KEY.txt"),
    column("metadata_offset", pa.int64(), "first byte of KEY.json in the tar"),
    column("metadata_length", pa.int64(), "bytes of KEY.json"),
)

SHARDS = pa.schema(
    [
        column("shard", pa.string(), "tar file, relative to the workspace"),
        column("samples", pa.int64(), "samples in it"),
        column("bytes", pa.int64(), "size of the tar"),
        column("sha256", pa.string(), "of the tar, hex"),
    ]
)

REMOVALS = pa.schema(
    [
        column("kind", pa.string(), "what the list names: url, hash or pair_id"),
        column("value", pa.string(), "one of them; a hash is a sha256 or a PDQ hash, hex"),
        column("list", pa.string(), "name of the file that was given"),
    ]
)

REMOVED = pa.schema(
    [
        column("pair_id", pa.string(), "the pair that was taken out"),
        column("url", pa.string(), "of its image"),
        column("sha256", pa.string(), "of its image's bytes as fetched, hex"),
        column("matched", pa.string(), "what the list named it by: url, sha256, pdq or pair_id"),
        column("list", pa.string(), "name of the list that named it"),
    ]
)
