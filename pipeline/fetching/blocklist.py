"""Hosts, addresses and pictures that somebody wants left out, as one list."""

import io
import re
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.errors import InputError
from pipeline.fetching.refusals import FetchRefused
from pipeline.fetching.targets import Target, canonical_path, parse_target
from pipeline.runtime import storage

PDQ_DISTANCE = 31
"""Bits by which PDQ hashes of one picture may differ, as the hash's authors recommend."""

_HASH = re.compile(r"(sha256:|pdq:)?([0-9a-f]{64})")

Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Blocklist:
    """What is left out, 8 bytes for each host, address or sha256 and 32 for each PDQ hash.

    Attributes:
        hosts: hashes of the names, sorted.
        addresses: hashes of host, port and path, sorted.
        sha256: first eight bytes of each, sorted.
        pdq: four numbers for each hash.
    """

    hosts: Digests
    addresses: Digests
    sha256: Digests
    pdq: Digests

    def blocks_url(self, url: str) -> bool:
        """Return whether the list names the address or its host, or a domain that the host is in."""
        try:
            return self.blocks_target(parse_target(url))
        except FetchRefused:
            return False

    def blocks_target(self, target: Target) -> bool:
        """Return the same of an address that was read already."""
        labels = target.host.rstrip(".").split(".")
        domains = [_digest(".".join(labels[i:])) for i in range(len(labels))]
        return _holds(self.hosts, domains) or _holds(self.addresses, [_address_digest(target)])

    def blocks_image(self, sha256: str, pdq: bytes | None) -> bool:
        """Return whether the list names the picture: its bytes, or one that looks the same.

        Args:
            sha256: of the bytes as fetched, hex.
            pdq: 32 bytes.
        """
        if _holds(self.sha256, [int(sha256[:16], 16)]):
            return True
        if pdq is None or not len(self.pdq):
            return False
        differing = np.bitwise_count(self.pdq ^ np.frombuffer(pdq, np.uint64))
        return bool((differing.sum(axis=1, dtype=np.int32) <= PDQ_DISTANCE).any())


def load_blocklist(path: str) -> Blocklist:
    """Read a list: a host, an address or a hash in each line, comments after #.

    A hash is sha256:HEX, pdq:HEX, or HEX alone, which may be either.

    Raises:
        StorageError: if it cannot be read.
        InputError: naming the first line that is none of these.
    """
    return _load(path, storage.stamp(path))


@cache
def _load(path: str, _: storage.FileStamp) -> Blocklist:
    columns: dict[str, array[int]] = {
        kind: array("Q") for kind in ("hosts", "addresses", "sha256", "pdq")
    }
    with storage.open_input(path) as file, io.BufferedReader(file) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.decode("utf-8", "replace").partition("#")[0].strip()
            if text:
                try:
                    _add(text, columns)
                except (ValueError, FetchRefused) as error:
                    raise InputError(
                        f"{path} has {text[:80]!r} in line {number:,}, expected a host, "
                        "a http(s) address, sha256:HEX, pdq:HEX or 64 hex digits"
                    ) from error
    pdq = np.frombuffer(columns.pop("pdq"), np.uint64).reshape(-1, 4)
    found = {kind: np.unique(np.frombuffer(c, np.uint64)) for kind, c in columns.items()}
    return Blocklist(**found, pdq=pdq)


def _add(text: str, columns: Mapping[str, "array[int]"]) -> None:
    if found := _HASH.fullmatch(text.lower()):
        # One that does not say which counts as both, as with `witmill remove`.
        digest = bytes.fromhex(found[2])
        if found[1] != "pdq:":
            columns["sha256"].extend(struct.unpack_from(">Q", digest))
        if found[1] != "sha256:":
            columns["pdq"].extend(struct.unpack("=4Q", digest))
    elif "//" in text:
        columns["addresses"].append(_address_digest(parse_target(text)))
    else:
        target = parse_target(f"http://{text.removeprefix('*.')}")
        if target.path != "/" or target.port != 80 or "." not in target.host.strip("."):
            raise ValueError("not a host")
        columns["hosts"].append(_digest(target.host.rstrip(".")))


def _address_digest(target: Target) -> int:
    # An owner who names the http address means the https one, too.
    return _digest(target.server + canonical_path(target.path))


def _digest(text: str) -> int:
    return int(xxhash.xxh3_64_intdigest(text.encode()))


def _holds(sorted_digests: Digests, wanted: Sequence[int]) -> bool:
    if not len(sorted_digests):
        return False
    values = np.array(wanted, np.uint64)
    places = np.minimum(np.searchsorted(sorted_digests, values), len(sorted_digests) - 1)
    return bool((sorted_digests[places] == values).any())
