"""Take pictures from the archives that were ingested, in place of the web."""

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.fetching.refusals import FetchRefused
from pipeline.fetching.robots_tag import check_headers
from pipeline.inputs.pairs import Skipped
from pipeline.inputs.responses import decode_payload, page_url_of, parse_http
from pipeline.inputs.warc import BROKEN_ARCHIVE, Record, raise_if_of_the_disk, read_records
from pipeline.pages.urls import resolve
from pipeline.runtime import storage
from pipeline.runtime.manifest import Part
from pipeline.runtime.stage import TaskOutput

_HEADS_BYTES = 1 << 18


class Place(NamedTuple):
    """Where a picture lies; see CAPTURES."""

    source: str
    source_offset: int
    length: int
    container: str


def find_captures(parts: Sequence[Part], urls: pa.Array, output: TaskOutput) -> dict[str, Place]:
    """Return the first place of each of `urls` that has one, reading one of `parts` at a time."""
    places: dict[str, Place] = {}
    for part in parts:
        captures = output.read(part, schemas.CAPTURES, ["url", *Place._fields])
        found = captures.filter(pc.is_in(captures.column("url"), value_set=urls))
        for row in found.to_pylist():
            places.setdefault(row.pop("url"), Place(**row))
    return places


@dataclass(frozen=True, kw_only=True)
class Archives:
    """Fetches what `places` knows from below `root`, and by `otherwise` the rest.

    Attributes:
        agents: names by which stored headers may address us.
    """

    root: str
    places: Mapping[str, Place]
    max_bytes: int
    agents: tuple[str, ...]
    otherwise: Callable[[str], bytes] | None

    def fetch(self, url: str) -> bytes:
        """Return the bytes of the picture at `url`.

        Raises:
            FetchRefused: with a reason code of the download stage.
            StorageError: if the archive cannot be read.
        """
        place = self.places.get(url)
        if place is None:
            if self.otherwise is None:
                raise FetchRefused("not_captured")
            return self.otherwise(url)
        path = storage.join(self.root, place.source) if self.root else place.source
        # Of a record, what stands before the picture is added, and what compressing may add.
        spare = 0 if place.container == "tar" else self.max_bytes // 1000 + _HEADS_BYTES
        if place.length > self.max_bytes + spare:
            raise FetchRefused("too_large", f"{place.length} bytes announced")
        if place.container == "tar":
            body = _read_member(path, place)
        else:
            data = storage.read_range(path, place.source_offset, place.length)
            body = self._payload(data, url)
        if len(body) > self.max_bytes:
            raise FetchRefused("too_large", f"more than {self.max_bytes} bytes")
        if not body:
            raise FetchRefused("empty")
        return body

    def _payload(self, data: bytes, url: str) -> bytes:
        record = next(read_records(io.BytesIO(data)), None)
        if record is None or isinstance(record, Skipped):
            raise FetchRefused("broken_capture", "no record begins there")
        target = page_url_of(record.headers.get("warc-target-uri"))
        if record.offset or resolve(target or "", None).url != url:
            raise FetchRefused("broken_capture", "the record there is of another address")
        try:
            return self._answer(record)
        except BROKEN_ARCHIVE as error:
            raise_if_of_the_disk(error)
            raise FetchRefused("broken_capture", str(error)) from error

    def _answer(self, record: Record) -> bytes:
        http, start = parse_http(record)
        lines = record.body.head()[:start].decode("latin-1").split("\n")[1:]
        named = (line.partition(":") for line in lines)
        check_headers(
            [(name.strip().lower(), value.strip()) for name, _, value in named], self.agents
        )
        if int(record.headers.get("content-length", "0")) - start > self.max_bytes:
            raise FetchRefused("too_large", f"more than {self.max_bytes} bytes")
        block = record.body.whole(start + self.max_bytes)
        return bytes(decode_payload(block[start:], http.headers))


def _read_member(path: str, place: Place) -> bytes:
    start = place.source_offset - tarfile.BLOCKSIZE
    data = storage.read_range(path, max(start, 0), place.length + tarfile.BLOCKSIZE)
    head, body = data[: tarfile.BLOCKSIZE], data[tarfile.BLOCKSIZE :]
    try:
        member = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise FetchRefused("broken_capture", f"no tar member begins there: {error}") from error
    if start < 0 or not member.isreg() or member.size != place.length:
        raise FetchRefused("broken_capture", "the tar member there is another")
    if len(body) < place.length:
        raise FetchRefused("broken_capture", f"{len(body)} of {place.length} bytes")
    return body
