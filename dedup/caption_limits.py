"""How many captions of one picture stay, and how many pairs with one caption.

Captions are equal if their tokens are, once every number is put as 0: "Photo 12 of 30" is "photo 3 of 9".
Both limits are map and reduce: the pairs of each part are routed by group, or by caption, and each bucket
decides by itself, in the order of preference.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from dedup.exact import bucket_of, by_preference, digests, preference_of
from dedup.links import LINKS
from pipeline import schemas
from pipeline.runtime import storage
from pipeline.runtime.buckets import (
    PLACES,
    Places,
    part_of,
    read_bucket,
    write_buckets,
    write_whole,
)
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome, Part
from pipeline.runtime.stage import StageRun, TaskOutput
from queries.text import normalize

READ: Final = ["pair_id", "caption", "width", "height"]

ENTRIES: Final = pa.schema(
    [
        ("place", pa.int64()),
        ("pair_id", pa.string()),
        ("is_earlier", pa.int8()),
        ("area", pa.int64()),
        ("caption_fit", pa.int32()),
        ("group", pa.int64()),
        ("caption", pa.binary(16)),
    ]
)
"""What the limits carry of a pair: `group` is the place of the pair that its picture stays with."""

_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the steps before found out, as files to read a part's share of.

    Attributes:
        links: LINKS by part, leading to pairs that stay.
        earlier: PLACES by part that an earlier run kept.
        spared: PLACES by part that stay though their picture is another's.
    """

    links: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """One part, and the file of PLACES that take no part, for they overlap an evaluation set."""

    part: Part
    index: int
    output: TaskOutput
    outside: str


@dataclass(frozen=True, kw_only=True)
class RouteTask:
    """One part whose pairs to route; by caption, what is over the limit by itself goes to `over`."""

    candidates: Candidates
    by: Literal["group", "caption"]
    known: Known
    most: int
    caption_characters: int
    buckets: int
    entries: str
    over: str


@dataclass(frozen=True, kw_only=True)
class LimitTask:
    """One bucket of entries to limit; the PLACES that it is about by part."""

    by: Literal["group", "caption"]
    entries: tuple[str, ...]
    bucket: int
    parts: int
    most: int
    places: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the limits spare and drop.

    Attributes:
        spared: files of PLACES by part: further captions of pictures, which stay.
        over: files of PLACES by part: pairs whose caption too many have.
        over_in_part: of each part a file of those PLACES that are too many within the part.
    """

    spared: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    over_in_part: tuple[str, ...] = ()


def limit_captions(
    stage: StageRun,
    executor: Executor,
    candidates: Sequence[Candidates],
    known: Known,
    *,
    per_picture: int,
    per_caption: int,
    caption_characters: int,
    buckets: int,
) -> Limits:
    """Apply both limits; `per_caption` 0 is none."""
    limits = Limits()
    if per_picture > 1:
        spared, _ = _limit(
            stage, executor, candidates, known, "group", per_picture, caption_characters, buckets
        )
        limits = replace(limits, spared=spared)
        known = replace(known, spared=spared)
    if per_caption:
        over, in_part = _limit(
            stage, executor, candidates, known, "caption", per_caption, caption_characters, buckets
        )
        limits = replace(limits, over=over, over_in_part=in_part)
    return limits


def _limit(
    stage: StageRun,
    executor: Executor,
    candidates: Sequence[Candidates],
    known: Known,
    by: Literal["group", "caption"],
    most: int,
    caption_characters: int,
    buckets: int,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    folder = stage.scratch(f"limit-{by}")
    routing = [
        RouteTask(
            candidates=some,
            by=by,
            known=known,
            most=most,
            caption_characters=caption_characters,
            buckets=buckets,
            entries=storage.join(folder, f"{some.index:05d}.entries"),
            over=storage.join(folder, f"{some.index:05d}.over"),
        )
        for some in candidates
    ]
    stage.map(executor, f"route by {by}", route_entries, routing)
    limiting = [
        LimitTask(
            by=by,
            entries=tuple(task.entries for task in routing),
            bucket=bucket,
            parts=len(routing),
            most=most,
            places=storage.join(folder, f"{bucket:05d}.places"),
        )
        for bucket in range(buckets)
    ]
    stage.map(executor, f"limit by {by}", limit_bucket, limiting)
    return tuple(task.places for task in limiting), tuple(task.over for task in routing)


def route_entries(task: RouteTask) -> Outcome:
    """Route the pairs of one part; runs in a worker."""
    some, known = task.candidates, task.known
    pairs = some.output.read(some.part, schemas.DOWNLOADED, READ)
    links = read_bucket(known.links, some.index, LINKS)
    earlier = read_places(known.earlier, some.index)
    entries = make_entries(
        pairs, links, earlier, part=some.index, caption_characters=task.caption_characters
    )
    outside = read_places([some.outside], 0)
    if task.by == "caption":
        gone = np.setdiff1d(links.column("place").to_numpy(), read_places(known.spared, some.index))
        outside = np.append(outside, gone)
    entries = entries.filter(pa.array(~np.isin(_places(entries), outside)))
    if task.by == "caption":
        # No caption can then fill a bucket, however common it is.
        over = beyond(entries, task.most)
        write_whole(task.over, pa.table([over], PLACES))
        entries = entries.filter(pa.array(~np.isin(_places(entries), over)))
        bucket = bucket_of(entries.column("caption"), task.buckets)
    else:
        write_whole(task.over, PLACES.empty_table())
        bucket = entries.column("group").to_numpy() % task.buckets
    write_buckets(task.entries, entries, bucket, task.buckets)
    return Outcome(rows_in=pairs.num_rows, rows_out=entries.num_rows)


def limit_bucket(task: LimitTask) -> Outcome:
    """Limit the entries of one bucket; runs in a worker."""
    entries = read_bucket(task.entries, task.bucket, ENTRIES)
    found = spared(entries, task.most) if task.by == "group" else beyond(entries, task.most)
    places = pa.table([found], PLACES)
    write_buckets(task.places, places, part_of(places), task.parts)
    return Outcome(rows_in=entries.num_rows, rows_out=places.num_rows)


def make_entries(
    pairs: pa.Table,
    links: pa.Table,
    earlier: Places,
    *,
    part: int,
    caption_characters: int,
) -> pa.Table:
    """Return the ENTRIES of a part's pairs, which have the columns `READ`.

    Args:
        links: LINKS of the part.
        earlier: places that an earlier run kept.
    """
    place = np.arange(pairs.num_rows, dtype=np.int64) + (part << 32)
    group = place.copy()
    group[links.column("place").to_numpy() & 0xFFFFFFFF] = links.column("target").to_numpy()
    texts = [plain(text) for text in pairs.column("caption").to_pylist()]
    columns = {
        "place": place,
        "pair_id": pairs.column("pair_id"),
        "is_earlier": np.isin(place, earlier).astype(np.int8),
        **preference_of(pairs, caption_characters),
        "group": group,
        "caption": digests(pa.chunked_array([texts], pa.string())),
    }
    return pa.table(columns, ENTRIES)


def plain(caption: str) -> str:
    """Return what two captions have in common that differ in case, spacing and numbers alone."""
    return _NUMBER.sub("0", normalize(caption))


def spared(entries: pa.Table, most: int) -> Places:
    """Return the places that stay beside the first of their group: `most` different captions in all."""
    entries = by_preference(entries)
    group, caption = _codes(entries, "group"), _codes(entries, "caption")
    is_new = _rank(group * len(entries) + caption) == 0
    entries, group = entries.filter(pa.array(is_new)), group[is_new]
    rank = _rank(group)
    return _places(entries)[(rank > 0) & (rank < most)]


def beyond(entries: pa.Table, most: int) -> Places:
    """Return the places of pairs to which `most` others with the same caption are preferred."""
    entries = by_preference(entries)
    return _places(entries)[_rank(_codes(entries, "caption")) >= most]


def read_places(paths: Sequence[str], bucket: int) -> Places:
    """Return the places in one bucket of files of PLACES."""
    return _places(read_bucket(paths, bucket, PLACES))


def _places(rows: pa.Table) -> Places:
    places: Places = rows.column("place").to_numpy()
    return places


def _codes(rows: pa.Table, column: str) -> Places:
    """Return a small number for each different value of a column."""
    codes = rows.column(column).combine_chunks().dictionary_encode().indices
    numbers: Places = codes.to_numpy().astype(np.int64)
    return numbers


def _rank(codes: Places) -> Places:
    """Return for each row how many before it have the same code."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    is_first = np.ones(len(codes), np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(is_first)
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return rank
