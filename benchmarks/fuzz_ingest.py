"""Damage WARC and WAT files at random and read them: nothing may raise, hang or fill the memory.

    python -m benchmarks.fuzz_ingest CRAWL_FOLDER --seconds 60

Bytes are flipped, cut out, put in and repeated, in the file as it is stored and in what its gzip members
hold. The same seed damages the same way. Ends with how many files were read and what came of them.
"""

import argparse
import gzip
import io
import random
import resource
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.inputs.crawls import read_crawl

LONGEST_SECONDS = 20.0
MOST_MEMORY = 1 << 30
_LARGEST = 3 << 20
_PIECES = (
    b"WARC/1.0\r\n",
    b"Content-Length: 99999999999\r\n",
    b"Content-Length: -1\r\n",
    b"\r\n\r\n",
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"Content-Encoding: gzip\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"<script>",
    b"<figure>",
    b"<table>",
    b"<!--",
    b'"',
    b"{",
    b"[",
    b"\\u0000",
    b"\xff",
    b"\0" * 100,
)


class Archive(NamedTuple):
    """A file to damage, as stored."""

    name: str
    kind: Literal["warc", "wat"]
    content: bytes


def find_archives(folder: Path) -> list[Archive]:
    """Return the crawls in a folder that are not too large."""
    found = []
    for path in sorted(folder.glob("*.warc*")):
        if ".wet" not in path.name and path.stat().st_size <= _LARGEST:
            kind: Literal["warc", "wat"] = "wat" if ".wat" in path.name else "warc"
            found.append(Archive(path.name, kind, path.read_bytes()))
    return found


def damage(content: bytes, draw: random.Random) -> bytes:
    """Return `content` with some bytes changed, cut out, put in or repeated."""
    broken = bytearray(content)
    for _ in range(1 << draw.randrange(6)):
        at = draw.randrange(len(broken) + 1)
        match draw.randrange(5):
            case 0:
                broken[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del broken[at : at + (1 << draw.randrange(16))]
            case 2:
                broken[at:at] = draw.choice(_PIECES)
            case 3:
                broken[at:at] = broken[at : at + (1 << draw.randrange(16))]
            case _:
                broken[at : at + 1] = (
                    bytes([broken[at] ^ 1 << draw.randrange(8)]) if broken[at:] else b""
                )
    return bytes(broken[: 2 * _LARGEST])


def damage_archive(archive: Archive, draw: random.Random) -> bytes:
    """Return an archive damaged as it is stored, or within its members."""
    if not archive.content.startswith(b"\x1f\x8b") or draw.random() < 0.4:
        return damage(archive.content, draw)
    whole = gzip.decompress(archive.content)
    start = draw.randrange(len(whole))
    broken = damage(whole[start : start + _LARGEST] if draw.random() < 0.5 else whole, draw)
    return broken if draw.random() < 0.5 else gzip.compress(broken, 1)


def fuzz(archives: Sequence[Archive], *, seconds: float, seed: int = 0) -> Counter[str]:
    """Read damaged archives until the time is over; return how often there were which rows.

    Raises:
        AssertionError: if one file takes more than LONGEST_SECONDS, or memory grows by MOST_MEMORY.
    """
    draw = random.Random(seed)
    seen: Counter[str] = Counter()
    kinds: tuple[Literal["warc", "wat"], ...] = ("warc", "wat")
    for archive in archives:
        seen += read(archive.content, archive.kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        archive = draw.choice(archives)
        broken = damage_archive(archive, draw)
        kind = draw.choice(kinds) if draw.random() < 0.1 else archive.kind
        begun = time.process_time()
        seen += read(broken, kind)
        took = time.process_time() - begun
        assert took < LONGEST_SECONDS, f"{archive.name} took {took:.0f} s with seed {seed}"
        seen["files"] += 1
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MOST_MEMORY, f"memory grew by {grown >> 20} MiB with seed {seed}"
    return seen


def read(content: bytes, kind: Literal["warc", "wat"]) -> Counter[str]:
    """Read an archive; return how many pairs and drops of each reason it has."""
    seen: Counter[str] = Counter()
    for pairs, drops, _ in read_crawl(io.BytesIO(content), kind, "x", 10_000):
        seen["pairs"] += pairs.num_rows
        seen.update(drops.column("reason").to_pylist())
    return seen


def main() -> None:
    """Fuzz for the time given and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with WARC and WAT files")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    archives = find_archives(arguments.folder)
    seen = fuzz(archives, seconds=arguments.seconds, seed=arguments.seed)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{seen.pop('files'):,} damaged files of {len(archives)}, at most {memory} MiB of memory")
    print(", ".join(f"{name} {count:,}" for name, count in seen.most_common()))


if __name__ == "__main__":
    main()
