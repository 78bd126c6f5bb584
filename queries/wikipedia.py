"""Count the words and the pairs of neighbouring words of a Wikipedia dump, and list its titles.

In bounded memory, whatever the size of the dump:

1. read: each stretch of the dump is unpacked and brought to text once; what is kept of it are its
   pages' titles, its distinct tokens with their counts, and the text as numbers of tokens;
2. words: the counts of each partition of all words are added up;
3. pairs: the pairs of each stretch are counted, from the numbers, now that it is known which words
   are frequent enough;
4. bigrams: the counts of each partition of all pairs are added up;
5. the titles are written in parts of one size.

What is written does not depend on how the dump was cut into stretches.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline import schemas
from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import MAIN, Manifest, Outcome
from pipeline.runtime.parquet import read_parquet, write_parquet
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import StageRun, TaskOutput, begin
from pipeline.runtime.workspace import Workspace
from queries.content_words import content_words
from queries.partitions import read_partition
from queries.stretches import (
    PAGE_ROWS,
    Stretch,
    StretchTask,
    count_stretch_pairs,
    cut_dumps,
    read_stretch,
)
from queries.unigrams import is_word

REASONS = {
    "other_namespace": "the page is no article: a template, category, file, portal, ...",
    "not_wikitext": "the page is written in something else than wikitext",
    "broken_page": "the page's XML cannot be parsed, or is cut off",
    "page_too_large": "the page is larger than 16 MiB",
    "damaged_block": "a block of the bzip2 file cannot be unpacked; its pages are unknown",
}

STAGE = "wikipedia"
PART_ROWS = 1_000_000
# With more, opening files would take longer than the work in them.
MOST_PARTITIONS = 1024


class WikipediaConfig(Settings):
    """Count the words and bigrams of a Wikipedia dump, and list its titles."""

    dumps: tuple[str, ...] = ()
    """files, folders, patterns or s3:// paths: pages-articles as .xml.bz2, in one part or many, or as .xml"""
    minimum_word_count: int = Field(10, ge=1)
    """occurrences that a word needs to be recorded"""
    minimum_bigram_word_count: int = Field(100, ge=1)
    """occurrences that each word of a bigram needs, never fewer than a recorded word"""
    minimum_bigram_count: int = Field(20, ge=1)
    """occurrences that a bigram needs to be recorded"""
    minimum_bigram_pmi: float = 3.0
    """bits of PMI that a bigram needs to be recorded"""
    content_bigrams: bool = False
    """whether function words, particles of names, letters and numbers bar a bigram"""
    task_megabytes: int = Field(64, ge=1, le=4096)
    """megabytes of a bzip2 file that one task reads; what is written does not depend on it"""


@dataclass(frozen=True, kw_only=True)
class SumTask:
    """One partition of words or of pairs to add up from all `files`; the sums go to `path`."""

    files: tuple[str, ...]
    partition: int
    config: WikipediaConfig
    path: str
    vocabulary: str = ""
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class PagesTask:
    """Runs of rows, (file, first, count), that make one part of the titles."""

    runs: tuple[tuple[str, int, int], ...]
    output: TaskOutput


def run(config: WikipediaConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Count `config.dumps` into the tables "words", "bigrams" and "pages" of the stage "wikipedia".

    The totals are in the manifest's counters: articles, redirects, disambiguations (no articles),
    text_characters, tokens, and of those words and distinct_words.

    Raises:
        ConfigError: if no dump is given.
        InputError: if a file is no dump, or none holds a page.
        TaskFailed: if a stretch cannot be read.
    """
    if not config.dumps:
        raise ConfigError("no dump is given; expected one such as enwiki-pages-articles.xml.bz2")
    stretches, dumps = cut_dumps(config.dumps, config.task_megabytes << 20)
    stage = begin(STAGE, config, workspace, files=dumps)
    if stage.done:
        return stage.done
    tasks = _stretch_tasks(stage, stretches)
    read = stage.map(executor, "read", read_stretch, tasks)
    if not any(outcome.rows_in for outcome in read):
        raise InputError("the dumps hold no page; expected pages-articles.xml.bz2")
    totals = _count_words(stage, executor, config, tasks, read)
    _count_bigrams(stage, executor, config, tasks, total=int(totals["words"]))
    rows = [(task.pages, outcome.rows_in) for task, outcome in zip(tasks, read, strict=True)]
    paging = [
        PagesTask(runs=tuple(runs), output=stage.output(i))
        for i, runs in enumerate(cut_rows(rows, PART_ROWS))
    ]
    pages = stage.map(executor, "pages", write_pages, paging)
    return stage.finish([*pages, Outcome(counters=totals)])


def add_up_words(task: SumTask) -> Outcome:
    """Add up one partition of words; write those that are frequent enough; runs in a worker."""
    rows = read_partition(task.files, task.partition, ["word", "count"])
    sums = rows.group_by("word").aggregate([("count", "sum")])
    are_words = [is_word([token]) for token in sums["word"].to_pylist()]
    words = sums.filter(pa.array(are_words, pa.bool_()))
    frequent = pc.greater_equal(words["count_sum"], task.config.minimum_word_count)
    kept = words.filter(frequent).select(["word", "count_sum"]).rename_columns(["word", "count"])
    write_parquet(task.path, kept.cast(schemas.WIKIPEDIA_WORDS))
    total = pc.sum(words["count_sum"]).as_py() or 0
    return Outcome(rows_in=len(rows), counters={"words": total, "distinct_words": len(words)})


def add_up_pairs(task: SumTask) -> Outcome:
    """Add up one partition of pairs; write those that reach the floors; runs in a worker."""
    from queries.counting import KeyCounts, add_up, pmi

    rows = read_partition(task.files, task.partition, ["key", "count"])
    pairs = add_up(KeyCounts(rows["key"].to_numpy(), rows["count"].to_numpy()))
    pairs = pairs.take(pairs.counts >= task.config.minimum_bigram_count)
    counts = read_parquet(task.vocabulary, columns=["count"])["count"].to_numpy()
    bits = pmi(pairs, counts, task.total)
    telling = bits >= task.config.minimum_bigram_pmi
    pairs = pairs.take(telling)
    write_parquet(
        task.path, pa.table({"key": pairs.keys, "count": pairs.counts, "pmi": bits[telling]})
    )
    return Outcome(rows_in=len(rows))


def write_pages(task: PagesTask) -> Outcome:
    """Write one part of the titles, and of what is no article as drops; runs in a worker."""
    rows = pa.concat_tables(
        read_parquet(file).slice(first, count) for file, first, count in task.runs
    ).cast(PAGE_ROWS)
    is_page = pc.is_null(rows["reason"])
    dropped = rows.filter(pc.invert(is_page))
    nobody = pa.nulls(len(dropped), pa.string())
    outcome = task.output.write(
        rows_in=len(rows),
        kept=rows.filter(is_page)
        .select(schemas.WIKIPEDIA_PAGES.names)
        .cast(schemas.WIKIPEDIA_PAGES),
        schema=schemas.WIKIPEDIA_PAGES,
        drops=drop_rows(nobody, dropped["reason"], dropped["detail"]),
    )
    # By name, as the words and the bigrams are.
    parts = {"pages" if name == MAIN else name: parts for name, parts in outcome.parts.items()}
    return replace(outcome, parts=parts)


def cut_rows(files: Sequence[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int, int]]]:
    """Yield runs of rows, (file, first, count), that make `size` rows together; the last make fewer.

    Args:
        files: each with the number of its rows.
    """
    runs: list[tuple[str, int, int]] = []
    room = size
    for path, rows in files:
        first = 0
        while first < rows:
            count = min(room, rows - first)
            runs.append((path, first, count))
            first, room = first + count, room - count
            if not room:
                yield runs
                runs, room = [], size
    if runs:
        yield runs


def _stretch_tasks(stage: StageRun, stretches: Sequence[Stretch]) -> list[StretchTask]:
    folders = {name: stage.scratch(name) for name in ("pages", "words", "text", "pairs")}
    vocabulary = storage.join(stage.scratch("vocabulary"), "vocabulary.parquet")
    return [
        StretchTask(
            stretch=stretch,
            partitions=min(len(stretches), MOST_PARTITIONS),
            vocabulary=vocabulary,
            **{name: storage.join(path, f"{i:05d}.parquet") for name, path in folders.items()},
        )
        for i, stretch in enumerate(stretches)
    ]


def _count_words(
    stage: StageRun,
    executor: Executor,
    config: WikipediaConfig,
    tasks: Sequence[StretchTask],
    read: Sequence[Outcome],
) -> Mapping[str, float]:
    """Write the words, and the vocabulary of the bigrams; return the totals."""
    files = tuple(task.words for task in tasks)
    folder = stage.scratch("word_sums")
    summing = [
        SumTask(
            files=files,
            partition=i,
            config=config,
            path=storage.join(folder, f"{i:05d}.parquet"),
        )
        for i in range(tasks[0].partitions)
    ]
    summed = stage.map(executor, "words", add_up_words, summing)
    every = pa.concat_tables(read_parquet(task.path) for task in summing)
    words = every.sort_by([("count", "descending"), ("word", "ascending")])
    parts = (words.slice(start, PART_ROWS) for start in range(0, max(1, len(words)), PART_ROWS))
    _write_parts(stage, "words", parts, schemas.WIKIPEDIA_WORDS)
    write_parquet(tasks[0].vocabulary, _bigram_words(words, config))
    totals: Counter[str] = Counter()
    for outcome in (*read, *summed):
        totals.update(outcome.counters)
    return totals


def _bigram_words(words: pa.Table, config: WikipediaConfig) -> pa.Table:
    least = config.minimum_bigram_word_count
    frequent = words.filter(pc.greater_equal(words["count"], least))
    if not config.content_bigrams:
        return frequent
    counts = dict(zip(frequent["word"].to_pylist(), frequent["count"].to_pylist(), strict=True))
    content = pa.array(sorted(content_words(counts, minimum=least)), pa.string())
    return frequent.filter(pc.is_in(frequent["word"], value_set=content))


def _count_bigrams(
    stage: StageRun,
    executor: Executor,
    config: WikipediaConfig,
    tasks: Sequence[StretchTask],
    *,
    total: int,
) -> None:
    """Write the bigrams of a corpus of `total` words."""
    stage.map(executor, "pairs", count_stretch_pairs, tasks)
    files = tuple(task.pairs for task in tasks)
    folder = stage.scratch("pair_sums")
    summing = [
        SumTask(
            files=files,
            partition=i,
            config=config,
            path=storage.join(folder, f"{i:05d}.parquet"),
            vocabulary=tasks[0].vocabulary,
            total=total,
        )
        for i in range(tasks[0].partitions)
    ]
    stage.map(executor, "bigrams", add_up_pairs, summing)
    every = pa.concat_tables(read_parquet(task.path) for task in summing)
    words = read_parquet(tasks[0].vocabulary, columns=["word"])["word"].combine_chunks()
    _write_parts(stage, "bigrams", _bigram_tables(every, words), schemas.WIKIPEDIA_BIGRAMS)


def _bigram_tables(rows: pa.Table, words: pa.Array) -> Iterator[pa.Table]:
    """Yield the rows of key, count and pmi in their order and as text, at most PART_ROWS at a time."""
    from queries.counting import KeyCounts, best_first

    pairs = KeyCounts(rows["key"].to_numpy(), rows["count"].to_numpy())
    bits = rows["pmi"].to_numpy()
    order = best_first(pairs, bits, words)
    for start in range(0, max(1, len(order)), PART_ROWS):
        chosen = order[start : start + PART_ROWS]
        part = pairs.take(chosen)
        halves = (words.take(pa.array(number)) for number in part.words())
        texts = pc.binary_join_element_wise(*halves, " ")
        yield pa.table([texts, part.counts, bits[chosen]], schema=schemas.WIKIPEDIA_BIGRAMS)


def _write_parts(stage: StageRun, name: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    for i, table in enumerate(tables):
        path = f"{stage.name}/{name}/{i:05d}.parquet"
        stage.add(name, stage.workspace.write(path, table, schema))
