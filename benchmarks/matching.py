"""Time ways to find 500,000 queries in captions; all must find the same.

    python benchmarks/matching.py PAIRS.parquet... --queries QUERIES.tsv.xz

First the matching alone, on one core, under both rules: the token trie, pyahocorasick, the Rust
binding ahocorasick_rs, and a loop of `in` over the queries. The peers get each caption as the rules
prepare it (MetaCLIP's spacing, or normalised), and that is in their time as it is in the trie's. Beside
them stands what no way can beat: cutting the same bytes into tokens and hashing those. Then the whole
stage, from Parquet to Parquet, with one process and with two.

Times of the matching are processor time, medians of several rounds; the stage's are on the clock.
"""

import argparse
import lzma
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ahocorasick
import ahocorasick_rs
import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.matching import token_kernels
from pipeline.matching.trie import caption_bytes, compile_queries, text_rows
from pipeline.matching.trie_tables import ByteRules, Rows
from queries.query_list import read_queries
from queries.text import RULES, Rules, metaclip_text, normalize

Prepare = Callable[[str], str]
Match = Callable[[list[str]], list[list[int]]]

ROUNDS = 5
# Each way gets as many captions as it needs to run for about a second.
TRIE_CAPTIONS, PEER_CAPTIONS, LOOP_CAPTIONS = 400_000, 40_000, 20
STAGE_ROUNDS = 3
# Captions cut at a time, some kilobytes, as the trie does it.
CUT_ROWS = 128
PREPARE: dict[Rules, Prepare] = {
    "metaclip": metaclip_text,
    "words": lambda caption: f" {normalize(caption)} ",
}


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", help="Parquet files with columns url, caption")
    parser.add_argument("--queries", help="a query a line, up to a tab; default: builtin")
    arguments = parser.parse_args()
    tables = [pq.read_table(path, columns=["caption"]) for path in arguments.pairs]
    captions = pa.concat_tables(tables)["caption"].combine_chunks()
    peers = [compare(captions, queries_of(arguments.queries, rules), rules) for rules in RULES]
    time_stage(arguments.pairs, len(captions), arguments.queries, peers[0])


def queries_of(path: str | None, rules: Rules) -> pa.Table:
    """Return the list at `path`, its lines cut at the first tab, or the built-in one."""
    if path is None:
        return read_queries("builtin")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as plain:
        plain.write(plain_list(path))
        plain.flush()
        return read_queries(plain.name, rules=rules)


def plain_list(path: str) -> str:
    """Return the first column of a file of lines, which may be compressed by xz, as lines."""
    data = Path(path).read_bytes()
    text = (lzma.decompress(data) if path.endswith(".xz") else data).decode()
    return "".join(line.partition("\t")[0] + "\n" for line in text.splitlines())


def compare(captions: pa.StringArray, table: pa.Table, rules: Rules) -> float:
    """Print the captions per second of every way; return pyahocorasick's."""
    queries: list[str] = table["query"].to_pylist()
    begun = time.perf_counter()
    trie = compile_queries(table, rules)
    trie.match(captions.slice(0, 1000))
    loaded = time.perf_counter() - begun
    build = median_seconds(lambda: compile_queries(table, rules))
    trie_captions = captions.slice(0, TRIE_CAPTIONS)
    found = trie.match(trie_captions)
    size = len(trie_captions.buffers()[2]) / len(captions)
    print(
        f"\nRules {rules}: {len(queries):,} queries in {trie.nbytes / 1e6:.0f} MB, built in {build:.2f} s"
        f" ({loaded:.1f} s the first time in a process); {len(trie_captions):,} captions of"
        f" {size:.0f} bytes with {len(found.values) / len(found):.1f} queries\n"
    )
    ways: dict[str, Match] = {
        "ahocorasick_rs": rust_automaton(queries, PREPARE[rules]),
        "pyahocorasick": automaton(queries, PREPARE[rules]),
        "a loop of `in`": loop(queries, PREPARE[rules]),
    }
    speeds = {
        "cutting and hashing alone": len(trie_captions) / cut(trie_captions, rules),
        "token trie": len(trie_captions) / median_seconds(lambda: trie.match(trie_captions)),
    }
    for name, match in ways.items():
        count = LOOP_CAPTIONS if "loop" in name else PEER_CAPTIONS
        sample: list[str] = captions.slice(0, count).to_pylist()
        if match(sample) != found.slice(0, count).to_pylist():
            raise SystemExit(f"{name} and the trie disagree")
        speeds[name] = count / median_seconds(lambda m=match, s=sample: m(s))  # type: ignore[misc]
    print("| way | captions/s | the trie is faster by |\n|---|---:|---:|")
    for name, speed in speeds.items():
        print(f"| {name} | {speed:,.0f} | {speeds['token trie'] / speed:,.2f} |")
    return speeds["pyahocorasick"]


def median_seconds(work: Callable[[], object]) -> float:
    """Return the median processor time of several rounds of `work`."""
    times = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return statistics.median(times)


def loop(queries: list[str], prepare: Prepare) -> Match:
    """Return what looks for each query in turn."""
    padded = [f" {query} " for query in queries]

    def match(captions: list[str]) -> list[list[int]]:
        texts = [prepare(caption) for caption in captions]
        return [[i for i, query in enumerate(padded) if query in text] for text in texts]

    return match


def automaton(queries: list[str], prepare: Prepare) -> Match:
    """Return what looks for all queries at once with pyahocorasick."""
    built = ahocorasick.Automaton()
    for i, query in enumerate(queries):
        built.add_word(f" {query} ", i)
    built.make_automaton()

    def match(captions: list[str]) -> list[list[int]]:
        return [sorted({i for _, i in built.iter(prepare(caption))}) for caption in captions]

    return match


def rust_automaton(queries: list[str], prepare: Prepare) -> Match:
    """Return what looks for all queries at once with ahocorasick_rs."""
    built = ahocorasick_rs.AhoCorasick([f" {query} " for query in queries])

    def match(captions: list[str]) -> list[list[int]]:
        found = (
            built.find_matches_as_indexes(prepare(caption), overlapping=True)
            for caption in captions
        )
        return [sorted({i for i, _, _ in each}) for each in found]

    return match


def cut(captions: pa.StringArray, rules: Rules) -> float:
    """Return the seconds it takes to cut the captions into tokens and hash those."""
    rows = text_rows(captions, rules)
    byte_rules = caption_bytes(rules)
    cut_rows(rows, byte_rules)
    return median_seconds(lambda: cut_rows(rows, byte_rules))


@numba.njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def cut_rows(rows: Rows, byte_rules: ByteRules) -> int:
    """Cut all rows and add up the hashes of their tokens."""
    in_word, alone, fold_case, keep_empty = byte_rules
    room = CUT_ROWS * ((rows.ends - rows.starts).max() + 1)
    text = np.empty(room + token_kernels.PADDING, np.uint8)
    marks = np.empty_like(text)
    keys, spans = np.empty(2 * room, np.uint64), np.empty(2 * room, np.uint64)
    starts, total = np.empty(CUT_ROWS + 1, np.int64), np.uint64(0)
    for first in range(0, rows.starts.size - CUT_ROWS, CUT_ROWS):
        token_kernels.gather(rows, first, first + CUT_ROWS, text, starts)
        token_kernels.mark(text, starts, CUT_ROWS, in_word, fold_case, marks)
        n = 0
        for row in range(CUT_ROWS):
            end = starts[row + 1] - 1
            n = token_kernels.scan(text, marks, starts[row], end, alone, keep_empty, n, keys, spans)
        for k in range(n):
            total ^= keys[k] * token_kernels.MIX
    return total


def time_stage(pairs: list[str], rows: int, queries: str | None, peer: float) -> None:
    """Print the captions per second of the whole stage with one process and with two."""
    with tempfile.TemporaryDirectory(prefix="witmill-benchmark-") as folder:
        options = []
        if queries is not None:
            listed = Path(folder, "queries.txt")
            listed.write_text(plain_list(queries), encoding="utf-8")
            options = ["--queries", str(listed)]
        one = f"{folder}/one.parquet"
        pq.write_table(pq.read_table(pairs[0]).slice(0, 1), one)
        witmill("ingest", one, "--workspace", f"{folder}/one")
        witmill("ingest", *pairs, "--workspace", f"{folder}/all")
        print(
            f"\nThe stage, Parquet to Parquet, {rows:,} captions; pyahocorasick is the matching alone:\n"
        )
        print("| processes | s | of it start-up | captions/s after it | against pyahocorasick |")
        print("|---|---:|---:|---:|---:|")
        for workers in (1, 2):
            start = stage_seconds(f"{folder}/one", workers, options)
            whole = stage_seconds(f"{folder}/all", workers, options)
            speed = rows / (whole - start)
            print(f"| {workers} | {whole:.1f} | {start:.1f} | {speed:,.0f} | {speed / peer:.1f} |")


def stage_seconds(run: str, workers: int, options: list[str]) -> float:
    """Return the median time on the clock of matching all of a workspace anew."""
    times = []
    for _ in range(STAGE_ROUNDS):
        shutil.rmtree(f"{run}/match", ignore_errors=True)
        begun = time.perf_counter()
        witmill("match", *options, "--workspace", run, "--workers", str(workers))
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def witmill(*arguments: str) -> None:
    """Run a command line; its output is shown only if it fails."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")


if __name__ == "__main__":
    main()
