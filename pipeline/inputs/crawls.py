"""Read crawls, as WARC with the pages themselves or as WAT with what Common Crawl lists of them."""

from collections.abc import Iterator
from typing import BinaryIO, Literal, Protocol

from pipeline.inputs.captures import capture_record
from pipeline.inputs.pairs import BrokenRecord, Skipped
from pipeline.inputs.responses import (
    MAX_PAGE_BYTES,
    charset_of,
    decode_payload,
    is_html,
    parse_http,
)
from pipeline.inputs.warc import BROKEN_ARCHIVE, Record, raise_if_of_the_disk, read_records
from pipeline.inputs.wat import ListReader
from pipeline.pages.page_rows import PageRows
from pipeline.pages.reader import PageReader
from pipeline.pages.row_tables import Chunk


class RecordReader(Protocol):
    """Adds the rows of one record after the other."""

    def add_record(self, record: Record) -> None:
        """Add the rows of a record.

        Raises:
            BrokenRecord, OSError, ValueError, EOFError, RuntimeError: if it cannot be read.
        """


def read_crawl(
    file: BinaryIO, kind: Literal["warc", "wat"], source: str, limit: int
) -> Iterator[Chunk]:
    """Yield the pairs, drops and captures of a crawl, as soon as there are `limit` rows or memory is full.

    A record that cannot be read is one drop, "broken_record", with its offset.
    """
    rows = PageRows(source, limit)
    reader: RecordReader = WarcReader(rows) if kind == "warc" else ListReader(rows)
    for record in read_records(file):
        if isinstance(record, Skipped):
            rows.add([record])
        else:
            mark = rows.mark()
            try:
                reader.add_record(record)
            except BROKEN_ARCHIVE as error:
                raise_if_of_the_disk(error)
                rows.back_to(mark)
                rows.add([Skipped("broken_record", record.offset, str(error))])
        if rows.is_full:
            yield rows.take()
    if not rows.is_empty:
        yield rows.take()


class WarcReader:
    """Adds the rows of the pages in a WARC file; each other response is a drop, and a capture if a picture."""

    def __init__(self, rows: PageRows) -> None:
        """Write to `rows`."""
        self._rows = rows
        self._pages = PageReader(rows)

    def add_record(self, record: Record) -> None:
        """Add the rows of a `response` or `resource`; requests, metadata and the like have none.

        Raises:
            BrokenRecord: if the record cannot be read.
        """
        if not record.kind:
            raise BrokenRecord("no WARC-Type")
        if record.kind not in ("response", "resource"):
            record.body.pass_over()
            return
        http, start = parse_http(record)
        media_type = http.headers.get("content-type", "")
        if http.status != 200:
            record.body.pass_over()
            self._drop("http_error", record, f"status {http.status}")
        elif not is_html(http.headers, record, start):
            record.body.pass_over()
            self._drop("not_html", record, media_type[:100] or "no Content-Type")
            capture = capture_record(record.target, record.offset, record.headers, media_type)
            if capture:
                self._rows.captures.append(capture)
        else:
            block = memoryview(record.body.whole(MAX_PAGE_BYTES))
            self._pages.add_page(
                decode_payload(block[start:], http.headers),
                page_url=record.target,
                charset=charset_of(media_type),
                offset=record.offset,
            )

    def _drop(self, reason: str, record: Record, seen: str) -> None:
        self._rows.add([Skipped(reason, record.offset, seen)])
