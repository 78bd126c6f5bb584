"""Find the members of a tar by its headers alone, stepping over what they hold.

Any tar of ustar, GNU or pax format is understood as far as it tells names and places; nothing in it is
believed: every number is checked against the size of the file before it is used.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

BLOCK = 512
_EMPTY = bytes(BLOCK)
_NAME, _SIZE, _CHECKSUM, _MAGIC, _PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(148, 156),
    slice(257, 263),
    slice(345, 500),
)
_KIND, _GOES_ON, _GNU_EXTENDED = 156, 504, 482

_FILES = b"0\x007"
_NO_CONTENT = b"123456"
"""Links, devices, folders and pipes: whatever size they name, nothing follows."""

_LONG_NAME, _LONG_LINK, _SPARSE, _PAX, _PAX_OF_ALL = b"LKSxg"
MOST_OF_A_NAME = 1 << 20
"""Bytes of a header that tells a name or attributes; more is no name."""


class BrokenTar(Exception):
    """A tar cannot be read on; says where and why."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in a tar, where its bytes begin and how many they are; sparse ones lie there otherwise."""

    name: str
    offset: int
    size: int
    is_sparse: bool = False


class TarBytes:
    """Reads a file piece by piece, a stretch of `chunk` bytes at a time."""

    def __init__(self, read_at: Callable[[int, int], bytes], size: int, chunk: int) -> None:
        """Take bytes from `read_at(offset, length)`."""
        self._read_at, self._chunk = read_at, chunk
        self.size = size
        self._start, self._held = 0, b""

    def get(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, or as many as there are."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._held):
            wanted = min(max(length, self._chunk), self.size - offset)
            self._start, self._held, begin = offset, self._read_at(offset, wanted), 0
        return self._held[begin : begin + length]


def members(tar: TarBytes) -> Iterator[TarMember]:
    """Yield the regular files of a tar in their order, up to its end or the first empty block.

    Raises:
        BrokenTar: where it is cut short or damaged; the member before may reach beyond the end, too.
    """
    position = 0
    name: str | None = None
    size: int | None = None
    is_sparse = False
    while position < tar.size:
        block = tar.get(position, BLOCK)
        if block == _EMPTY:
            return
        told = _checked_size(block, position)
        kind, begin = block[_KIND], position + BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_OF_ALL):
            position = begin + _padded(told)
            text = _attributes(tar, begin, told)
            if kind == _LONG_NAME:
                name = _text(text)
            elif kind == _PAX:
                name, size, is_sparse = _of_pax(text, begin, name, size, is_sparse)
            continue
        while kind == _SPARSE and _goes_on(tar, begin - BLOCK, position):
            begin += BLOCK
        size = told if size is None else size
        if kind in _FILES or kind == _SPARSE:
            sparse = is_sparse or kind == _SPARSE
            yield TarMember(_name(block) if name is None else name, begin, size, sparse)
        position = begin + (0 if kind in _NO_CONTENT else _padded(size))
        name, size, is_sparse = None, None, False
    if position > tar.size:
        raise BrokenTar(f"it ends at byte {tar.size:,}, within a member")


def _goes_on(tar: TarBytes, block: int, header: int) -> bool:
    """Return whether one more block about holes follows `block`."""
    flag = tar.get(block, BLOCK)[_GNU_EXTENDED if block == header else _GOES_ON :]
    if not flag:
        raise BrokenTar(f"it ends within the header at byte {header:,}")
    return flag[0] != 0


def _checked_size(block: bytes, position: int) -> int:
    if len(block) < BLOCK:
        raise BrokenTar(f"it ends within the header at byte {position:,}")
    told = _octal(block[_CHECKSUM])
    if told is None or not _is_sum(told, block[: _CHECKSUM.start] + b" " * 8 + block[_KIND:]):
        raise BrokenTar(f"the header at byte {position:,} is damaged, or it is no tar")
    size = _size(block[_SIZE])
    if size is None:
        raise BrokenTar(f"the header at byte {position:,} names no size")
    return size


def _is_sum(told: int, block: bytes) -> bool:
    # The lower half of Adler-32 is one more than the sum modulo 65,521, in a thirtieth of sum()'s time.
    if (told + 1 - (zlib.adler32(block) & 0xFFFF)) % 65_521 == 0 and told <= 255 * BLOCK:
        return True
    # Some old writers took bytes for signed numbers.
    return told == sum(block) - 256 * sum(byte > 127 for byte in block)


def _size(field: bytes) -> int | None:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int | None:
    digits = field.strip(b"\0 ")
    # int() alone would take signs and underscores as well.
    if not digits.isdigit():
        return None if digits else 0
    try:
        return int(digits, 8)
    except ValueError:
        return None


def _attributes(tar: TarBytes, begin: int, size: int) -> bytes:
    if size > MOST_OF_A_NAME:
        raise BrokenTar(f"the header before byte {begin:,} names {size:,} bytes of attributes")
    data = tar.get(begin, size)
    if len(data) < size:
        raise BrokenTar(f"it ends within the attributes at byte {begin:,}")
    return data


def _of_pax(
    data: bytes, begin: int, name: str | None, size: int | None, is_sparse: bool
) -> tuple[str | None, int | None, bool]:
    if not any(key in data for key in (b"path=", b"size=", b"GNU.sparse.")):
        return name, size, is_sparse
    place = 0
    while place < len(data):
        digits, space, _ = data[place : place + 12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[place : place + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if length <= len(digits) + 2 or len(record) < length or not equals:
            # What is left may be padding.
            if data[place:].strip(b"\0"):
                raise BrokenTar(f"the attributes at byte {begin:,} are damaged")
            break
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                raise BrokenTar(f"the attributes at byte {begin:,} name no size")
            size = int(value)
        elif key.startswith(b"GNU.sparse."):
            is_sparse = True
        place += length
    return name, size, is_sparse


def _name(block: bytes) -> str:
    name, prefix = _text(block[_NAME]), b""
    # GNU's own format has times where ustar has the folder.
    if block[_MAGIC] == b"ustar\0":
        prefix = block[_PREFIX]
    folder = _text(prefix)
    return f"{folder}/{name}" if folder else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _padded(size: int) -> int:
    return size + -size % BLOCK
