"""Find the images of HTML pages: most by their tags alone, the others by their tree."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.inputs.pairs import Place, Reference, Skipped
from pipeline.matching.trie_tables import Ids
from pipeline.pages.character_references import read_attribute
from pipeline.pages.encodings import as_utf8
from pipeline.pages.figures import MAX_FIGURES
from pipeline.pages.html import (
    MAX_IMAGES,
    MAX_PICTURE_SOURCES,
    Candidate,
    caption_text,
    choose_base,
    find_images,
    refer_image,
    source_candidates,
)
from pipeline.pages.html_kernels import (
    BASE_END,
    BASE_START,
    DOUBT,
    FOUND_SIZE,
    FULL,
    IMAGE_COLUMNS,
    IMAGES,
    IN_FIGURE,
    IN_PICTURE,
    METAS,
    PICTURE_DOUBT,
    SOURCES,
    scan_page,
)
from pipeline.pages.page_rows import PageRows
from pipeline.pages.scans import Attributes, Scan, read_attributes

_LONGEST_MARKUP = 16_384
_WITHOUT_ADDRESS = {"no_url", "data_url", "bad_scheme", "bad_url"}


class NeedsTree(Exception):
    """The tags alone do not tell what a page means."""


class PageReader:
    """Adds the rows of one page after the other.

    Attributes:
        by_tree: how many pages needed their tree.
    """

    def __init__(self, rows: PageRows) -> None:
        """Write to `rows`."""
        self._rows = rows
        self._scan = Scan(rows)
        self._sources = np.empty((MAX_IMAGES, IMAGE_COLUMNS), np.int32)
        self._captions = np.empty((MAX_FIGURES, 2), np.int32)
        self._found = np.zeros(FOUND_SIZE, np.int64)
        self.by_tree = 0

    def add_page(
        self, page: bytes | memoryview, *, page_url: str | None, charset: str | None, offset: int
    ) -> None:
        """Add the rows of the images of `page`, in its order, then those of Open Graph.

        Args:
            charset: what the HTTP header says.
            offset: of the page's record.

        Raises:
            BrokenRecord: if the page has too many images, or would keep the parser busy without end.
        """
        mark = self._rows.mark()
        try:
            self._add_by_tags(as_utf8(page, charset), page_url, offset)
        except NeedsTree:
            self.by_tree += 1
            self._rows.back_to(mark)
            found = find_images(page, page_url=page_url, charset=charset, offset=offset)
            self._rows.add(found)

    def _add_by_tags(self, content: bytes | memoryview, page_url: str | None, offset: int) -> None:
        scan = self._scan
        scan.load(content)
        tables = scan.images, self._sources, scan.metas, self._captions
        scan_page(scan.page, len(content), *tables, self._found)
        found = self._found.tolist()
        if found[DOUBT] or found[FULL]:
            raise NeedsTree
        if not found[IMAGES] and not found[METAS]:
            return

        def read(start: int, end: int) -> str:
            return read_attribute(str(content[start:end], "utf-8", "replace"))

        href = read(found[BASE_START], found[BASE_END]) if found[BASE_START] >= 0 else None
        place = Place(choose_base(href, page_url), page_url, offset)
        pictures: Mapping[int, list[Candidate]] | None = None
        captions: dict[int, str] = {}

        def refer(attributes: Attributes, spans: Sequence[int]) -> list[Reference | Skipped]:
            nonlocal pictures
            if pictures is None:
                pictures = _by_picture(self._sources[: found[SOURCES]], read)
            sources = () if found[PICTURE_DOUBT] else pictures.get(spans[IN_PICTURE], ())
            figure = spans[IN_FIGURE]
            if figure not in captions:
                captions[figure] = self._caption(content, figure)
            rows = refer_image(attributes, place, sources, captions[figure])
            # Its picture may have an address, but which picture it stands in is not clear.
            if found[PICTURE_DOUBT] and _is_unaddressed(rows[0]):
                raise NeedsTree
            return rows

        scan.add_rows(
            (found[IMAGES], found[METAS]),
            place,
            read=read,
            refer=refer,
            captions=self._captions,
            may_have_sources=bool(found[PICTURE_DOUBT]),
        )

    def _caption(self, content: bytes | memoryview, figure: int) -> str:
        if figure < 0:
            return ""
        start, end = self._captions[figure].tolist()
        if start < 0:
            return ""
        # So long a text is no caption, and parsing it once more for every image takes its time.
        if end - start > _LONGEST_MARKUP:
            raise NeedsTree
        return caption_text(str(content[start:end], "utf-8", "replace"))


def _is_unaddressed(row: Reference | Skipped) -> bool:
    return isinstance(row, Skipped) and row.reason in _WITHOUT_ADDRESS


def _by_picture(sources: Ids, read: Callable[[int, int], str]) -> Mapping[int, list[Candidate]]:
    found: dict[int, list[Candidate]] = {}
    counts: Counter[int] = Counter()
    for spans in sources.tolist():
        picture = spans[IN_PICTURE]
        counts[picture] += 1
        if counts[picture] <= MAX_PICTURE_SOURCES:
            candidates = source_candidates(read_attributes(spans, read))
            found.setdefault(picture, []).extend(candidates)
    return found
