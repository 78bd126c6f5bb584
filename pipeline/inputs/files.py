"""Find the files to ingest and tell by their content what they are."""

import gzip
import io
import zlib
from collections.abc import Sequence
from typing import IO, BinaryIO, Literal, NamedTuple

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.inputs.pairs import Skipped
from pipeline.inputs.warc import read_records
from pipeline.runtime import storage

Kind = Literal["warc", "wat", "parquet", "csv", "tsv", "jsonl", "tar"]
EXPECTED = "expected WARC, WAT, Parquet, CSV, TSV, JSON lines or a tar of pictures"
UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException)

_HEAD_BYTES = 64 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ = b"\xfd7zXZ\x00"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class UnknownKind(InputError):
    """A file that is nothing witmill reads."""


class Input(NamedTuple):
    """A file to read; `source` names it wherever the files lie.

    `is_named` is False where a folder or pattern brought it in: then it may be anything.
    """

    path: str
    source: str
    is_named: bool = True


def expand(inputs: Sequence[str]) -> list[Input]:
    """Return the files that paths, folders, patterns and URLs mean, each once, sorted by source.

    The source is what remains of a path behind the folder common to all, or all of it without one.
    Within a folder or pattern, files whose name begins with a dot or an underscore are left out.

    Raises:
        StorageError: if one of `inputs` is not there.
    """
    is_named: dict[str, bool] = {}
    for given in inputs:
        found = storage.list_files(given)
        by_name = found == [given]
        for path in found:
            if by_name or not path.rpartition("/")[2].startswith("_"):
                full = path if storage.is_url(path) else storage.filesystem(path)[1]
                is_named[full] = by_name or is_named.get(full, False)
    steps = {path: path.split("/") for path in is_named}
    shared = _shared_steps([path[:-1] for path in steps.values()])
    files = [Input(path, "/".join(parts[shared:]), is_named[path]) for path, parts in steps.items()]
    return sorted(files, key=lambda file: (file.source, file.path))


def _shared_steps(folders: list[list[str]]) -> int:
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    return shared


def detect(file: BinaryIO, name: str) -> Kind:
    """Return what `file` holds; its name does not matter.

    Raises:
        UnknownKind: if it is none of what witmill reads.
    """
    file.seek(0)
    magic = file.read(4)
    if not magic:
        raise UnknownKind(f"{name} is empty; {EXPECTED}")
    if magic == b"PAR1":
        return "parquet"
    try:
        head = open_content(file).read(_HEAD_BYTES)
    except UNREADABLE as error:
        raise UnknownKind(f"{name} cannot be decompressed: {error}; {EXPECTED}") from error
    if head.startswith(b"WARC/"):
        return _archive_kind(file, name)
    kind = "tar" if _is_tar(head, magic) else _text_kind(head)
    if kind is None:
        raise UnknownKind(f"{name} {_describe_unknown(head)}")
    return kind


def _describe_unknown(head: bytes) -> str:
    if not head:
        return f"is empty once unpacked; {EXPECTED}"
    if head.startswith(_XZ):
        return "is compressed with xz, which is not read; unpack it first"
    return f"is of an unknown kind, it begins with {head[:16]!r}; {EXPECTED}"


def open_content(file: BinaryIO) -> IO[bytes]:
    """Return the bytes of `file` from its beginning, decompressed if they are gzip or zstd."""
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    content = io.BufferedReader(_Borrowed(file))
    if magic.startswith(_GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=content))
    if magic == _ZSTD:
        return io.BufferedReader(pa.CompressedInputStream(content, "zstd"))
    return content


class _Borrowed(io.RawIOBase):
    """Reads on from a file and leaves it open: wrappers close what they wrap when they go."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(target))
        target[: len(data)] = data
        return len(data)


def open_text(file: BinaryIO) -> IO[str]:
    """Return the text of `file`: UTF-16 if it is marked so, else UTF-8; wrong bytes become U+FFFD.

    Line ends stay as they are.
    """
    is_utf16 = open_content(file).read(2) in _UTF16
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    return io.TextIOWrapper(open_content(file), encoding, errors="replace", newline="")


def _archive_kind(file: BinaryIO, name: str) -> Kind:
    file.seek(0)
    for record in read_records(file):
        if isinstance(record, Skipped) or record.kind == "warcinfo":
            continue
        if record.kind == "conversion":
            raise UnknownKind(
                f"{name} is a WET file, text without images; expected the WARC or WAT file beside it"
            )
        return "wat" if record.kind == "metadata" and record.is_json else "warc"
    return "warc"


def _is_tar(head: bytes, magic: bytes) -> bool:
    # Of a compressed tar no member can be read by its place.
    return head[257:262] == b"ustar" and head.startswith(magic)


def _text_kind(head: bytes) -> Kind | None:
    if head.startswith(_UTF16):
        head = head.decode("utf-16", "replace").encode()
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return None
    line = head.splitlines()[0]
    if _is_binary(head, line):
        return None
    if head.startswith(b"{"):
        # A line that only opens an object begins a JSON file in many lines, such as img2dataset's figures.
        return None if line.strip() == b"{" else "jsonl"
    if b"\t" in line:
        return "tsv"
    return "csv" if b"," in line else None


def _is_binary(head: bytes, line: bytes) -> bool:
    # Real tables hold a stray zero byte here and there. Compressed data has one in 256 bytes, and most
    # kinds of binary file several at the very beginning.
    return line.count(0) > 1 or head.count(0) > 16 + len(head) // 512
