"""The index of a tar of somebody else: which samples it holds, where, and which cannot be used and why.

Members that follow each other and share their name up to the first dot of the file name are one
sample, as in webdataset. Of an image kind the first present of IMAGES is taken; the caption is the
member .txt, or else "caption" in the member .json.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.inputs.tables import parse_json
from pipeline.runtime import storage
from pipeline.schemas.columns import column
from train.samples.tar_headers import BrokenTar, TarBytes, TarMember, members

IMAGES = ("jpg", "png", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif")
LARGEST_IMAGE = 1 << 28
LONGEST_TEXT = 1 << 20
ROWS_TOGETHER = 16_384
SHOWN = 200
FORMAT = 2

USABLE, NO_PICTURE, OTHER = "usable", "no_picture", "other"

REASONS = {
    "no_caption": "the sample has neither a .txt nor a .json with a caption, or it is blank",
    "bad_caption": "its caption is not UTF-8, or longer than a megabyte",
    "no_picture": "the sample has no picture",
    "large_picture": "its picture is larger than 256 MiB",
    "sparse_member": "its picture or text is stored with holes",
    "double_member": "the sample has two members of one kind",
    "double_key": "an earlier sample of the tar has the same key",
    "cut_short": "the tar ends within the sample",
    "broken_tar": "the tar cannot be read from here on",
    "compressed": "the tar as a whole is compressed",
}

TAR_INDEX = pa.schema(
    [
        column("key", pa.string(), "name of the sample's members up to the first dot"),
        column("caption", pa.string(), "its text; null where there is none", nullable=True),
        column("image_member", pa.string(), "name of its picture", nullable=True),
        column("image_offset", pa.int64(), "first byte of the picture in the tar"),
        column("image_length", pa.int64(), "bytes of the picture, 0 if there is none"),
        column("metadata", pa.string(), "the member .json, as JSON", nullable=True),
        column("reason", pa.string(), "why it cannot be used; null if it can", nullable=True),
        column("detail", pa.string(), "what was seen", nullable=True),
    ]
)

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_ABOUT_ALL = re.compile(r"__[^/]*__($|/)")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")


@dataclass(frozen=True, kw_only=True)
class TarSummary:
    """What an index says of its tar as a whole.

    The rows of an index begin with the `usable` samples, and the `without_picture` follow.

    Attributes:
        content: tells the rows of the index from any others.
    """

    bytes: int
    content: str
    usable: int
    without_picture: int
    left_out: dict[str, int]
    first_left_out: str


_SUMMARY = {told.name for told in fields(TarSummary)}


@dataclass
class _Sample:
    key: str
    members: dict[str, TarMember] = field(default_factory=dict)
    doubled: set[str] = field(default_factory=set)


def write_tar_index(tar: str, target: str) -> TarSummary:
    """Read the tar at a path or URL once, by its headers, and write its TAR_INDEX to `target`.

    Raises:
        StorageError: if one of them cannot be read or written.
    """
    with storage.storage_errors("read", tar), storage.open_input(tar) as file:
        # Nearby blocks of a local file cost a system call, those of an object a request.
        chunk = 8 << 20 if storage.is_url(tar) else 16 << 10
        content = TarBytes(
            lambda start, count: bytes(file.read_at(count, start)), file.size(), chunk
        )
        with (
            storage.atomic_output(target) as output,
            pq.ParquetWriter(output, TAR_INDEX, compression="zstd") as writer,
        ):
            index = _IndexFile(writer)
            for row in rows(content):
                index.add(row)
            return index.finish(content.size)


def read_summary(path: str) -> TarSummary | None:
    """Return the summary of an index; None if the file is no index, or one of another format.

    Raises:
        StorageError: if it cannot be read.
    """
    with storage.open_input(path) as file:
        try:
            about = pq.read_metadata(file).metadata or {}
            values = orjson.loads(about.get(b"witmill", b"{}"))
        except (pa.ArrowException, OSError, UnicodeDecodeError, orjson.JSONDecodeError):
            return None
    if values.pop("format", None) != FORMAT or values.keys() != _SUMMARY:
        return None
    return TarSummary(**values)


def rows(tar: TarBytes) -> Iterator[dict[str, Any]]:
    """Yield a row of TAR_INDEX for each sample of a tar, and one for what cannot be read."""
    if tar.get(0, 6).startswith(_COMPRESSED):
        yield _left_out("", "compressed", "unpack it: samples are read where they lie")
        return
    seen: set[int] = set()
    try:
        for sample in _samples(tar):
            row = _row(sample, tar)
            name = xxhash.xxh3_64_intdigest(sample.key.encode())
            if name in seen:
                row = _left_out(sample.key, "double_key", "")
            seen.add(name)
            yield row
    except BrokenTar as error:
        yield _left_out("", "broken_tar", str(error))


def _samples(tar: TarBytes) -> Iterator[_Sample]:
    sample: _Sample | None = None
    try:
        for member in members(tar):
            parts = _KEY.fullmatch(member.name)
            if parts is None or _ABOUT_ALL.match(member.name):
                continue
            key, kind = parts[1], parts[2].lower()
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            if kind in sample.members:
                sample.doubled.add(kind)
            sample.members[kind] = member
    except BrokenTar:
        # What has been seen of the sample at hand still has a reason of its own.
        if sample is not None:
            yield sample
        raise
    if sample is not None:
        yield sample


def _row(sample: _Sample, tar: TarBytes) -> dict[str, Any]:
    found = sample.members
    image = next((found[kind] for kind in IMAGES if kind in found), None)
    used = [m for m in (image, found.get("txt"), found.get("json")) if m is not None]
    for member in used:
        if member.offset + member.size > tar.size:
            seen = f"{member.name} has {member.size:,} bytes from byte {member.offset:,} on"
            return _left_out(sample.key, "cut_short", f"{seen}, the tar ends at {tar.size:,}")
    if doubled := sorted(sample.doubled & {*IMAGES, "txt", "json"}):
        return _left_out(sample.key, "double_member", f"two .{doubled[0]}")
    if any(member.is_sparse for member in used):
        return _left_out(sample.key, "sparse_member", "")
    metadata = _metadata(found.get("json"), tar)
    caption, problem = _caption(found.get("txt"), metadata, tar)
    if caption is None:
        return _left_out(sample.key, problem, "")
    row = {
        "key": sample.key,
        "caption": caption,
        "image_member": image.name if image else None,
        "image_offset": image.offset if image else 0,
        "image_length": image.size if image else 0,
        "metadata": orjson.dumps(metadata).decode() if metadata else None,
        "reason": None,
        "detail": None,
    }
    if image is None or not image.size:
        return {**row, "image_length": 0, "reason": NO_PICTURE}
    if image.size > LARGEST_IMAGE:
        return _left_out(sample.key, "large_picture", f"{image.size:,} bytes")
    return row


def _metadata(member: TarMember | None, tar: TarBytes) -> dict[str, Any] | None:
    if member is None or member.size > LONGEST_TEXT:
        return None
    try:
        values = parse_json(tar.get(member.offset, member.size).decode("utf-8-sig"))
        # Lone surrogates and what else no other reader takes is refused here.
        return orjson.loads(orjson.dumps(values)) if isinstance(values, dict) else None
    except (ValueError, TypeError):
        return None


def _caption(
    member: TarMember | None, metadata: dict[str, Any] | None, tar: TarBytes
) -> tuple[str | None, str]:
    if member is None:
        text = (metadata or {}).get("caption")
    elif member.size > LONGEST_TEXT:
        return None, "bad_caption"
    else:
        try:
            text = tar.get(member.offset, member.size).decode("utf-8-sig")
        except UnicodeDecodeError:
            return None, "bad_caption"
    if not isinstance(text, str) or not text.strip():
        return None, "no_caption"
    return text, ""


def _left_out(key: str, reason: str, detail: str) -> dict[str, Any]:
    nothing = {"caption": None, "image_member": None, "metadata": None}
    place = {"image_offset": 0, "image_length": 0}
    seen = {"reason": reason, "detail": detail[:SHOWN] or None}
    return {"key": key[:SHOWN], **nothing, **place, **seen}


class _IndexFile:
    """Writes the usable rows as they come, and at the end those without a picture, then the others."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._rows: dict[str, list[dict[str, Any]]] = {USABLE: [], NO_PICTURE: [], OTHER: []}
        self._aside: dict[str, list[pa.Table]] = {NO_PICTURE: [], OTHER: []}
        self._usable = 0
        self._left_out: Counter[str] = Counter()
        self._first_left_out = ""
        self._content = xxhash.xxh3_128()

    def add(self, row: dict[str, Any]) -> None:
        reason = row["reason"]
        if reason is None:
            self._usable += 1
        else:
            self._left_out[reason] += 1
            seen = f"{reason} {row['detail'] or ''}".strip()
            seen = f"{row['key']}: {seen}" if row["key"] else seen
            self._first_left_out = self._first_left_out or seen
        self._content.update(orjson.dumps(row))
        kind = USABLE if reason is None else NO_PICTURE if reason == NO_PICTURE else OTHER
        self._rows[kind].append(row)
        if len(self._rows[kind]) == ROWS_TOGETHER:
            self._flush(kind)

    def finish(self, size: int) -> TarSummary:
        for kind in self._rows:
            self._flush(kind)
        for kind in (NO_PICTURE, OTHER):
            for table in self._aside[kind]:
                self._writer.write_table(table)
        summary = TarSummary(
            bytes=size,
            content=self._content.hexdigest(),
            usable=self._usable,
            without_picture=self._left_out[NO_PICTURE],
            left_out=dict(sorted((+self._left_out).items())),
            first_left_out=self._first_left_out,
        )
        about = orjson.dumps({"format": FORMAT, **vars(summary)}).decode()
        self._writer.add_key_value_metadata({"witmill": about})
        return summary

    def _flush(self, kind: str) -> None:
        table = pa.Table.from_pylist(self._rows[kind], TAR_INDEX)
        self._rows[kind].clear()
        if kind == USABLE:
            self._writer.write_table(table)
        else:
            self._aside[kind].append(table)
