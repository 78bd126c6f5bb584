"""What a scan of one page after the other finds, and the rows made of it."""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.inputs.pairs import Place, Reference, Skipped
from pipeline.matching.trie_tables import Bytes, Ids
from pipeline.pages.html import MAX_IMAGES, MAX_METAS
from pipeline.pages.html_kernels import IMAGE_COLUMNS, IN_FIGURE, META_COLUMNS
from pipeline.pages.html_tokens import PADDING
from pipeline.pages.open_graph import add_open_graph, refer_open_graph, refer_shown
from pipeline.pages.page_rows import PageRows
from pipeline.pages.tags import ATTRIBUTES

Attributes = dict[str, str | None]

_FIRST_BYTES = 1 << 20
_NO_CAPTIONS = np.empty((0, 2), np.int32)


class Scan:
    """The page at hand, and tables for its images and its tags of Open Graph; memory is kept from page to page."""

    def __init__(self, rows: PageRows) -> None:
        """Write to `rows`."""
        self.rows = rows
        self.page: Bytes = np.zeros(_FIRST_BYTES, np.uint8)
        self._table: Ids = np.empty((MAX_IMAGES + MAX_METAS, IMAGE_COLUMNS), np.int32)
        # Behind the images there is room for those of Open Graph.
        self.images: Ids = self._table[:MAX_IMAGES]
        self.metas: Ids = np.empty((MAX_METAS, META_COLUMNS), np.int32)

    def load(self, content: bytes | memoryview) -> None:
        """Make `content` the page at hand."""
        size = len(content)
        if size + PADDING > self.page.size:
            self.page = np.empty(2 * size + PADDING, np.uint8)
        self.page[:size] = np.frombuffer(content, np.uint8)
        self.page[size : size + PADDING] = 0

    def add_rows(
        self,
        counts: tuple[int, int],
        place: Place,
        *,
        read: Callable[[int, int], str],
        refer: Callable[[Attributes, Sequence[int]], Sequence[Reference | Skipped]],
        captions: Ids = _NO_CAPTIONS,
        is_json: bool = False,
        may_have_sources: bool = False,
    ) -> None:
        """Add the rows of the images found, then those of Open Graph.

        Args:
            counts: how many images and metas the scan found.
            read: returns the value between two places of the page.
            refer: returns the rows of an image that is not plain, from its attributes and its row.
            captions, is_json, may_have_sources: see `PageRows.add_images`.
        """
        count, metas = counts[0], self.metas[: counts[1]]
        shown = add_open_graph(self.page, metas, self._table[count:]) if counts[1] else 0
        images = self._table[: count + max(0, shown)]
        others = self.rows.add_images(
            self.page,
            images,
            captions,
            place,
            is_json=is_json,
            may_have_sources=may_have_sources,
        )
        for i, before in others:
            spans = images[i].tolist()
            attributes = read_attributes(spans, read)
            if spans[IN_FIGURE] < -1:
                rows = refer_shown(attributes, spans[IN_FIGURE], place)
            else:
                rows = list(refer(attributes, spans))
            self.rows.add(rows, before)
        if shown < 0:
            told = [(read(a, b).strip().lower(), read(c, d)) for a, b, c, d in metas.tolist()]
            self.rows.add(refer_open_graph(told, place))


def read_attributes(spans: Sequence[int], read: Callable[[int, int], str]) -> Attributes:
    """Return the attributes whose values stand where the row `spans` of a table says."""
    return {
        name: read(spans[2 * i], spans[2 * i + 1])
        for i, name in enumerate(ATTRIBUTES)
        if spans[2 * i] >= 0
    }
