"""Collect the pairs and drops of many pages in columns, with a Python object for few of them."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.inputs.captures import Capture
from pipeline.inputs.pairs import Place, Reference, Skipped, pair_ids, readable
from pipeline.matching.trie_tables import Bytes, Ids
from pipeline.pages.assemble import (
    LEFT,
    NO_CAPTION_ROW,
    ROWS,
    TEXT_BYTES,
    URL_BYTES,
    assemble,
    room_for_addresses,
    room_for_texts,
)
from pipeline.pages.html import MAX_IMAGES, MAX_METAS
from pipeline.pages.html_tokens import PADDING
from pipeline.pages.row_tables import KEYED_PAIRS, MAX_DETAIL_CHARACTERS, Chunk, tabulate
from pipeline.pages.urls import MAX_URL_CHARACTERS
from pipeline.runtime.drops import drop_rows

Row = Reference | Skipped

_SOURCES = pa.array(["alt", "title", "og_alt", "og_description", "og_title"])
_REASONS = pa.array(["no_caption", "no_url", "data_url"])
_ARENA_BYTES = 1 << 23
_MOST_IMAGES = MAX_IMAGES + MAX_METAS
# An address to which relative ones can be joined by writing them behind its folder.
_PLAIN_BASE = re.compile(
    r"((https?:)//[A-Za-z0-9._-]*[A-Za-z0-9](?::[1-9]\d{0,3})?)(/[!$-:<->@-\[\]-~]*)?(?:\?[!$-\[\]-~]*)?"
)


class PageRows:
    """Rows of pages in the order in which they were added, until `take` makes tables of them."""

    def __init__(self, source: str, limit: int) -> None:
        """Begin with no rows; after `limit` of them `is_full`."""
        self._source = source
        self._limit = limit
        most = limit + 2 * _MOST_IMAGES
        self._kinds = np.empty(most, np.uint8)
        self._pages, self._url_ends, self._text_ends = (np.empty(most, np.int32) for _ in range(3))
        self._urls, self._texts = (np.empty(_ARENA_BYTES, np.uint8) for _ in range(2))
        self._left = np.empty((_MOST_IMAGES, 2), np.int32)
        self._filled = np.zeros(4, np.int64)
        # Rows, bytes of addresses and of texts so far, as `assemble` counts them.
        self._ends = [0, 0, 0]
        self._page_urls: list[str | None] = []
        self._offsets: list[int] = []
        # Rows made singly, each with how many of the others come before it.
        self._singles: list[tuple[int, Row]] = []
        self.captures: list[Capture] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time to `take`."""
        rows, url_bytes, text_bytes = self._ends
        is_long = rows + len(self._singles) >= self._limit
        return is_long or max(url_bytes, text_bytes) > _ARENA_BYTES // 2

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not (self._ends[ROWS] or self._singles or self.captures)

    def add(self, rows: Iterable[Row], before: int | None = None) -> None:
        """Append rows, behind the first `before` of those that `add_images` made, by default all."""
        position = self._ends[ROWS] if before is None else before
        self._singles.extend((position, row) for row in rows)

    def mark(self) -> tuple[list[int], int]:
        """Return where the rows end now, for `back_to`."""
        return self._ends, len(self._singles)

    def back_to(self, mark: tuple[list[int], int]) -> None:
        """Forget the rows added since `mark`."""
        self._ends = mark[0]
        del self._singles[mark[1] :]

    def add_images(
        self,
        page: Bytes,
        images: Ids,
        captions: Ids,
        place: Place,
        *,
        is_json: bool = False,
        may_have_sources: bool = False,
    ) -> list[tuple[int, int]]:
        """Append the rows of the images that are plain; return the others, each with the rows before it.

        Args:
            page: what the spans in `images` point to.
            captions: start and end of each figure's caption.
            may_have_sources: whether images without an address may stand in a `<picture>` that has one.
        """
        base, lengths = split_base(place.base)
        self._make_room(images, len(base))
        self._page_urls.append(readable(place.page_url) if place.page_url else None)
        self._offsets.append(place.offset)
        self._filled[:LEFT] = self._ends
        assemble(
            page,
            images,
            captions,
            base,
            lengths,
            is_json,
            may_have_sources,
            len(self._offsets) - 1,
            self._kinds,
            self._pages,
            self._url_ends,
            self._text_ends,
            self._urls,
            self._texts,
            self._left,
            self._filled,
        )
        *self._ends, left = self._filled.tolist()
        return [(i, before) for i, before in self._left[:left].tolist()] if left else []

    def _make_room(self, images: Ids, base_size: int) -> None:
        url_bytes = room_for_addresses(images, base_size) + PADDING
        text_bytes = room_for_texts(images) + PADDING
        self._urls = _grown(self._urls, self._ends[URL_BYTES], url_bytes)
        self._texts = _grown(self._texts, self._ends[TEXT_BYTES], text_bytes)

    def take(self) -> Chunk:
        """Return all rows as tables and begin anew."""
        rows = self._ends[ROWS]
        kinds, pages = self._kinds[:rows], self._pages[:rows]
        urls = _strings(self._urls, self._url_ends[:rows])
        texts = _strings(self._texts, self._text_ends[:rows])
        page_urls = pa.array(self._page_urls, pa.string()).take(pa.array(pages))
        offsets = np.array(self._offsets, np.int64)[pages]
        is_pair = kinds < NO_CAPTION_ROW
        single_pairs, single_drops, _ = tabulate([row for _, row in self._singles], self._source)
        pairs = _in_order(
            self._pairs(urls, texts, kinds, page_urls, offsets, is_pair),
            np.flatnonzero(is_pair),
            single_pairs,
            [before for before, row in self._singles if isinstance(row, Reference)],
        )
        drops = _in_order(
            self._drops(urls, kinds, offsets, ~is_pair),
            np.flatnonzero(~is_pair),
            single_drops,
            [before for before, row in self._singles if isinstance(row, Skipped)],
        )
        chunk = pairs, drops, self.captures
        self._ends = [0, 0, 0]
        self._page_urls, self._offsets, self._singles, self.captures = [], [], [], []
        self._urls, self._texts = _shrunk(self._urls), _shrunk(self._texts)
        return chunk

    def _pairs(
        self,
        urls: pa.Array,
        texts: pa.Array,
        kinds: Bytes,
        page_urls: pa.Array,
        offsets: npt.NDArray[np.int64],
        is_pair: npt.NDArray[np.bool_],
    ) -> pa.Table:
        mask = pa.array(is_pair)
        urls, texts = urls.filter(mask), texts.filter(mask)
        columns = {
            "pair_id": pair_ids(urls, texts),
            "url": urls,
            "caption": texts,
            "caption_source": _SOURCES.take(pa.array(kinds[is_pair])),
            "page_url": page_urls.filter(mask),
            "source": pa.repeat(self._source, len(urls)),
            "source_offset": offsets[is_pair],
            "blur_boxes": pa.nulls(len(urls), KEYED_PAIRS.field("blur_boxes").type),
            "key": pa.nulls(len(urls), pa.string()),
        }
        return pa.table(columns, schema=KEYED_PAIRS)

    def _drops(
        self,
        urls: pa.Array,
        kinds: Bytes,
        offsets: npt.NDArray[np.int64],
        is_drop: npt.NDArray[np.bool_],
    ) -> pa.Table:
        urls = urls.filter(pa.array(is_drop))
        places = pc.cast(pa.array(offsets[is_drop]), pa.string())
        details = pc.binary_join_element_wise(f"{self._source}@", places, ": ", urls, "")
        return drop_rows(
            pa.nulls(len(urls), pa.string()),
            _REASONS.take(pa.array(kinds[is_drop] - NO_CAPTION_ROW)),
            pc.utf8_slice_codeunits(details, 0, MAX_DETAIL_CHARACTERS),
        )


def split_base(base: str | None) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return the folder of `base`, and of it how long scheme, origin and all are, 0 where it is not plain."""
    found = _PLAIN_BASE.fullmatch(base) if base and len(base) <= MAX_URL_CHARACTERS else None
    if not found:
        return np.empty(0, np.uint8), np.zeros(3, np.int64)
    origin, scheme, path = found.groups()
    folder = origin + (path or "/")[: (path or "/").rindex("/") + 1]
    is_straight = "/." not in folder and "//" not in folder[len(origin) :]
    lengths = [len(scheme), len(origin), len(folder) if is_straight else 0]
    return np.frombuffer(folder.encode(), np.uint8), np.array(lengths, np.int64)


def _grown(arena: Bytes, used: int, more: int) -> Bytes:
    if used + more <= arena.size:
        return arena
    larger = np.empty(used + more, np.uint8)
    larger[:used] = arena[:used]
    return larger


def _shrunk(arena: Bytes) -> Bytes:
    return arena if arena.size <= _ARENA_BYTES else np.empty(_ARENA_BYTES, np.uint8)


def _strings(arena: Bytes, ends: Ids) -> pa.Array:
    offsets = np.concatenate([np.zeros(1, np.int32), ends])
    data = pa.py_buffer(arena[: offsets[-1]].tobytes())
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), data)


def _in_order(
    table: pa.Table, places: npt.NDArray[np.int64], singles: pa.Table, befores: Sequence[int]
) -> pa.Table:
    if not befores:
        return table
    keys = np.concatenate([2 * np.array(befores, np.int64), 2 * places + 1])
    order = np.argsort(keys, kind="stable")
    return pa.concat_tables([singles, table]).combine_chunks().take(pa.array(order))
