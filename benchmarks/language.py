"""Time the language stage against fastText itself, and count its mistakes on parallel captions.

    python benchmarks/language.py CAPTIONS.parquet --column TEXT --parallel multi30k/

Speeds are of processor time on one core, the best of several rounds; two processes are compared with
one by the clock, so run that on a quiet machine. `--parallel` is a folder of files named
NAME.LANGUAGE.gz with one caption a line, such as those of Multi30k.
"""

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import language, schemas
from pipeline.inputs.pairs import pair_ids
from pipeline.language import LanguageConfig, Model
from pipeline.runtime.executor import make_executor
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace

ROUNDS = 5
PARTS, CAPTIONS_PER_PART = 4, 100_000


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the least processor time of several rounds of `work`."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def prepare(captions: pa.Array) -> list[str]:
    """Return the captions as the stage hands them to fastText."""
    return [f"{' '.join(caption.lower().split())}\n" for caption in captions.to_pylist()]


def compare_cores(captions: pa.Array, model: Model) -> None:
    """Print the speed of fastText's list predict, and of the stage's core, on the same captions."""
    lines = prepare(captions)
    # What `predict` of a list calls; in one build it gives labels alone, and `predict` itself fails.
    raw = seconds(lambda: model.f.multilinePredict(lines, 1, 0.0, "strict"))
    core = seconds(lambda: language.identify(captions, model))
    print("| on one core | captions/s | of fastText |\n|---|---:|---:|")
    for name, took in (
        ("fastText's list predict", raw),
        ("`identify`, preparation included", core),
    ):
        print(f"| {name} | {len(captions) / took:,.0f} | {raw / took:.2f} |")
    whole = stage_seconds(captions, workers=0, clock=time.process_time)
    speed = PARTS * CAPTIONS_PER_PART / whole
    print(f"| the stage, Parquet to Parquet | {speed:,.0f} | {speed * raw / len(captions):.2f} |\n")


def stage_seconds(captions: pa.Array, *, workers: int, clock: Callable[[], float]) -> float:
    """Return the time the whole stage takes over PARTS parts."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(root=folder)
        write_matches(workspace, captions)
        with closing(make_executor("local", workers=workers)) as executor:
            # Start the workers and load the model before the clock runs.
            language.run(LanguageConfig(min_probability=0.5), workspace, executor)
            begun = clock()
            language.run(LanguageConfig(), workspace, executor)
            return clock() - begun


def write_matches(workspace: Workspace, captions: pa.Array) -> None:
    """Make `match` a finished stage of PARTS parts."""
    stage = begin("match", Settings(), workspace)
    copies = -(-CAPTIONS_PER_PART // len(captions))
    texts = pa.concat_arrays([captions] * copies)[:CAPTIONS_PER_PART]
    outcomes = []
    for part in range(PARTS):
        urls = [f"http://example.com/{part}/{i}.jpg" for i in range(len(texts))]
        columns = {
            "pair_id": pair_ids(urls, texts.to_pylist()),
            "url": urls,
            "caption": texts,
            "caption_source": ["alt"] * len(texts),
            "page_url": pa.nulls(len(texts), pa.string()),
            "source": ["benchmark"] * len(texts),
            "source_offset": range(len(texts)),
            "blur_boxes": [None] * len(texts),
            "query_ids": [[1, 2, 3]] * len(texts),
        }
        outcomes.append(
            stage.output(part).write(
                rows_in=len(texts),
                kept=pa.table(columns, schema=schemas.MATCHES),
                schema=schemas.MATCHES,
                drops=schemas.DROPS.empty_table(),
            )
        )
    stage.finish(outcomes)


def compare_processes(captions: pa.Array) -> None:
    """Print how much faster two processes are than one, by the clock."""
    one, two = (
        min(stage_seconds(captions, workers=n, clock=time.perf_counter) for _ in range(2))
        for n in (1, 2)
    )
    print(f"One process {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast.\n")


def count_mistakes(folder: Path, model: Model) -> None:
    """Print which share of each language's captions is taken for English."""
    print("| captions | number | kept as English | in capitals | first three words |")
    print("|---|---:|---:|---:|---:|")
    codes = sorted({path.suffixes[-2][1:] for path in folder.glob("*.gz")})
    for code in codes:
        captions = [
            caption
            for path in sorted(folder.glob(f"*.{code}.gz"))
            for caption in gzip.decompress(path.read_bytes()).decode().splitlines()
        ]
        beginnings = [" ".join(caption.split()[:3]) for caption in captions]
        ways = (captions, [caption.upper() for caption in captions], beginnings)
        shares = " | ".join(f"{100 * english(texts, model):.2f}%" for texts in ways)
        print(f"| {code} | {len(captions):,} | {shares} |")


def english(captions: list[str], model: Model) -> float:
    """Return the share of captions that the stage keeps by default."""
    languages, probabilities = language.identify(pa.array(captions, pa.string()), model)
    is_certain = pc.greater_equal(probabilities, LanguageConfig().min_probability)
    kept = pc.and_(pc.equal(languages, "en"), is_certain)
    return float(pc.mean(kept.cast(pa.int8())).as_py())


def main() -> None:
    """Run all that was asked for and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path, help="Parquet file with captions")
    parser.add_argument("--column", default="TEXT", help="the captions' column")
    parser.add_argument("--parallel", type=Path, help="folder with captions of known language")
    parser.add_argument("--model", help="fastText model; default: the one installed along")
    parser.add_argument("--processes", action="store_true", help="compare two processes with one")
    arguments = parser.parse_args()
    column = pq.read_table(arguments.captions, columns=[arguments.column]).column(0).drop_null()
    captions = column.combine_chunks().cast(pa.string())
    model = language.load_model(arguments.model or language.find_model())
    compare_cores(captions, model)
    if arguments.processes:
        compare_processes(captions)
    if arguments.parallel:
        count_mistakes(arguments.parallel, model)


if __name__ == "__main__":
    main()
