import os
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.evaluation.readers.pickles import pixels_of, read_pickle
from tests.dedup.evaluation.readers.made import cifar_pixels, old_pickle, protocol_2


def test_what_python_2_and_python_3_write_is_read() -> None:
    pixels = cifar_pixels(4)
    values = {"data": pixels, "labels": [3, 1, 4, 1], "batch_label": "testing batch 1 of 1"}
    for written in (old_pickle(values), protocol_2(values)):
        found = read_pickle(written)
        assert np.array_equal(pixels_of(found["data"], 3072), pixels)
        assert found["labels"] == [3, 1, 4, 1]
        assert set(found) == set(values)


def test_the_old_pickle_of_these_tests_is_one_that_python_reads() -> None:
    values = {"data": cifar_pixels(2), "labels": [1, 2]}
    found = pickle.loads(old_pickle(values), encoding="bytes")
    assert np.array_equal(found[b"data"], values["data"])
    assert found[b"labels"] == [1, 2]


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(
    tmp_path: Path, protocol: int
) -> None:
    data = pickle.dumps({"data": Hostile(tmp_path / "made")}, protocol=protocol)
    instruction = r"has an instruction (DICT|FRAME)"
    with pytest.raises(ValueError, match=rf"it asks for (posix|os)\.mkdir|{instruction}"):
        read_pickle(data)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(V1\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"(ios\nsystem\n.",
        b"cnumpy\ntestbuffer\n.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"c__main__\nx\n.",
        b"Ppersistent\n.",
        b"\x82\x01.",
    ],
)
def test_nothing_but_what_arrays_need_can_be_named(program: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_pickle(program)


def test_the_stand_ins_keep_nothing_from_one_pickle_to_the_next() -> None:
    # Sets an attribute on the stand-in itself, as the state of an object without one of its own.
    for name in (b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n"):
        with pytest.raises(ValueError, match=r"."):
            read_pickle(b"\x80\x02" + name + b"}U\x04dataK\x01sb.")
    values = {"data": cifar_pixels(1), "labels": [0]}
    assert np.array_equal(pixels_of(read_pickle(protocol_2(values))["data"], 3072), values["data"])


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFF0) + b".",
        b"\x80\x02}q\x01.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"}.",
        b"T" + struct.pack("<i", 1 << 30) + b"x.",
        b"\x8b" + struct.pack("<i", 1 << 30) + b"x.",
        b"\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b".",
    ],
)
def test_numbers_in_a_pickle_do_not_fill_the_memory(program: bytes) -> None:
    tracemalloc.start()
    with suppress(ValueError):
        read_pickle(program)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


DEEP_TUPLE = b"\x80\x02}K\x01" + b"\x85" * 2_000_000 + b"Ns."
WIDE_BY_COPIES = b"\x80\x02}K\x01" + b"2\x86" * 40 + b"Ns."
WIDE_BY_MEMORY = b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 40 + b"Ns."


@pytest.mark.parametrize("program", [DEEP_TUPLE, WIDE_BY_COPIES, WIDE_BY_MEMORY])
def test_what_is_nested_without_end_is_never_hashed(program: bytes) -> None:
    # In a process of its own: this killed the process, or never ended.
    code = "import sys; from dedup.evaluation.readers.pickles import read_pickle; read_pickle(sys.stdin.buffer.read())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=program, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert re.search(rb"ValueError: (a key is tuple|it has an instruction DUP)", done.stderr)


DEEP_LIST = b"]" * 100_000 + b"a" * 99_999


@pytest.mark.parametrize("key", [b"U\x04data", b"U\x04kind"])
def test_what_is_nested_without_end_is_never_shown(key: bytes) -> None:
    found = read_pickle(b"\x80\x02}" + key + DEEP_LIST + b"s.")
    with pytest.raises(ValueError, match=r"data is (list|nonetype), expected an array"):
        pixels_of(found.get("data"), 3072)
    array = (
        b"cnumpy\nndarray\n)R(K\x01"
        + DEEP_LIST
        + b"cnumpy\ndtype\n("
        + DEEP_LIST
        + b"tR\x89U\x00tb"
    )
    found = read_pickle(b"\x80\x02}U\x04data" + array + b"s.")
    with pytest.raises(ValueError, match="a name is list, expected text"):
        pixels_of(found["data"], 3072)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(read_pickle(data), dict)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_pickle_is_read_or_refused(place: int, byte: int) -> None:
    data = bytearray(old_pickle({"data": cifar_pixels(1)[:, :48], "labels": [1]}))
    data[place % len(data)] = byte
    with suppress(ValueError):
        assert pixels_of(read_pickle(bytes(data)).get("data"), 48).shape[1] == 48


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3072), np.int16),
        np.zeros((2, 100), np.uint8),
        np.zeros(3072, np.uint8),
        np.asfortranarray(np.zeros((4, 3072), np.uint8)),
        np.zeros((2, 3072), object),
    ],
)
def test_an_array_of_another_kind_is_refused(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=r"data"):
        pixels_of(read_pickle(protocol_2({"data": array}))["data"], 3072)


def test_a_shape_that_the_bytes_do_not_fill_is_refused() -> None:
    written = protocol_2({"data": np.zeros((2, 48), np.uint8)})
    more = written.replace(b"K\x02K0\x86", b"K\x04K0\x86")
    assert more != written
    with pytest.raises(ValueError, match="96 bytes for the shape"):
        pixels_of(read_pickle(more)["data"], 48)


@pytest.mark.parametrize("value", [None, 3, b"x", [1]])
def test_what_is_no_array_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected an array"):
        pixels_of(value, 3072)
