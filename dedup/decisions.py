"""What becomes of each pair of one part, once everything is known of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dedup.links import METHODS
from pipeline import schemas
from pipeline.runtime.buckets import Places


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found of the pairs of one part.

    Attributes:
        overlaps: FOUND, ordered by row, what only is reported included.
        is_out: for each of `overlaps` whether its pair is dropped for it.
        links: LINKS, leading to pairs that stay.
        spared: places of pairs that stay though `links` has them.
        over: places of pairs whose caption too many preferred pairs have.
    """

    overlaps: pa.Table
    is_out: npt.NDArray[np.bool_]
    links: pa.Table
    spared: Places
    over: Places


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One part's tables: DEDUPLICATED, DROPS, DUPLICATES and EVAL_OVERLAPS."""

    kept: pa.Table
    drops: pa.Table
    duplicates: pa.Table
    eval_overlaps: pa.Table


def decide(pairs: pa.Table, found: Findings) -> Decided:
    """Split one part by what was found of its pairs."""
    pair_id = pairs.column("pair_id")
    links = found.links.sort_by("place")
    row = _row(links.column("place").to_numpy())
    stays = np.isin(row, _row(found.spared))
    duplicates = pa.table(
        {
            "pair_id": pair_id.take(pa.array(row)),
            "duplicate_of": links.column("duplicate_of"),
            "method": pa.array(METHODS).take(links.column("method")),
            "distance": links.column("distance"),
            "stays": stays,
        },
        schemas.DUPLICATES,
    )
    eval_overlaps = pa.table(
        {
            "pair_id": pair_id.take(found.overlaps.column("row")),
            **{name: found.overlaps.column(name) for name in schemas.EVAL_OVERLAPS.names[1:]},
        },
        schemas.EVAL_OVERLAPS,
    )
    drops = pa.concat_tables(
        [
            _overlap_drops(found, pair_id),
            _duplicate_drops(duplicates, row[~stays], ~stays),
            _caption_drops(pairs, _row(found.over)),
        ]
    ).sort_by("row")
    is_kept = np.ones(pairs.num_rows, np.bool_)
    is_kept[drops.column("row").to_numpy()] = False
    return Decided(
        kept=pairs.filter(pa.array(is_kept)),
        drops=drops.drop_columns(["row"]).cast(schemas.DROPS),
        duplicates=duplicates,
        eval_overlaps=eval_overlaps,
    )


def _row(place: Places) -> Places:
    row: Places = place & 0xFFFFFFFF
    return row


def _overlap_drops(found: Findings, pair_id: pa.ChunkedArray) -> pa.Table:
    """Return drops of the pairs that overlap, each for the first thing it overlaps."""
    out = found.overlaps.filter(pa.array(found.is_out))
    row, first = np.unique(out.column("row").to_numpy(), return_index=True)
    out = out.take(pa.array(first))
    by_caption = pc.equal(out.column("method"), "caption")
    reason = pc.if_else(by_caption, "evaluation_caption", "evaluation_overlap")
    met = pc.binary_join_element_wise(out.column("evalset"), out.column("item"), "/")
    return _drops(row, pair_id, reason, met)


def _duplicate_drops(
    duplicates: pa.Table, row: Places, is_dropped: npt.NDArray[np.bool_]
) -> pa.Table:
    dropped = duplicates.filter(pa.array(is_dropped))
    columns = [pa.array(row), *(dropped.column(n) for n in ("pair_id", "method", "duplicate_of"))]
    return pa.table(columns, _ROW_DROPS)


def _caption_drops(pairs: pa.Table, row: Places) -> pa.Table:
    row = np.sort(row)
    reason = pa.chunked_array([pa.repeat("same_caption", len(row))])
    return _drops(row, pairs.column("pair_id"), reason, pairs.column("caption").take(pa.array(row)))


def _drops(
    row: Places, pair_id: pa.ChunkedArray, reason: pa.ChunkedArray, detail: pa.ChunkedArray
) -> pa.Table:
    return pa.table([pa.array(row), pair_id.take(pa.array(row)), reason, detail], _ROW_DROPS)


_ROW_DROPS = pa.schema([("row", pa.int64()), *((n, pa.string()) for n in schemas.DROPS.names)])
