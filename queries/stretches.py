"""One stretch of a Wikipedia dump: what is read out of it, and the pairs of words in it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.parquet import read_parquet, write_parquet
from queries.dump import Page, Unreadable, is_bzip2, is_disambiguation, read_pages
from queries.partitions import partitions_of_keys, partitions_of_words, write_partitioned
from queries.wikitext import article_text

if TYPE_CHECKING:
    # numba takes half a second to import, which the command line need not wait for.
    from pipeline.matching.trie_tables import Ids
    from queries.counting import Numberer

# A row per page read: a reason for those that are no articles, else what WIKIPEDIA_PAGES has.
PAGE_ROWS = pa.schema(
    [
        *(field.with_nullable(True) for field in schemas.WIKIPEDIA_PAGES),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

# Plain XML is about this much larger than bzip2.
_PLAIN = 4
_DUMP_NAME = ".xml"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The bytes from `start` to `end` of one dump, by its name and where it lies."""

    name: str
    path: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class StretchTask:
    """A stretch to read, or to count the pairs of once there is a vocabulary; the paths it writes to."""

    stretch: Stretch
    partitions: int
    pages: str
    words: str
    text: str
    pairs: str
    vocabulary: str


def cut_dumps(given: Sequence[str], size: int) -> tuple[list[Stretch], dict[str, str]]:
    """Return the stretches to read, in order, and the path of each dump by its name.

    Args:
        given: files, folders or patterns; of the latter two, files whose name has ".xml" in it.
        size: bytes of a bzip2 file that make a stretch.

    Raises:
        InputError: if two have the same name, or one is neither bzip2 nor XML.
    """
    stretches = []
    dumps: dict[str, str] = {}
    for path in _dump_files(given):
        name = path.rpartition("/")[2]
        if name in dumps:
            raise InputError(f"{dumps[name]} and {path} have the same name; rename one of them")
        dumps[name] = path
        with storage.open_input(path) as file:
            try:
                step = size if is_bzip2(file) else _PLAIN * size
            except InputError as error:
                raise InputError(f"{path} is {error}") from error
            end = file.size()
        stretches += [
            Stretch(name=name, path=path, start=start, end=min(start + step, end))
            for start in range(0, end, step)
        ]
    return stretches, dumps


def read_stretch(task: StretchTask) -> Outcome:
    """Leave behind a stretch's titles, its distinct tokens, and its text as their numbers."""
    from queries.counting import Numberer

    numberer = Numberer()
    rows, counters = _read_pages(task.stretch, numberer)
    write_parquet(task.pages, rows)
    tokens, counts, pieces = numberer.finish()
    write_parquet(task.text, pa.table({"number": pa.chunked_array(pieces, pa.int32())}))
    places = np.arange(len(tokens), dtype=np.int32)
    words = pa.table({"word": tokens.cast(pa.string()), "count": counts, "number": places})
    where = partitions_of_words(tokens.to_pylist(), task.partitions)
    write_partitioned(task.words, words, where)
    return Outcome(rows_in=len(rows), counters={**counters, "tokens": int(counts.sum())})


def count_stretch_pairs(task: StretchTask) -> Outcome:
    """Count the neighbours in one stretch that are both in the vocabulary."""
    from queries.counting import count_pairs

    word_of = _words_of_tokens(task)
    with storage.open_input(task.text) as file:
        batches = pq.ParquetFile(file).iter_batches(1 << 20)
        pairs = count_pairs(word_of[batch.column(0).to_numpy()] for batch in batches)
    rows = pa.table({"key": pairs.keys, "count": pairs.counts})
    write_partitioned(task.pairs, rows, partitions_of_keys(pairs.keys, task.partitions))
    return Outcome(rows_in=int(pairs.counts.sum()))


def _read_pages(stretch: Stretch, numberer: "Numberer") -> tuple[pa.Table, Counter[str]]:
    rows: list[tuple[str | None, str | None, bool | None, str | None, str | None]] = []
    counters = Counter(articles=0, redirects=0, disambiguations=0, text_characters=0)
    with storage.open_input(stretch.path) as file:
        for page in read_pages(file, stretch.start, stretch.end):
            refused = _refusal(page)
            if refused:
                rows.append((None, None, None, refused.reason, f"{stretch.name}: {refused.detail}"))
                continue
            assert isinstance(page, Page)
            is_list = is_disambiguation(page)
            rows.append((page.title, page.redirect_to, is_list, None, None))
            if page.redirect_to is not None:
                counters["redirects"] += 1
                continue
            counters["disambiguations" if is_list else "articles"] += 1
            text = article_text(page.text)
            counters["text_characters"] += len(text)
            numberer.add(text)
    columns = zip(*rows, strict=True) if rows else ((),) * len(PAGE_ROWS)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, PAGE_ROWS, strict=True)
    ]
    return pa.table(arrays, schema=PAGE_ROWS), counters


def _refusal(page: Page | Unreadable) -> Unreadable | None:
    if isinstance(page, Unreadable):
        return page
    if page.namespace != 0:
        return Unreadable("other_namespace", page.title)
    return None if page.is_wikitext else Unreadable("not_wikitext", page.title)


def _words_of_tokens(task: StretchTask) -> "Ids":
    """Return for each of the stretch's tokens its number in the vocabulary, BREAK where it has none."""
    from queries.counting import BREAK

    tokens = read_parquet(task.words, columns=["word", "number"])
    vocabulary = read_parquet(task.vocabulary, columns=["word"])["word"].combine_chunks()
    known = pc.fill_null(pc.index_in(tokens["word"], value_set=vocabulary), BREAK)
    # One more, since BREAK is the last element's index.
    words = np.full(len(tokens) + 1, BREAK, np.int32)
    words[tokens["number"].to_numpy()] = known.to_numpy()
    return words


def _dump_files(given: Sequence[str]) -> Iterator[str]:
    for path in given:
        if storage.is_http(path):
            raise InputError(f"{path} is an address; download the dump and give the file")
        files = storage.list_files(path)
        dumps = (
            files if files == [path] else [f for f in files if _DUMP_NAME in f.rpartition("/")[2]]
        )
        if not dumps:
            raise InputError(f"{path} holds no dump; expected files such as *.xml.bz2")
        yield from dumps
