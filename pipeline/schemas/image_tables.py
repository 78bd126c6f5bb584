"""Tables of downloaded images and the hosts they came from."""

import pyarrow as pa

from pipeline.schemas.balance_tables import BALANCED
from pipeline.schemas.columns import column, extend

ROBOTS = pa.schema(
    [
        column("origin", pa.string(), "scheme, host and unusual port, such as https://example.org"),
        column(
            "status", pa.int32(), "HTTP status of its robots.txt; null without any", nullable=True
        ),
        column(
            "reason",
            pa.string(),
            "why nothing may be fetched there: no answer, or http_429, http_5NN; null where the text holds",
            nullable=True,
        ),
        column(
            "text",
            pa.string(),
            "what it says to us, of its first 500 KiB; empty where there is none",
        ),
        column("fetched_bytes", pa.int64(), "size of what was read"),
    ]
)

DOWNLOADED = extend(
    BALANCED,
    column("image_sha256", pa.string(), "of the bytes as fetched, hex"),
    column("image_bytes", pa.int64(), "size of the bytes as fetched"),
    column("image_format", pa.string(), "as fetched, by content: jpeg, png, webp, ..."),
    column("width", pa.int32(), "pixels, as fetched, after EXIF rotation"),
    column("height", pa.int32(), "pixels, as fetched, after EXIF rotation"),
    column(
        "pixel_hash",
        pa.string(),
        "xxh3-128 of width, height and RGB pixels, hex; of a JPEG of 1,023 pixels and more on its "
        "shorter side, decoded at half its size or less",
    ),
    column("pdq", pa.binary(32), "PDQ perceptual hash"),
    column("pdq_quality", pa.int32(), "PDQ's own measure, 0 to 100"),
    column("image_file", pa.string(), "tar with the stored image, relative to the workspace"),
    column("image_offset", pa.int64(), "first byte of the stored image in that file"),
    column("image_length", pa.int64(), "bytes of the stored image"),
)

HOST_ANSWERS = pa.schema(
    [
        column("host", pa.string(), "host name in lower case; empty where a URL has none"),
        column(
            "reason",
            pa.string(),
            "why there is no picture, as in DROPS; null for pictures that were stored",
            nullable=True,
        ),
        column("urls", pa.int64(), "different URLs of the host with that answer"),
        column("pairs", pa.int64(), "pairs with one of them"),
        column("bytes", pa.int64(), "of the pictures, as fetched"),
    ]
)

WORST_HOSTS = pa.schema(
    [
        column("host", pa.string(), "host name in lower case"),
        column("pairs", pa.int64(), "pairs with a URL of the host"),
        column("lost", pa.int64(), "those of them that were dropped"),
        column("reason", pa.string(), "why most of them were"),
    ]
)
