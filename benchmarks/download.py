"""Time `witmill download` against img2dataset on the same requests to the same local server.

    python -m benchmarks.download IMAGES.tar

Both store JPEG of quality 95 with a shorter side of 256 pixels, in as many processes with as many
threads each, and trust the authorities that certifi lists and the server's. img2dataset computes
sha256; witmill sha256, pixel hash and PDQ, and it checks addresses, reads robots.txt and keeps an
account of hosts. Processor time is that of the client and its processes, the server has its own.
Start-up is a run of START_REQUESTS. Odd hosts: one request in forty is refused, one finds silence
until the deadline, one in twenty is answered after three seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path

import certifi
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.image_server import (
    AUTHORITY,
    DEAD_NET,
    HOSTS,
    ODD_HOSTS,
    SILENT_NET,
    SLOW_NET,
)
from pipeline import download, schemas
from pipeline.download import DownloadConfig
from pipeline.inputs.pairs import pair_ids
from pipeline.runtime.executor import make_executor
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace

PARTS_PER_PROCESS = 2
START_REQUESTS = 40
TIMEOUT_S = 10


def addresses(requests: int, scheme: str, port: int, *, is_odd: bool) -> list[str]:
    """Return the URLs to ask for: a host every other one, odd hosts spread evenly."""
    return [f"{scheme}://{_host(i, is_odd=is_odd)}:{port}/{i}.jpg" for i in range(requests)]


def _host(number: int, *, is_odd: bool) -> str:
    turn, place = number % 40, number // 40 % ODD_HOSTS + 1
    nets = {7: DEAD_NET, 17: SILENT_NET, 27: SLOW_NET, 37: SLOW_NET}
    if is_odd and turn in nets:
        return f"{nets[turn]}{place}"
    return f"127.0.0.{number % HOSTS + 1}"


def pairs(urls: list[str]) -> pa.Table:
    """Return BALANCED with one pair for each URL."""
    captions = [f"picture {i}" for i in range(len(urls))]
    rows = len(urls)
    columns = {
        "pair_id": pair_ids(urls, captions),
        "url": urls,
        "caption": captions,
        "caption_source": ["alt"] * rows,
        "page_url": [None] * rows,
        "source": ["benchmark"] * rows,
        "source_offset": range(rows),
        "blur_boxes": [None] * rows,
        "query_ids": [[1]] * rows,
        "language": ["en"] * rows,
        "language_probability": [1.0] * rows,
        "selected_by": [[1]] * rows,
    }
    return pa.table(columns, schema=schemas.BALANCED)


def run_witmill(urls: list[str], folder: Path, processes: int, threads: int) -> int:
    """Download with witmill; return how many pictures were stored."""
    workspace = Workspace(root=str(folder))
    stage = begin("balance", Settings(), workspace)
    nothing = schemas.DROPS.empty_table()
    outcomes = []
    for i, part in enumerate(_cut(urls, processes)):
        table = pairs(part)
        outcomes.append(
            stage.output(i).write(
                rows_in=len(part), kept=table, schema=schemas.BALANCED, drops=nothing
            )
        )
    stage.finish(outcomes)
    config = DownloadConfig(
        allow_addresses=("127.0.0.0/8",),
        threads=threads,
        per_host_rate=0,
        timeout_s=TIMEOUT_S,
        max_unreachable=1,
    )
    with closing(make_executor("local", workers=processes)) as executor:
        return download.run(config, workspace, executor).rows_out


def run_img2dataset(urls: list[str], folder: Path, processes: int, threads: int) -> int:
    """Download with img2dataset; return how many pictures were stored."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import img2dataset
    folder.mkdir()
    captions = [f"picture {i}" for i in range(len(urls))]
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "urls.parquet")
    img2dataset.download(
        url_list=str(folder / "urls.parquet"),
        input_format="parquet",
        caption_col="caption",
        output_folder=str(folder / "out"),
        output_format="webdataset",
        image_size=256,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=95,
        compute_hash="sha256",
        processes_count=processes,
        thread_count=threads,
        number_sample_per_shard=len(next(_cut(urls, processes))),
        timeout=TIMEOUT_S,
    )
    stats = (folder / "out").glob("*_stats.json")
    return sum(json.loads(path.read_text())["successes"] for path in stats)


def _cut(urls: list[str], processes: int) -> Iterator[list[str]]:
    size = -(-len(urls) // (PARTS_PER_PROCESS * processes))
    for start in range(0, len(urls), size):
        yield urls[start : start + size]


CLIENTS: dict[str, Callable[[list[str], Path, int, int], int]] = {
    "img2dataset": run_img2dataset,
    "witmill": run_witmill,
}


@contextmanager
def serving(images: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Start the server; yield its ports for http and https."""
    command = [sys.executable, "-m", "benchmarks.image_server", images, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            plain, encrypted = map(int, server.stdout.readline().split())
            yield plain, encrypted
        finally:
            server.terminate()


def measure(client: str, case: list[str], authority: Path) -> tuple[int, float, float]:
    """Run one client in a process of its own; return pictures, seconds and processor seconds."""
    command = [sys.executable, "-m", "benchmarks.download", "--client", client, *case]
    environment = {**os.environ, "SSL_CERT_FILE": str(authority)}
    begun = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    said = process.stdout.read().split()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return int(said[-1]), time.monotonic() - begun, used.ru_utime + used.ru_stime


def compare(images: str, requests: int, processes: int, threads: int, rounds: int) -> None:
    """Print a table of both clients over http, https, and https with odd hosts.

    The last column is of images for each processor second after start-up.
    """
    print(
        "| case | client | stored | images/s | start-up, processor s | then ms an image | times |"
    )
    print("|---|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, serving(images, Path(folder)) as ports:
        trusted = Path(folder) / "trusted.pem"
        own = (Path(folder) / AUTHORITY).read_bytes()
        trusted.write_bytes(Path(certifi.where()).read_bytes() + own)
        shared = ["--processes", str(processes), "--threads", str(threads)]
        for case, scheme, port, odd in (
            ("http", "http", ports[0], []),
            ("https", "https", ports[1], []),
            ("https, 5% dead, 5% slow", "https", ports[1], ["--odd"]),
        ):
            options = [*shared, "--scheme", scheme, "--port", str(port)]
            few = [*options, "--requests", str(START_REQUESTS)]
            many = [*options, "--requests", str(requests), *odd]
            base = 0.0
            for client, found in _rounds(few, many, trusted, rounds).items():
                stored, wall, start, cost = found
                base = base or cost
                print(
                    f"| {case} | {client} | {stored:,} | {stored / wall:,.0f} | {start:.1f} "
                    f"| {cost:.2f} | {base / cost:.2f} |",
                    flush=True,
                )


def _rounds(
    few: list[str], many: list[str], trusted: Path, rounds: int
) -> dict[str, tuple[int, float, float, float]]:
    """Return, by client, pictures and the medians of seconds, start-up and milliseconds an image."""
    starts: dict[str, list[float]] = {client: [] for client in CLIENTS}
    found: dict[str, list[tuple[int, float, float]]] = {client: [] for client in CLIENTS}
    for _ in range(rounds):
        for client in CLIENTS:
            starts[client].append(measure(client, few, trusted)[2])
            found[client].append(measure(client, many, trusted))
    medians = {}
    for client, runs in found.items():
        start = statistics.median(starts[client])
        used = statistics.median(used for *_, used in runs) - start
        wall = statistics.median(seconds for _, seconds, _ in runs)
        medians[client] = runs[0][0], wall, start, 1000 * used / (runs[0][0] - START_REQUESTS)
    return medians


def time_steps(images: str, rounds: int = 5) -> None:
    """Print the processor time of each step between the bytes fetched and the bytes stored."""
    import hashlib

    from pipeline.pictures import images as pictures
    from pipeline.pictures.examine import examine

    config = DownloadConfig()
    with tarfile.open(images) as tar:
        files = [tar.extractfile(m).read() for m in tar if m.isfile()][:200]  # type: ignore[union-attr]
    decoded = [pictures.decode(data).rgb for data in files]
    sizes = [_size(*rgb.shape[:2]) for rgb in decoded]
    small = [
        pictures.resize(rgb, width=w, height=h) for rgb, (w, h) in zip(decoded, sizes, strict=True)
    ]
    steps: dict[str, Callable[[int], object]] = {
        "decode": lambda i: pictures.decode(files[i]),
        "PDQ": lambda i: pictures.pdq(decoded[i]),
        "pixel hash": lambda i: pictures.pixel_hash(decoded[i]),
        "sha256": lambda i: hashlib.sha256(files[i]).hexdigest(),
        "reduce": lambda i: pictures.resize(decoded[i], width=sizes[i][0], height=sizes[i][1]),
        "encode": lambda i: pictures.encode_jpeg(small[i], 95),
        "all of it": lambda i: examine(files[i], config),
        "img2dataset's resizer, no hashes": _img2datasets(files),
    }
    print("\n| step | processor ms |\n|---|---:|")
    for name, step in steps.items():
        step(0)
        taken = []
        for _ in range(rounds):
            begun = time.process_time()
            for i in range(len(files)):
                step(i)
            taken.append(time.process_time() - begun)
        print(f"| {name} | {1000 * min(taken) / len(files):.2f} |")


def _size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, 256 / min(height, width))
    return round(width * scale), round(height * scale)


def _img2datasets(files: list[bytes]) -> Callable[[int], object]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from img2dataset.resizer import Resizer
    warnings.simplefilter("ignore")
    resizer = Resizer(256, "keep_ratio", resize_only_if_bigger=True)
    return lambda i: resizer(BytesIO(files[i]))


def main() -> None:
    """Compare, or be one of those compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="?", help="tar of photographs")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    for hidden in ("--client", "--scheme"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--odd", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        urls = addresses(given.requests, given.scheme, given.port, is_odd=given.odd)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "run"
            print(CLIENTS[given.client](urls, place, given.processes, given.threads))
    elif given.images:
        compare(given.images, given.requests, given.processes, given.threads, given.rounds)
        time_steps(given.images)
    else:
        parser.error("expected a tar of photographs")


if __name__ == "__main__":
    main()
