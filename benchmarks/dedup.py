"""Measure the search for near hashes: corpus against evaluation sets, and corpus against itself.

Hashes are random but for a share of them that lie near others, and, with `--shared`, a share that have
half of their bits in common, as flat pictures do. Baselines in the same run: XOR and `np.bitwise_count`
over everything, and FAISS's binary indexes. `--planted` instead hides edited evaluation pictures among
corpus pictures, see `benchmarks/planted_overlap.py`; `--stage` runs the whole stage over made-up pairs.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import planted_overlap
from benchmarks.balance import peak_memory
from benchmarks.dedup_stage import measure_stage
from dedup.bands import Words
from dedup.clusters import BLOCK_ROWS
from dedup.perceptual import find_first, find_near, keep_first
from pipeline.runtime.executor import make_executor

RADIUS = 31
SLICE = 1_000_000
# Of the corpus: copies of an evaluation picture, and of another corpus picture, some bits away.
COPIES = 0.01
REPEATED = 0.05
MOST_BITS = 40


@dataclass(frozen=True, kw_only=True)
class Made:
    """How hashes are made: how many of each side, and what share of them have half their bits in common."""

    evaluation: int
    shared: float


@dataclass(frozen=True, kw_only=True)
class SliceTask:
    """A slice of the corpus to compare with all evaluation hashes."""

    made: Made
    number: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a task found, and the processor time it took, without that of making the hashes."""

    pairs: int
    seconds: float


def random_words(rows: int, seed: int, shared: float) -> Words:
    """Return random hashes; a share of them have their first 128 bits in common."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**64, (rows, 4), np.uint64)
    words[: int(shared * rows), :2] = 0x0123456789ABCDEF
    return words


def flip_some(words: Words, rng: np.random.Generator) -> Words:
    """Return copies that are up to `MOST_BITS` bits away."""
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    order = rng.permuted(np.broadcast_to(np.arange(256), bits.shape), axis=1)
    bits ^= order < rng.integers(0, MOST_BITS + 1, (len(words), 1))
    return np.packbits(bits, axis=1).view(np.uint64)


@cache
def evaluation_words(made: Made) -> Words:
    """Return the hashes of the evaluation sets."""
    return random_words(made.evaluation, 0, made.shared)


def corpus_words(made: Made, number: int, rows: int) -> Words:
    """Return one slice of the corpus: some near evaluation hashes, some near others of the slice."""
    words = random_words(rows, 1 + number, made.shared)
    rng = np.random.default_rng(number)
    targets = evaluation_words(made)
    copied, repeated = rng.permutation(rows)[: int((COPIES + REPEATED) * rows)], 0
    repeated = int(COPIES * rows)
    words[copied[:repeated]] = flip_some(targets[rng.integers(len(targets), size=repeated)], rng)
    others = words[rng.integers(rows, size=len(copied) - repeated)]
    words[copied[repeated:]] = flip_some(others, rng)
    return words


def compare_slice(task: SliceTask) -> Measured:
    """Find all near pairs of one slice; runs in a worker."""
    targets, words = evaluation_words(task.made), corpus_words(task.made, task.number, task.rows)
    begun = time.process_time()
    pairs = len(find_near(words, targets, RADIUS).query)
    return Measured(pairs=pairs, seconds=time.process_time() - begun)


def thin_corpus(made: Made, rows: int) -> Measured:
    """Thin out a corpus in blocks, as the stage does: each block, then those after it by what stays."""
    blocks = [
        corpus_words(made, i, min(BLOCK_ROWS, rows - start))
        for i, start in enumerate(range(0, rows, BLOCK_ROWS))
    ]
    begun = time.process_time()
    is_dropped = [np.zeros(len(block), np.bool_) for block in blocks]
    for i, block in enumerate(blocks):
        rest = block[~is_dropped[i]]
        leaders = keep_first(rest, RADIUS)
        is_dropped[i][np.flatnonzero(~is_dropped[i])] = leaders.leader >= 0
        kept = rest[leaders.leader < 0]
        for later in range(i + 1, len(blocks)):
            is_dropped[later] |= find_first(blocks[later], kept, RADIUS).leader >= 0
    seconds = time.process_time() - begun
    return Measured(pairs=int(sum(d.sum() for d in is_dropped)), seconds=seconds)


def by_rows(queries: Words, targets: Words) -> list[tuple[int, int, int]]:
    """Compare each with each by XOR and `np.bitwise_count`, the plain way."""
    found = []
    for i, query in enumerate(queries):
        bits = np.bitwise_count(targets ^ query).sum(axis=1)
        found += [(i, j, int(bits[j])) for j in np.flatnonzero(bits <= RADIUS).tolist()]
    return found


def by_columns(queries: Words, targets: Words) -> list[tuple[int, int, int]]:
    """Like `by_rows`, word by word in small blocks, which is as fast as numpy gets."""
    columns = np.ascontiguousarray(targets.T)
    found = []
    for start in range(0, len(targets), 1 << 14):
        block = columns[:, start : start + (1 << 14)]
        for i, query in enumerate(queries):
            bits = np.bitwise_count(block[0] ^ query[0])
            for word in range(1, 4):
                bits = bits + np.bitwise_count(block[word] ^ query[word])
            found += [(i, start + j, int(bits[j])) for j in np.flatnonzero(bits <= RADIUS).tolist()]
    return sorted(found)


@contextmanager
def timed(label: str, comparisons: float, whole: float) -> Iterator[None]:
    """Print the processor time of a block, and what the whole would take at that pace."""
    begun = time.process_time()
    yield
    seconds = time.process_time() - begun
    scaled = seconds / comparisons * whole
    print(f"| {label} | {seconds / comparisons * 1e9:.4f} ns | {scaled:,.0f} s |", flush=True)


def measure_baselines(made: Made, corpus: int) -> None:
    """Print what numpy and FAISS take of one core, on samples; make sure that all find the same."""
    targets, words = evaluation_words(made), corpus_words(made, 0, SLICE)
    whole = float(corpus) * made.evaluation
    few, more = words[:200], words[:20_000]
    print("| one core | for each pair | all pairs |\n|---|---:|---:|")
    near = find_near(few, targets, RADIUS)
    expected = list(
        zip(*(a.tolist() for a in (near.query, near.target, near.distance)), strict=True)
    )
    for label, compare in (("numpy, by rows", by_rows), ("numpy, by columns", by_columns)):
        with timed(label, len(few) * len(targets), whole):
            found = compare(few, targets)
        assert found == expected, label
    near = find_near(more, targets, RADIUS)
    known = set(zip(near.query.tolist(), near.target.tolist(), strict=True))
    measure_faiss(few, more, targets, known, whole)
    with timed("witmill, a million at once", SLICE * len(targets), whole):
        find_near(words, targets, RADIUS)


def measure_faiss(
    few: Words, more: Words, targets: Words, known: set[tuple[int, int]], whole: float
) -> None:
    """Print what FAISS's binary indexes take and what they find of what is `known`."""
    import faiss

    faiss.omp_set_num_threads(1)
    data = targets.view(np.uint8)
    flat = faiss.IndexBinaryFlat(256)
    # 16 hashes of 16 bits, one flipped: the same candidates as ours, so nothing is missed.
    hashed = faiss.IndexBinaryMultiHash(256, 16, 16)
    hashed.nflip = 1
    lists = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(256), 256, 1024)
    lists.own_fields, lists.nprobe = False, 64
    indexes: dict[str, tuple[Callable[[], object], object, Words]] = {
        "FAISS IndexBinaryFlat": (lambda: flat.add(data), flat, few),
        "FAISS IndexBinaryMultiHash": (lambda: hashed.add(data), hashed, more),
        "FAISS IndexBinaryIVF, 64 of 1,024 lists": (lambda: fill(lists, data), lists, more),
    }
    for name, (build, index, queries) in indexes.items():
        begun = time.process_time()
        build()
        built = time.process_time() - begun
        wanted = {(q, t) for q, t in known if q < len(queries)}
        begun = time.process_time()
        limits, _, found = index.range_search(queries.view(np.uint8), RADIUS + 1)  # type: ignore[attr-defined]
        seconds = time.process_time() - begun
        rows = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
        met = len(wanted & set(zip(rows.tolist(), found.tolist(), strict=True)))
        pairs = len(queries) * len(targets)
        print(
            f"| {name}: built in {built:.0f} s, finds {met:,} of {len(wanted):,} "
            f"| {seconds / pairs * 1e9:.4f} ns | {seconds / pairs * whole:,.0f} s |",
            flush=True,
        )


def fill(lists: object, data: npt.NDArray[np.uint8]) -> None:
    """Train an inverted file on some hashes and add all."""
    lists.train(data[:100_000])  # type: ignore[attr-defined]
    lists.add(data)  # type: ignore[attr-defined]


def measure_search(made: Made, corpus: int, workers: int) -> None:
    """Print a line: corpus against evaluation on some processes."""
    tasks = [
        SliceTask(made=made, number=i, rows=min(SLICE, corpus - start))
        for i, start in enumerate(range(0, corpus, SLICE))
    ]
    with closing(make_executor("local", workers=workers)) as executor, peak_memory() as peak:
        warm = Made(evaluation=10_000, shared=0)
        list(executor.map(compare_slice, [SliceTask(made=warm, number=0, rows=20_000)] * workers))
        begun = time.monotonic()
        done = list(executor.map(compare_slice, tasks))
        wall = time.monotonic() - begun
    print(
        f"| {corpus:,} | {made.evaluation:,} | {sum(d.pairs for d in done):,} "
        f"| {sum(d.seconds for d in done):.1f} | {wall:.1f} | {peak[0]:.2f} GB |",
        flush=True,
    )


def main() -> None:
    """Measure what is asked for and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--evaluation", type=int, default=1_000_000)
    parser.add_argument("--shared", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--itself", type=int, nargs="*", default=[])
    parser.add_argument("--stage", type=int, nargs="*", default=[])
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--embeddings", default="")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folder", type=Path, default=Path("/tmp/witmill-dedup"))
    arguments = parser.parse_args()
    made = Made(evaluation=arguments.evaluation, shared=arguments.shared)
    if arguments.planted:
        planted_overlap.measure(
            arguments.data, arguments.folder, arguments.embeddings, arguments.workers
        )
        return
    if arguments.stage:
        measure_stage(arguments.stage, arguments.folder, arguments.workers)
        return
    if arguments.itself:
        print("| corpus | dropped | CPU s |\n|---:|---:|---:|")
        keep_first(random_words(20_000, 0, 0), RADIUS)
        for rows in arguments.itself:
            found = thin_corpus(made, rows)
            print(f"| {rows:,} | {found.pairs:,} | {found.seconds:.1f} |", flush=True)
        return
    print(
        "| corpus | evaluation | near pairs | CPU s | s | peak memory |\n|---:|---:|---:|---:|---:|---:|"
    )
    for corpus in arguments.corpus:
        measure_search(made, corpus, arguments.workers)
    measure_baselines(made, arguments.corpus[-1])


if __name__ == "__main__":
    main()
