"""Time the training loader against webdataset written as open_clip writes it, and against decoding alone.

    pip install webdataset regex
    pip download --no-deps open_clip_torch && unzip -d OPEN_CLIP open_clip_torch-*.whl
    python -m benchmarks.loader DATA --open-clip OPEN_CLIP

DATA is a folder with `images/*.tar` (photographs) and `captions/*.parquet` (column TEXT). The photographs, to a
shorter side of 256 and as JPEG of quality 95, are packed into WebDataset tars with the captions. All ways give
the same: parts of 224x224 pixels as bytes and 77 token ids, in batches of 128. Captions' ids must be equal.

open_clip's part of the pipeline that torchvision does (a random part of 0.9 to 1 of the area, resized by
Pillow's bicubic filter; in the second row to floats and normalised, too) is written out here with Pillow, as torchvision
needs a CUDA torch; its tokenizer is open_clip's own file. It runs in DataLoader workers, on one core in
the process itself, which costs it nothing for handing batches over.

Each figure is of a process of its own, bound to one or two cores, all ways in turn in each round, from the
first batch on. Wall: samples a second on the clock. Processor: samples for each second of processor time, of
processes and threads together, which a busy machine changes less. Ratios are medians of the rounds' own.
"""

import argparse
import importlib.util
import io
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import simplejpeg
import torch
import webdataset
from PIL import Image

from pipeline.pictures import images
from pipeline.pictures.tar import TarWriter
from train.models.recipes import find_recipe
from train.samples.augment import SQUARE, Crop, draw_box, empty_pixels, resize_into
from train.samples.batches import read_batches, sample_loader
from train.samples.tokenizer import tokenize
from train.stream import ShardStream

BATCH = 128
SHARDS = 4
SIDE, QUALITY = 256, 95
RESOLUTION, CONTEXT = 224, 77
PARTS = Crop(scale=(0.9, 1.0))
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
DEVIATION = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)

Way = Callable[[argparse.Namespace], dict[str, float]]


def main() -> None:
    """Pack shards, run every way a number of rounds, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--open-clip", required=True, help="folder that holds open_clip/")
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        # Where the index of the tars goes.
        os.environ["XDG_CACHE_HOME"] = folder
        pack(arguments, folder)
        command = [sys.executable, "-m", "benchmarks.loader", folder]
        command += ["--open-clip", arguments.open_clip, "--samples", str(arguments.samples)]
        print_steps(arguments)
        for cores in (1, 2):
            compare(command, cores, arguments.rounds)
        contend(command, arguments.rounds)


def pack(arguments: argparse.Namespace, folder: str) -> None:
    """Write the shards, and check that token ids are equal."""
    pictures = [small(data) for data in photographs(Path(arguments.data) / "images")]
    captions = real_captions(Path(arguments.data) / "captions", arguments.samples)
    ids = open_clip_tokenizer(arguments.open_clip)(captions).numpy()
    np.testing.assert_array_equal(tokenize(captions, CONTEXT), ids)
    for shard in range(SHARDS):
        with Path(folder, f"{shard:05d}.tar").open("wb") as file, TarWriter(file) as tar:
            for i in range(shard, arguments.samples, SHARDS):
                tar.add(f"{i:09d}.jpg", pictures[i % len(pictures)])
                tar.add(f"{i:09d}.txt", captions[i].encode())
                tar.add(f"{i:09d}.json", b"{}")
    # Made on first sight, which is no part of reading.
    ShardStream(f"{folder}/*.tar", batch_size=BATCH).close()
    size = sum(map(len, pictures)) / len(pictures) / 1000
    print(f"{len(pictures)} photographs, {size:.0f} kB each, {arguments.samples} samples\n")


def photographs(folder: Path) -> list[bytes]:
    """Return the JPEG files of the largest tar of a folder."""
    path = max(folder.glob("*.tar"), key=lambda tar: tar.stat().st_size)
    with tarfile.open(path) as tar:
        files = [tar.extractfile(member) for member in tar if member.isfile()]
        found = [file.read() for file in files if file]
    return [data for data in found if data.startswith(b"\xff\xd8\xff")]


def small(data: bytes) -> bytes:
    """Return a picture with a shorter side of SIDE."""
    rgb = images.decode(data).rgb
    scale = SIDE / min(rgb.shape[:2])
    height, width = (round(side * scale) for side in rgb.shape[:2])
    return images.encode_jpeg(images.resize(rgb, width=width, height=height), QUALITY)


def real_captions(folder: Path, count: int) -> list[str]:
    """Return as many captions as asked for, over and over if there are fewer."""
    path = max(folder.glob("*.parquet"), key=lambda file: file.stat().st_size)
    found = [text for text in pq.read_table(path).column("TEXT").to_pylist() if text]
    return [found[i % len(found)] for i in range(count)]


def compare(command: list[str], cores: int, rounds: int) -> None:
    """Print how fast each way is on so many cores."""
    baseline = f"webdataset,{cores}"
    results = in_rounds(command, [f"{way},{cores}" for way in WAYS], rounds)
    word = "one core" if cores == 1 else f"{cores} cores"
    print(f"| {word} | wall, samples/s | ratio | processor, samples/s | ratio |")
    print("|---|---:|---:|---:|---:|")
    for way, (title, _) in WAYS.items():
        runs, base = results[f"{way},{cores}"], results[baseline]
        cells = []
        for figure in ("wall", "processor"):
            ratio = statistics.median(
                run[figure] / other[figure] for run, other in zip(runs, base, strict=True)
            )
            cells.append(f"{statistics.median(run[figure] for run in runs):,.0f} | {ratio:.2f}")
        print(f"| {title} | {' | '.join(cells)} |", flush=True)
    print()


def contend(command: list[str], rounds: int) -> None:
    """Print how a loop of small tensor operations fares beside a reader."""
    results = in_rounds(command, [f"{name},2" for name in BESIDE], rounds)
    alone = results["alone,2"]
    print("| a training loop's small operations, two cores | operations/s | share of alone |")
    print("|---|---:|---:|")
    for name, title in BESIDE.items():
        runs = results[f"{name},2"]
        share = statistics.median(
            run["wall"] / other["wall"] for run, other in zip(runs, alone, strict=True)
        )
        print(f"| {title} | {statistics.median(run['wall'] for run in runs):,.0f} | {share:.2f} |")


def in_rounds(
    command: list[str], names: list[str], rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Run each once a round, in turn, and return what each measured."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            run = subprocess.run([*command, "--one", name], capture_output=True, check=False)
            if run.returncode:
                sys.exit(f"{name} failed:\n{run.stderr.decode()}")
            results[name].append(json.loads(run.stdout.splitlines()[-1]))
    return results


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return samples a second, on the clock and of processor time."""
    warnings.simplefilter("ignore")
    name, cores = arguments.one.split(",")
    arguments.cores = int(cores)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    torch.set_num_threads(1)
    if name in BESIDE:
        return {"wall": operations_beside(name, arguments)}
    return WAYS[name][1](arguments)


def steady(batches: Iterator[int], count: int) -> dict[str, float]:
    """Return the rates at which so many samples come, once the first batch is there."""
    next(batches)
    begun, used, came = time.perf_counter(), processor_seconds(), 0
    while came < count:
        came += next(batches)
    seconds, cpu = time.perf_counter() - begun, processor_seconds() - used
    return {"wall": came / seconds, "processor": came / cpu}


def processor_seconds() -> float:
    """Return what this process and its children have used."""
    children = Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
    ticks = 0
    for process in children:
        fields = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def in_processes(
    work: Callable[[argparse.Namespace, int], Iterator[int]], arguments: argparse.Namespace
) -> dict[str, float]:
    """Return the rates of a process for each core, which hand nothing over."""
    share = arguments.samples // arguments.cores
    with ProcessPoolExecutor(arguments.cores, get_context("fork")) as pool:
        futures = [
            pool.submit(_steady_share, work, arguments, core, share)
            for core in range(arguments.cores)
        ]
        rates = [future.result() for future in futures]
    return {
        "wall": sum(rate["wall"] for rate in rates),
        "processor": statistics.harmonic_mean([rate["processor"] for rate in rates]),
    }


def _steady_share(
    work: Callable[[argparse.Namespace, int], Iterator[int]],
    arguments: argparse.Namespace,
    core: int,
    count: int,
) -> dict[str, float]:
    return steady(work(arguments, core), count)


def decoded(arguments: argparse.Namespace, core: int) -> Iterator[int]:
    """Decode pictures held in memory without end, as the loader decodes them."""
    with tarfile.open(f"{arguments.data}/{core:05d}.tar") as tar:
        files = [tar.extractfile(member) for member in tar if member.name.endswith("jpg")]
        pictures = [file.read() for file in files if file]
    while True:
        for data in pictures:
            simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
            yield 1


def read_by_witmill(
    arguments: argparse.Namespace, crop: Crop, readers: int, worker: int = 0, workers: int = 1
) -> Iterator[int]:
    """Read batches without end, those whose number is `worker` modulo `workers`."""
    spec = find_recipe("ViT-B/32").model
    with ShardStream(
        f"{arguments.data}/*.tar",
        batch_size=BATCH,
        window=arguments.samples,
        worker=worker,
        workers=workers,
    ) as stream:
        load = sample_loader(stream.read, spec, 0, crop)
        batches = read_batches(stream, load, context=CONTEXT, count=10**9, readers=readers)
        with closing(batches):
            for batch in batches:
                yield len(batch.pixels_B3SS)


def read_in_process(arguments: argparse.Namespace, core: int) -> Iterator[int]:
    """Read one process's share with one thread."""
    return read_by_witmill(arguments, PARTS, 1, core, arguments.cores)


def read_by_webdataset(
    arguments: argparse.Namespace, preprocess: Callable[[Image.Image], torch.Tensor]
) -> Iterator[int]:
    """Read batches without end with open_clip's pipeline; see get_wds_dataset in its data.py."""
    tokenizer = open_clip_tokenizer(arguments.open_clip)
    shards = f"{arguments.data}/{{00000..{SHARDS - 1:05d}}}.tar"
    dataset = webdataset.DataPipeline(
        webdataset.SimpleShardList(shards),
        webdataset.detshuffle(bufsize=2000, initial=500, seed=0),
        webdataset.split_by_node,
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(bufsize=5000, initial=1000),
        webdataset.select(lambda sample: "txt" in sample and "jpg" in sample),
        webdataset.decode("pilrgb"),
        webdataset.rename(image="jpg;png;jpeg;webp", text="txt"),
        webdataset.map_dict(image=preprocess, text=lambda text: tokenizer(text)[0]),
        webdataset.to_tuple("image", "text"),
        webdataset.batched(BATCH, partial=False),
    ).with_epoch(10**9)
    workers = 0 if arguments.cores == 1 else arguments.cores
    loader = webdataset.WebLoader(dataset, batch_size=None, shuffle=False, num_workers=workers)
    for pixels, _ in loader:
        yield len(pixels)


def random_part(image: Image.Image) -> torch.Tensor:
    """Do what torchvision's RandomResizedCrop and pil_to_tensor do to a picture of Pillow's."""
    left, top, width, height = draw_part(image.width, image.height)
    part = image.crop((left, top, left + width, top + height))
    resized = part.resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized, copy=True)).permute(2, 0, 1).contiguous()


def draw_part(width: int, height: int) -> tuple[int, int, int, int]:
    """Draw a part of 0.9 to 1 of the area, 3:4 to 4:3."""
    for _ in range(10):
        area = width * height * random.uniform(0.9, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (width - w) // 2, (height - h) // 2, w, h


def normalized_part(image: Image.Image) -> torch.Tensor:
    """Do what ToTensor and Normalize do, too."""
    return random_part(image).float().div(255).sub_(MEAN).div_(DEVIATION)


def open_clip_tokenizer(folder: str) -> Callable[[Any], torch.Tensor]:
    """Return open_clip's tokenizer, from its file: the package itself needs torchvision."""
    path = Path(folder, "open_clip", "tokenizer.py")
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenizer: Callable[[Any], torch.Tensor] = module.SimpleTokenizer()
    return tokenizer


def operations_beside(name: str, arguments: argparse.Namespace) -> float:
    """Return how many small operations a second the main thread does while something else reads."""
    stop = get_context("fork").Event()
    kinds: dict[str, Any] = {"thread": threading.Thread, "process": get_context("fork").Process}
    reading = kinds[name](target=read_on, args=(arguments, stop)) if name in kinds else None
    if reading:
        reading.start()
    time.sleep(1)
    one, two = torch.zeros(64), torch.zeros(64)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < 2:
        for _ in range(1000):
            torch.add(one, two)
        count += 1000
    rate = count / (time.perf_counter() - begun)
    stop.set()
    if reading:
        reading.join()
    return rate


def read_on(arguments: argparse.Namespace, stop: Any) -> None:
    """Read with one thread until told to stop."""
    with closing(read_by_witmill(arguments, SQUARE, 1)) as batches:
        while not stop.is_set():
            next(batches)


def time_steps(arguments: argparse.Namespace) -> list[tuple[str, float, float]]:
    """Return microseconds a sample of processor time, of one step after the other, ours and open_clip's."""
    pictures = [small(data) for data in photographs(Path(arguments.data) / "images")]
    captions = real_captions(Path(arguments.data) / "captions", len(pictures))
    tokenizer = open_clip_tokenizer(arguments.open_clip)
    arrays = [images.decode(data).rgb for data in pictures]
    opened = [Image.fromarray(rgb) for rgb in arrays]
    box = Crop(scale=(0.95, 0.95), ratio=(1.0, 1.0))
    out = empty_pixels(1, RESOLUTION)

    def resize(rgb: images.Pixels) -> None:
        resize_into(rgb, draw_box(rgb.shape[1], rgb.shape[0], box, seed=0, epoch=0, key=""), out)

    return [
        (
            "decoding",
            microseconds(images.decode, pictures),
            microseconds(lambda data: Image.open(io.BytesIO(data)).convert("RGB"), pictures),
        ),
        ("cutting and resizing", microseconds(resize, arrays), microseconds(random_part, opened)),
        (
            "token ids",
            microseconds(lambda texts: tokenize(texts, CONTEXT), chunks(captions, 16)) / 16,
            microseconds(tokenizer, captions),
        ),
    ]


def chunks(captions: list[str], size: int) -> list[list[str]]:
    """Return whole lists of `size` captions."""
    return [captions[i : i + size] for i in range(0, len(captions) - size + 1, size)]


def microseconds(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Return the processor time of `work` for an item, the median of some rounds."""
    times = []
    for _ in range(5):
        begun = time.process_time()
        for item in items:
            work(item)
        times.append(time.process_time() - begun)
    return statistics.median(times) / len(items) * 1e6


def print_steps(arguments: argparse.Namespace) -> None:
    """Print what each step costs."""
    torch.set_num_threads(1)
    print("| step, one core | witmill, µs a sample | open_clip | ratio |\n|---|---:|---:|---:|")
    for step, own, other in time_steps(arguments):
        print(f"| {step} | {own:.0f} | {other:.0f} | {other / own:.1f} |")
    print()


WAYS: dict[str, tuple[str, Way]] = {
    "webdataset": (
        "webdataset as open_clip writes it, bytes",
        lambda a: steady(read_by_webdataset(a, random_part), a.samples),
    ),
    "floats": (
        "the same, normalised floats as open_clip has it",
        lambda a: steady(read_by_webdataset(a, normalized_part), a.samples),
    ),
    "parts": (
        "witmill, the same parts",
        lambda a: steady(read_by_witmill(a, PARTS, a.cores), a.samples),
    ),
    "squares": (
        "witmill, CLIP's squares",
        lambda a: steady(read_by_witmill(a, SQUARE, a.cores), a.samples),
    ),
    "processes": (
        "witmill in processes that hand nothing over",
        lambda a: in_processes(read_in_process, a),
    ),
    "decode": ("decoding alone", lambda a: in_processes(decoded, a)),
}
BESIDE = {
    "alone": "alone",
    "thread": "beside a reader, a thread",
    "process": "beside a reader, a process",
}

if __name__ == "__main__":
    main()
