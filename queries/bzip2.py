"""Read a bzip2 file from anywhere in it, block by block, whatever is broken.

A bzip2 file is a row of blocks, each of at most 900 kB of content. A block begins with a mark of 48
bits at any bit, and ends where the next block, or the mark for the end of a stream, begins. So parts
of one file can be read at the same time, even of a file that is a single stream: a block is brought
to whole bytes and given a header and an end of its own, and Python's bz2 unpacks it.

The same 48 bits may stand within a block by chance. A block is one if it unpacks with the right
checksum, up to one of the next few marks; a mark where none does, and which lies within no block, is
the begin of a damaged one. That depends on the bytes around a mark only, never on where reading began.
"""

import bz2
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

HEADER = b"BZh"

_BLOCK = 0x314159265359
_END = 0x177245385090

# 900,000 bytes that do not compress, a hundredth more, and what a block has beside them.
_LONGEST = 1 << 20
_PIECE = 4 << 20
# Marks within one block that are none. One is to be expected in a million gigabytes.
_MOST_FALSE = 3


class Block(NamedTuple):
    """A block: the byte of the file that it begins in, and its content, None where it is damaged."""

    offset: int
    content: bytes | None


class _Mark(NamedTuple):
    bit: int
    begins_block: bool


def read_blocks(file: BinaryIO, start: int) -> Iterator[Block]:
    """Yield the blocks of `file` that begin at byte `start` or behind it, in order."""
    window = _Window(file, max(0, start - _LONGEST))
    at = 0
    while True:
        window.reach(at)
        if at >= len(window.marks):
            return
        mark = window.marks[at]
        if not mark.begins_block or mark.bit >> 3 < start:
            at += 1
            continue
        content, after = _unpack_at(window, at)
        if content is not None or not _is_within_block(window, at):
            yield Block(mark.bit >> 3, content)
        at = after - window.forget_before(after)


def _unpack_at(window: "_Window", at: int) -> tuple[bytes | None, int]:
    """Return the content of the block at a mark, if it is one, and the mark that comes after it."""
    first = window.marks[at].bit
    for after in range(at + 1, min(at + 2 + _MOST_FALSE, len(window.marks))):
        end = window.marks[after].bit
        if end - first > 8 * _LONGEST:
            break
        content = _unpack(window.bits(first, end), end - first)
        if content is not None:
            return content, after
    return None, at + 1


def _is_within_block(window: "_Window", at: int) -> bool:
    earlier = range(max(0, at - _MOST_FALSE), at)
    return any(_unpack_at(window, i)[1] > at for i in earlier if window.marks[i].begins_block)


def _unpack(block: int, bits: int) -> bytes | None:
    """Return the content of a block given as a number of so many bits, None if it is damaged."""
    if bits < 80:
        return None
    checksum = block >> (bits - 80) & 0xFFFFFFFF
    padding = -(bits + 80) % 8
    whole = ((block << 48 | _END) << 32 | checksum) << padding
    unpacker = bz2.BZ2Decompressor()
    try:
        content = unpacker.decompress(HEADER + b"9" + whole.to_bytes((bits + 80 + padding) // 8))
    except OSError:
        return None
    return content if unpacker.eof else None


class _Window:
    """A stretch of a file, and the marks in it."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        file.seek(start)
        self.marks: list[_Mark] = []
        self._file = file
        self._start = start
        self._data = b""
        self._is_at_end = False

    def reach(self, at: int) -> None:
        """Read on until the block at mark `at`, and what may follow it, are in the window."""
        while not self._is_at_end and (
            at >= len(self.marks)
            or self.marks[at].bit + 8 * _LONGEST + 48 > 8 * (self._start + len(self._data))
        ):
            self._extend()

    def forget_before(self, at: int) -> int:
        """Drop what no block at mark `at` or behind it needs; return how many marks that were."""
        here = self.marks[at].bit if at < len(self.marks) else 8 * (self._start + len(self._data))
        keep = max(self._start, (here >> 3) - _LONGEST)
        if keep - self._start < _PIECE:
            return 0
        self._data = self._data[keep - self._start :]
        self._start = keep
        dropped = sum(mark.bit < 8 * keep for mark in self.marks[:at])
        del self.marks[:dropped]
        return dropped

    def bits(self, first: int, end: int) -> int:
        """Return the bits of the file from `first` to `end` as one number."""
        begin, after = (first >> 3) - self._start, (end + 7 >> 3) - self._start
        number = int.from_bytes(self._data[begin:after]) >> (-end % 8)
        return number & ((1 << (end - first)) - 1)

    def _extend(self) -> None:
        piece = self._file.read(_PIECE)
        self._is_at_end = len(piece) < _PIECE
        # A mark may lie across both pieces.
        overlap = min(6, len(self._data))
        start = self._start + len(self._data) - overlap
        scanned = self._data[len(self._data) - overlap :] + piece
        self._data += piece
        last = self.marks[-1].bit if self.marks else -1
        for bit, begins_block in find_marks(scanned):
            if bit + 8 * start > last:
                self.marks.append(_Mark(bit + 8 * start, begins_block))


def find_marks(data: bytes) -> list[tuple[int, bool]]:
    """Return the bits at which marks begin, ascending, and for each whether it begins a block."""
    found = []
    for mark in (_BLOCK, _END):
        for bit in range(8):
            # A mark that begins at this bit of a byte fills the next five bytes.
            within = (mark >> bit & (1 << 40) - 1).to_bytes(5)
            at = data.find(within, 1)
            while at >= 0:
                around = data[at - 1 : at + 6].ljust(7, b"\0")
                is_whole = bit == 0 or at + 5 < len(data)
                if is_whole and int.from_bytes(around) >> (8 - bit) & (1 << 48) - 1 == mark:
                    found.append((8 * (at - 1) + bit, mark == _BLOCK))
                at = data.find(within, at + 1)
    return sorted(found)
