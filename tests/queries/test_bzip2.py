import bz2
import io
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queries import bzip2
from queries.bzip2 import find_marks, read_blocks

BLOCK = 0x314159265359
# Level 1 makes blocks of 100 kB.
TEXT = random.Random(1).randbytes(300_000).hex().encode()
STREAM = bz2.compress(TEXT, 1)
STREAMS = b"".join(bz2.compress(TEXT[at : at + 70_000], 1) for at in range(0, len(TEXT), 70_000))


def contents(file: bytes, start: int = 0, end: int = 1 << 60) -> list[bytes | None]:
    return [b.content for b in read_blocks(io.BytesIO(file), start) if b.offset < end]


def offsets(file: bytes) -> list[int]:
    return [block.offset for block in read_blocks(io.BytesIO(file), 0)]


@pytest.mark.parametrize("file", [STREAM, STREAMS], ids=["one stream", "many streams"])
def test_the_blocks_side_by_side_are_what_was_compressed(file: bytes) -> None:
    blocks = contents(file)
    assert len(blocks) >= 6
    assert b"".join(block or b"?" for block in blocks) == TEXT


@given(st.binary(max_size=3000), st.integers(1, 9))
def test_whatever_was_compressed_comes_back(data: bytes, level: int) -> None:
    assert b"".join(block or b"?" for block in contents(bz2.compress(data, level))) == data


def test_repetitions_come_back() -> None:
    data = b"a" * 3_000_000 + b"\0" * 999_999
    assert b"".join(block or b"?" for block in contents(bz2.compress(data, 9))) == data


def test_a_small_piece_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = offsets(STREAM)
    for piece in (1, 7, 4096):
        monkeypatch.setattr(bzip2, "_PIECE", piece)
        file = STREAM if piece > 100 else bz2.compress(TEXT[:3000], 1)
        assert b"".join(block or b"?" for block in contents(file)) == (
            TEXT if piece > 100 else TEXT[:3000]
        )
    assert offsets(STREAM) == expected


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, len(STREAMS)), max_size=6))
def test_wherever_the_file_is_cut_each_block_is_in_one_stretch(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(STREAMS)]
    found = []
    for start, end in pairwise(bounds):
        for block in read_blocks(io.BytesIO(STREAMS), start):
            if block.offset >= end:
                break
            found.append(block.content)
    assert b"".join(block or b"?" for block in found) == TEXT


@pytest.mark.parametrize("place", [0.1, 0.35, 0.5, 0.93])
def test_a_damaged_block_is_named_and_the_others_are_read(place: float) -> None:
    starts = offsets(STREAM)
    damaged = bytearray(STREAM)
    at = int(place * len(STREAM))
    damaged[at : at + 20] = b"\x55" * 20
    blocks = list(read_blocks(io.BytesIO(damaged), 0))
    owner = max(i for i, start in enumerate(starts) if start <= at)
    assert [b.offset for b in blocks if b.content is None] == [starts[owner]]
    whole = contents(STREAM)
    assert [b.content for i, b in enumerate(blocks) if i != owner] == (
        whole[:owner] + whole[owner + 1 :]
    )


def test_a_block_whose_mark_is_gone_is_lost_with_the_one_before() -> None:
    starts = offsets(STREAM)
    damaged = bytearray(STREAM)
    damaged[starts[3] : starts[3] + 8] = b"\0" * 8
    blocks = list(read_blocks(io.BytesIO(damaged), 0))
    assert [b.offset for b in blocks if b.content is None] == [starts[2]]
    assert len(blocks) == len(starts) - 1


def test_of_a_file_that_is_cut_off_the_last_block_is_damaged() -> None:
    cut = STREAM[: offsets(STREAM)[4] + 1000]
    assert contents(cut) == [*contents(STREAM)[:4], None]


@pytest.mark.parametrize("extra", [b"", b"BZh9", b"no bzip2 at all" * 999])
def test_what_holds_no_block_gives_none(extra: bytes) -> None:
    assert contents(extra) == []


def add_false_marks(monkeypatch: pytest.MonkeyPatch, *false: int) -> None:
    def with_false(data: bytes) -> list[tuple[int, bool]]:
        shift = 8 * STREAM.find(data) if len(data) > 100 else 0
        inside = [(bit - shift, True) for bit in false if 0 <= bit - shift < 8 * len(data) - 48]
        return sorted([*find_marks(data), *inside])

    monkeypatch.setattr(bzip2, "find_marks", with_false)


@pytest.mark.parametrize("count", [1, 3])
def test_marks_that_stand_in_a_block_by_chance_change_nothing(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    whole, starts = contents(STREAM), offsets(STREAM)
    false = [8 * starts[2] + 100_003 * (i + 1) for i in range(count)]
    assert false[-1] < 8 * starts[3]
    add_false_marks(monkeypatch, *false)
    assert contents(STREAM) == whole
    for start in (starts[2], starts[2] + 1, false[0] // 8, false[0] // 8 + 1, starts[3]):
        assert contents(STREAM, start) == whole[sum(s < start for s in starts) :]


@given(st.binary(max_size=40), st.integers(0, 7), st.binary(max_size=40))
def test_a_mark_is_found_at_any_bit(before: bytes, bit: int, after: bytes) -> None:
    number = int.from_bytes(before) << 48 | BLOCK
    bits = 8 * len(before) + 48
    number <<= 8 - bit
    data = (number << 8 * len(after) | int.from_bytes(after)).to_bytes(
        (bits + 8 - bit) // 8 + 1 + len(after)
    )
    shown = bin(int.from_bytes(data))[2:].zfill(8 * len(data))
    expected = [(i, True) for i in range(len(shown) - 47) if int(shown[i : i + 48], 2) == BLOCK]
    assert expected
    assert [mark for mark in find_marks(data) if mark[1]] == expected
