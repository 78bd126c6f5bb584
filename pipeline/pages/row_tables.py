"""Rows of one input as tables."""

from collections.abc import Sequence

import pyarrow as pa

from pipeline import schemas
from pipeline.inputs.captures import Capture
from pipeline.inputs.pairs import Reference, Skipped, pair_ids
from pipeline.runtime.drops import drop_rows

KEYED_PAIRS = schemas.PAIRS.append(schemas.SOURCE_KEYS.field("key").with_nullable(True))
MAX_DETAIL_CHARACTERS = 400

Chunk = tuple[pa.Table, pa.Table, Sequence[Capture]]
"""KEYED_PAIRS, DROPS and captures."""


def tabulate(rows: Sequence[Reference | Skipped | Capture], source: str) -> Chunk:
    """Return `rows` as a chunk, in their order."""
    references = [row for row in rows if isinstance(row, Reference)]
    skipped = [row for row in rows if isinstance(row, Skipped)]
    urls, captions = [r.url for r in references], [r.caption for r in references]
    pairs = pa.table(
        {
            "pair_id": pair_ids(urls, captions),
            "url": urls,
            "caption": captions,
            "caption_source": [r.caption_source for r in references],
            "page_url": [r.page_url for r in references],
            "source": [source] * len(references),
            "source_offset": [r.offset for r in references],
            "blur_boxes": [r.blur_boxes for r in references],
            "key": [r.key for r in references],
        },
        schema=KEYED_PAIRS,
    )
    drops = drop_rows(
        [s.pair_id for s in skipped],
        [s.reason for s in skipped],
        [f"{source}@{s.offset}: {s.seen}"[:MAX_DETAIL_CHARACTERS] for s in skipped],
    )
    return pairs, drops, [row for row in rows if isinstance(row, Capture)]
