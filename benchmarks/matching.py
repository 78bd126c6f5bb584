"""Time three ways to find the queries of the built-in list in captions; all must agree.

    python benchmarks/matching.py CAPTIONS.parquet --column TEXT

One core. Times are processor time, best of several rounds, and include bringing captions to their
tokens. `pyahocorasick` is left out if it is not installed.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.trie import compile_queries
from queries.query_list import read_queries
from queries.text import normalize

Found = list[list[int]]

ROUNDS = 5
# Each way gets as many captions as it needs to run for about a second.
TRIE_COPIES, AUTOMATON_CAPTIONS, LOOP_CAPTIONS = 40, 10_000, 25


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the least processor time of several rounds of `work`."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def loop(queries: list[str]) -> Callable[[list[str]], Found]:
    """Return what looks for each query in turn."""
    padded = [f" {query} " for query in queries]

    def match(captions: list[str]) -> Found:
        texts = [f" {normalize(caption)} " for caption in captions]
        return [[i for i, query in enumerate(padded) if query in text] for text in texts]

    return match


def automaton(queries: list[str]) -> Callable[[list[str]], Found] | None:
    """Return what looks for all queries at once with pyahocorasick, or None without it."""
    try:
        import ahocorasick
    except ImportError:
        return None
    built = ahocorasick.Automaton()
    for i, query in enumerate(queries):
        built.add_word(f" {query} ", i)
    built.make_automaton()

    def match(captions: list[str]) -> Found:
        texts = [f" {normalize(caption)} " for caption in captions]
        return [sorted({i for _, i in built.iter(text)}) for text in texts]

    return match


def main() -> None:
    """Compare the three and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path, help="Parquet file with captions")
    parser.add_argument("--column", default="TEXT", help="the captions' column")
    arguments = parser.parse_args()
    column = pq.read_table(arguments.captions, columns=[arguments.column]).column(0).drop_null()
    captions: list[str] = column.to_pylist()
    table = read_queries("builtin")
    queries: list[str] = table.column("query").to_pylist()

    begun = time.perf_counter()
    trie = compile_queries(table, "words")
    found = trie.match(column).to_pylist()
    print(f"first use, compiling or loading compiled code: {time.perf_counter() - begun:.1f} s")
    build = seconds(lambda: compile_queries(table, "words"), 3)
    print(f"{len(queries):,} queries into {trie.nbytes / 1e6:.0f} MB of tables: {build:.2f} s")
    mean_bytes = sum(len(caption.encode()) for caption in captions) / len(captions)
    mean_found = sum(map(len, found)) / len(found)
    print(f"{len(captions):,} captions of {mean_bytes:.0f} bytes with {mean_found:.1f} queries\n")

    copies = pa.chunked_array(column.chunks * TRIE_COPIES)
    speeds = {"token trie": len(copies) / seconds(lambda: trie.match(copies), ROUNDS)}
    for name, make, count in (
        ("pyahocorasick", automaton, AUTOMATON_CAPTIONS),
        ("loop of `in`", loop, LOOP_CAPTIONS),
    ):
        match = make(queries)
        if match is None:
            print(f"{name} is not installed\n")
            continue
        sample = captions[:count]
        if match(sample) != found[: len(sample)]:
            raise SystemExit(f"{name} and the trie disagree")
        speeds[name] = len(sample) / seconds(lambda m=match, s=sample: m(s), 2)

    print("| way | captions/s | trie is faster by |\n|---|---:|---:|")
    for name, speed in speeds.items():
        print(f"| {name} | {speed:,.0f} | {speeds['token trie'] / speed:,.1f} |")


if __name__ == "__main__":
    main()
