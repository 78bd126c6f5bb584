"""Time indexing tars, opening them and streaming their samples, against tarfile and webdataset on the same tar.

    python -m benchmarks.tar_index --samples 10000 --picture-bytes 45000

Processor time of one process. Pictures are noise, captions and metadata as long as real ones.
"""

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset

from train.samples.tar_index import write_tar_index
from train.sources import open_path
from train.stream import ShardStream

LINKS = 200
STREAMED = 400_000


def build(path: Path, form: int, samples: int, picture: bytes) -> None:
    """Write a tar as img2dataset does; webdataset's writer gives each member pax attributes."""
    with tarfile.open(path, "w", format=form) as tar:
        for i in range(samples):
            caption = f"a photograph of something in some place, number {i}, for you"
            about = {"url": f"https://example.org/{i}.jpg", "caption": caption, "width": 256}
            texts = {"txt": caption.encode(), "json": json.dumps(about).encode()}
            for kind, data in {"jpg": picture, **texts}.items():
                info = tarfile.TarInfo(f"{i:09d}.{kind}")
                info.size, info.mtime = len(data), 1.5 if form == tarfile.PAX_FORMAT else 0
                tar.addfile(info, io.BytesIO(data))
            tar.members = []  # type: ignore[attr-defined]


def walk(path: Path) -> None:
    """Read headers and texts with tarfile."""
    with tarfile.open(path) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]
            if not member.name.endswith("jpg"):
                content = tar.extractfile(member)
                assert content is not None
                content.read()


def timed(work: Callable[[], object]) -> float:
    """Return the processor seconds of `work`."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    """Build each kind of tar, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--picture-bytes", type=int, default=45_000)
    arguments = parser.parse_args()
    picture = np.random.default_rng(0).bytes(arguments.picture_bytes)
    print("| tar | step | samples/s | GB/s |\n|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as root:
        for name, form in (("ustar", tarfile.USTAR_FORMAT), ("pax", tarfile.PAX_FORMAT)):
            path = Path(root, "00000.tar")
            build(path, form, arguments.samples, picture)
            index = str(path.with_suffix(".index.parquet"))
            # Libraries load with the first.
            write_tar_index(str(path), index)
            steps: dict[str, Callable[[], object]] = {
                "index": lambda path=path, index=index: write_tar_index(str(path), index),
                "tarfile": lambda path=path: walk(path),
                "webdataset": lambda path=path: sum(
                    1 for _ in webdataset.WebDataset(str(path), shardshuffle=False)
                ),
            }
            for step, work in steps.items():
                seconds = timed(work)
                rate, size = arguments.samples / seconds, path.stat().st_size / seconds / 1e9
                print(f"| {name} | {step} | {rate:,.0f} | {size:.2f} |")
        for i in range(1, LINKS):
            for suffix in ("tar", "index.parquet"):
                os.link(f"{root}/00000.{suffix}", f"{root}/{i:05d}.{suffix}")
        print(f"\nopening {LINKS} tars: {timed(lambda: open_path(root)) / LINKS * 1e3:.2f} ms each")
        with ShardStream(root, batch_size=4096) as stream:
            next(stream)
            seconds = timed(lambda: [next(stream) for _ in range(STREAMED // 4096)])
        print(f"stream: {seconds / STREAMED * 1e6:.1f} µs a sample")


if __name__ == "__main__":
    main()
