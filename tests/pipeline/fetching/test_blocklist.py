import time

import numpy as np
import pytest

from pipeline.errors import InputError, StorageError
from pipeline.fetching.blocklist import load_blocklist

SHA = "ab" * 32
PDQ = "0f" * 32


@pytest.fixture
def blocks(tmp_path):
    def load(text: str):
        (tmp_path / "list.txt").write_text(text)
        return load_blocklist(str(tmp_path / "list.txt"))

    return load


@pytest.mark.parametrize(
    ("url", "blocked"),
    [
        ("http://bad.example/x", True),
        ("https://a.b.BAD.example.:8080/x", True),
        ("http://notbad.example/", False),
        ("http://example/", False),
        ("http://page.example/a%20b?q", True),
        ("https://page.example/a b?q#part", True),
        ("http://page.example/%61 b?q", True),
        ("http://page.example/a", False),
        ("http://xn--bcher-kva.example/x", True),
        ("http://sub.wild.example/", True),
        ("http://[2001:db8::1]/", False),
        ("nonsense", False),
    ],
)
def test_hosts_stand_for_all_below_them_and_addresses_for_themselves(blocks, url, blocked):
    text = (
        "# ours\n bad.example # why\n\nhttp://page.example/a b?q\nbücher.example\n*.wild.example\n"
    )
    assert blocks(text).blocks_url(url) is blocked


def test_a_picture_is_named_by_its_bytes(blocks):
    found = blocks(f"sha256:{SHA}\n")
    assert found.blocks_image(SHA, None)
    assert not found.blocks_image("cd" * 32, bytes.fromhex(PDQ))


@pytest.mark.parametrize("line", [f"SHA256:{SHA.upper()}", f"PDQ:{SHA}", SHA, SHA.upper()])
def test_a_hash_may_be_written_in_capitals_and_need_not_say_which_it_is(blocks, line):
    found = blocks(f"{line}\n")
    looks_like_it = bytes.fromhex(SHA)
    assert found.blocks_image(SHA, looks_like_it)
    assert found.blocks_image(SHA, None) is not line.startswith("PDQ")
    assert found.blocks_image(PDQ, looks_like_it) is not line.startswith("SHA256")


@pytest.mark.parametrize(("bits", "blocked"), [(0, True), (31, True), (32, False)])
def test_a_picture_is_named_by_what_it_looks_like(blocks, bits, blocked):
    flipped = int(PDQ, 16) ^ ((1 << bits) - 1)
    found = blocks(f"pdq:{'00' * 32}\npdq:{PDQ}\n")
    assert found.blocks_image("cd" * 32, flipped.to_bytes(32, "big")) is blocked


@pytest.mark.parametrize("line", ["two words", "sha256:abc", "pdq:00", "ftp://x.example/", "local"])
def test_a_line_that_means_nothing_is_named(blocks, line):
    with pytest.raises(InputError, match="in line 2, expected a host"):
        blocks(f"bad.example\n{line}\n")


def test_a_list_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StorageError):
        load_blocklist(str(tmp_path / "none"))


def test_an_empty_list_blocks_nothing(blocks):
    found = blocks("# nothing\n")
    assert not found.blocks_url("http://h.example/")
    assert not found.blocks_image(SHA, bytes.fromhex(PDQ))


def test_a_list_that_changed_is_read_again(blocks):
    assert blocks("one.example").blocks_url("http://one.example/")
    assert not blocks("two.example").blocks_url("http://one.example/")


def test_a_long_list_is_small_in_memory_and_quick_to_ask(blocks):
    found = blocks("".join(f"h{i}.example\n" for i in range(20_000)))
    assert found.hosts.nbytes == 20_000 * 8
    assert found.hosts.dtype == np.uint64
    begun = time.process_time()
    assert sum(found.blocks_url(f"http://www.h{i}.example/") for i in range(1000)) == 1000
    assert time.process_time() - begun < 1
