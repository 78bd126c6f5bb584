"""Time each step from a Wikipedia dump to counts, and compare the counts with packaged ones.

    python benchmarks/query_building.py DUMP.xml.bz2 --words word_frequencies.gz --grow 90

One core for the steps; times are processor time, best of several rounds. A piece of the real English
Wikipedia is in the wheel of `gensim`, `gensim/test/test_data/enwiki-latest-pages-articles1*.bz2`, and
counts of all its words in that of `pywordfreq`, `pywordfreq/word_frequencies.gz`. With --grow, the whole
command first runs on a dump so many times as large, in each copy words in another order and new ones.

mwparserfromhell, wikitextparser and gensim's filter are timed beside ours where they are installed.
"""

import argparse
import bz2
import io
import math
import random
import re
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path

import numpy as np

from pipeline import schemas
from pipeline.runtime.executor import InlineExecutor, make_executor
from pipeline.runtime.workspace import Workspace
from queries.bzip2 import read_blocks
from queries.counting import Numberer, count_pairs
from queries.dump import Page, read_pages
from queries.unigrams import word_counts
from queries.wikipedia import WikipediaConfig, run
from queries.wikitext import article_text

ROUNDS = 5
# Assumed of pages-articles of the English Wikipedia, late 2026.
ENWIKI_XML, ENWIKI_BZ2 = 95e9, 22e9
LIBRARIES = {
    "mwparserfromhell": lambda m: lambda text: m.parse(text).strip_code(),
    "wikitextparser": lambda m: m.remove_markup,
    "gensim.corpora.wikicorpus": lambda m: m.filter_wiki,
}


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the least processor time of several rounds of `work`."""
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times)


def number(texts: list[str]) -> object:
    """Bring texts to numbers of tokens and count the pairs of all."""
    numberer = Numberer()
    for text in texts:
        numberer.add(text)
    return count_pairs(iter(numberer.finish().pieces))


def time_steps(dump: bytes) -> list[str]:
    """Print what each step takes; return the articles' wikitext."""
    xml = b"".join(block.content or b"" for block in read_blocks(io.BytesIO(dump), 0))
    pages = [p for p in read_pages(io.BytesIO(xml), 0, len(xml)) if isinstance(p, Page)]
    articles = [p.text for p in pages if p.namespace == 0 and p.redirect_to is None]
    texts = [article_text(text) for text in articles]
    number(texts)
    steps = {
        "bzip2 by Python alone": seconds(lambda: bz2.decompress(dump)),
        "unpack: read_blocks": seconds(lambda: list(read_blocks(io.BytesIO(dump), 0))),
        "parse: read_pages": seconds(lambda: list(read_pages(io.BytesIO(xml), 0, len(xml)))),
        "extract: article_text": seconds(lambda: [article_text(text) for text in articles]),
        "count: tokens and pairs": seconds(lambda: number(texts)),
    }
    print(f"{len(xml) / 1e6:.1f} MB of XML, {len(pages):,} pages, {len(articles):,} articles with")
    print(f"{sum(map(len, articles)) / 1e6:.2f} M characters of wikitext\n")
    print("| step | MB/s of XML | hours of one core for enwiki |\n|---|---:|---:|")
    for name, taken in steps.items():
        hours = taken * ENWIKI_XML / len(xml) / 3600
        print(f"| {name} | {len(xml) / 1e6 / taken:,.0f} | {hours:.2f} |")
    ours = sum(list(steps.values())[1:])
    print(
        f"| all of ours | {len(xml) / 1e6 / ours:,.1f} | {ours * ENWIKI_XML / len(xml) / 3600:.2f} |"
    )
    return articles


def time_libraries(articles: list[str]) -> None:
    """Print how fast wikitext becomes text, by each library that is installed."""
    size = sum(len(text.encode()) for text in articles) / 1e6
    print("\n| wikitext to text | MB/s of wikitext | takes longer than ours by |\n|---|---:|---:|")
    ours = seconds(lambda: [article_text(text) for text in articles])
    print(f"| queries.wikitext | {size / ours:.1f} | 1 |")
    for name, make in LIBRARIES.items():
        try:
            read = make(import_module(name))
        except ImportError:
            continue
        taken = seconds(lambda read=read: [read(text) for text in articles], 1)
        print(f"| {name} | {size / taken:.1f} | {taken / ours:.0f} |")


def counts(dump: Path, folder: Path, executor: object, **floors: float) -> tuple[Workspace, int]:
    """Run the command on `dump`; return its workspace, and the words counted."""
    workspace = Workspace(root=str(folder))
    manifest = run(WikipediaConfig(dumps=(str(dump),), **floors), workspace, executor)  # type: ignore[arg-type]
    return workspace, int(manifest.counters["words"])


def compare(dump: Path, words: Path, folder: Path) -> None:
    """Print how the relative frequencies of words differ from packaged counts."""
    workspace, total = counts(
        dump, folder, InlineExecutor(), minimum_word_count=1, minimum_bigram_count=2,
        minimum_bigram_word_count=10, minimum_bigram_pmi=0.0,
    )  # fmt: skip
    table = workspace.read_table("wikipedia", "words", schemas.WIKIPEDIA_WORDS)
    ours = dict(zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True))
    theirs = word_counts(str(words))
    their_total = sum(theirs.values())
    frequent = [word for word, count in ours.items() if count >= 100]
    known = [word for word in frequent if word in theirs]
    x = np.array([ours[word] / total for word in known])
    y = np.array([theirs[word] / their_total for word in known])
    ranks = np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1]
    print(f"\n{total:,} words, {len(ours):,} distinct; {len(frequent):,} occur 100 times and more,")
    print(
        f"of which {len(known):,} are among the {len(theirs):,} packaged; rank correlation {ranks:.3f};"
    )
    print(f"share in all words, ours to theirs, median {np.median(x / y):.2f}")
    print("not packaged:", ", ".join(w for w in frequent if w not in theirs) or "none")
    excess = sorted(zip(np.log2(x / y), known, strict=True))
    print("rarer here by most bits:", ", ".join(f"{w} {b:.1f}" for b, w in excess[:12]))
    print("more frequent:", ", ".join(f"{w} {b:.1f}" for b, w in excess[:-13:-1]))
    everywhere = [w for w, n in ours.items() if n >= 5]
    missing = [w for w in everywhere if w not in theirs]
    print(
        f"of {len(everywhere):,} words of 5 and more, {len(missing):,} are not packaged:",
        *missing[:20],
    )
    bigrams = workspace.read_table("wikipedia", "bigrams", schemas.WIKIPEDIA_BIGRAMS)
    bits = bigrams["pmi"].to_numpy()
    print(
        f"\n{len(bits):,} bigrams of 2 and more, both words of 10 and more: highest PMI {bits.max()} bits;"
    )
    print(
        f"{(bits >= 30).sum():,} reach 30 bits, {(bits >= math.log2(30)).sum():,} 30 times chance"
    )


def grown(dump: bytes, times: int) -> Iterator[bytes]:
    """Yield the XML of a dump so many times, in each copy words in another order and new ones.

    More pairs of words are distinct than in as much of real text.
    """
    xml = bz2.decompress(dump)
    head, body = (
        xml[: xml.index(b"<page>")],
        xml[xml.index(b"<page>") : xml.rindex(b"</mediawiki>")],
    )
    yield head
    for copy in range(times):
        chance = random.Random(copy)

        def change(run: re.Match[bytes], copy: int = copy, chance: random.Random = chance) -> bytes:
            words = run[0].split()
            chance.shuffle(words)
            return b"".join(w + (b"%d " % copy if chance.random() < 0.05 else b" ") for w in words)

        yield re.sub(rb"(?:[a-z]+ ){3,}", change, body)
    yield b"</mediawiki>\n"


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder that others write to meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def run_grown(dump: bytes, times: int, folder: Path) -> None:
    """Run the command on a grown dump and print memory, scratch space and processor time."""
    path = folder / "grown.xml.bz2"
    packer, size = bz2.BZ2Compressor(), 0
    with path.open("wb") as file:
        for piece in grown(dump, times):
            size += len(piece)
            file.write(packer.compress(piece))
        file.write(packer.flush())
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, folder_bytes(folder / "grown"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    with closing(make_executor("local")) as executor:
        workspace, words = counts(path, folder / "grown", executor)
    done.set()
    watcher.join()
    taken = time.perf_counter() - begun
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    packed = path.stat().st_size
    print(
        f"\n{times} times: {size / 1e6:,.0f} MB of XML, {packed / 1e6:,.0f} MB of one bzip2 stream,"
    )
    print(
        f"{words:,} words; {taken:.0f} s, {workers.ru_utime + workers.ru_stime:.0f} s of processor time;"
    )
    print(f"largest worker {workers.ru_maxrss / 1024:,.0f} MiB, main process", end=" ")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB;")
    print(f"scratch and results {peak / 1e6:,.0f} MB, {peak / packed:.2f} times the bzip2 file,")
    print(f"so {peak / packed * ENWIKI_BZ2 / 1e9:.0f} GB for enwiki")
    for table, schema in (
        ("words", schemas.WIKIPEDIA_WORDS),
        ("bigrams", schemas.WIKIPEDIA_BIGRAMS),
    ):
        print(f"{len(workspace.read_table('wikipedia', table, schema)):,} {table}")


def main() -> None:
    """Time, compare and grow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dump", type=Path, help="a piece of a dump, as .xml.bz2")
    parser.add_argument("--words", type=Path, help="gzipped `word;count` lines to compare with")
    parser.add_argument("--grow", type=int, default=0, help="run on a dump so many times as large")
    arguments = parser.parse_args()
    dump = arguments.dump.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.grow:
            run_grown(dump, arguments.grow, Path(folder))
        time_libraries(time_steps(dump))
        if arguments.words:
            compare(arguments.dump, arguments.words, Path(folder) / "sample")


if __name__ == "__main__":
    main()
