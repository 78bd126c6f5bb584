"""The settings of the sources and of the list they make."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from pipeline.runtime.settings import Settings
from queries.presets import METACLIP_PMI, PRESETS, SOURCES, Preset, Source

PACKAGED = "packaged"


class SourceConfig(Settings):
    """Where each source of queries comes from, and the floors under its candidates."""

    preset: Preset = "builtin"
    """floors and priority by name: the built-in list's, MetaCLIP's, the paper's; other options win"""
    packages: str = "query-sources"
    """folder that packaged sources are fetched into; those already there are not fetched again"""
    wikipedia: str = ""
    """workspace of `witmill queries wikipedia`, for words, bigrams and titles in place of packages"""
    pageviews: str = ""
    """file of `witmill queries pageviews`, by which titles rank in place of redirects"""
    lists: tuple[str, ...] = ()
    """queries of your own: text files, one a line, or Parquet files with a column `query`"""
    wordnet: str = PACKAGED
    """folder with the data.noun, data.verb, data.adj, data.adv of WordNet 3.0 or 3.1"""
    words: str = PACKAGED
    """gzipped `word;count` lines: how often each word occurs in Wikipedia"""
    web_words: str = PACKAGED
    """`word⇥count` lines of the corpus that web_bigrams were counted in"""
    web_bigrams: str = PACKAGED
    """`word word⇥count` lines"""
    titles: str = PACKAGED
    """Parquet file of Wikipedia titles: title, redirects (null for a redirect itself)"""
    numbers: int = Field(100, ge=1, le=10_000_000)
    """whole numbers from 0 to below this are queries"""
    minimum_word_count: int = Field(100, ge=1)
    """occurrences in Wikipedia that make a word a query, and that each word of a title by redirects needs"""
    minimum_bigram_word_count: int = Field(1000, ge=1)
    """occurrences in Wikipedia that each word of a bigram needs"""
    content_bigrams: bool = True
    """whether function words, particles of names, letters and numbers bar a bigram"""
    minimum_bigram_count: int = Field(100, ge=1)
    """occurrences in a dump that a bigram of the dump needs"""
    minimum_bigram_pmi: float = METACLIP_PMI
    """bits of PMI that a bigram of a dump needs; 4.907 bits are 30 times as often as by chance"""
    maximum_bigrams: int | None = Field(None, ge=1)
    """bigrams of a dump at most: the most frequent of those that reach the floors; default: all"""
    minimum_web_pmi: float = 2.0
    """bits of PMI that a bigram of the web needs"""
    maximum_web_excess: float = 3.5
    """bits by which a word may be more frequent on the web than in Wikipedia, to be in a bigram"""
    minimum_title_pairs: int = Field(3, ge=1)
    """titles of articles that a bigram from titles must stand in"""
    minimum_title_pmi: float = 5.0
    """bits of PMI that a bigram from titles needs"""
    minimum_views: int = Field(70, ge=0)
    """page views in the hours counted that make a title a query"""
    minimum_redirects: int = Field(1, ge=0)
    """redirects that must lead to an article for its title to be a query, without page views"""

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("preset") not in PRESETS:
            return given
        preset = PRESETS[given["preset"]]
        return {name: value for name, value in preset.items() if name in cls.model_fields} | given


class BuildConfig(SourceConfig):
    """Build a query list: the union of the sources, by priority, up to a size."""

    output: str = "queries.parquet"
    """Parquet file to write; OUTPUT.candidates.parquet beside it holds every candidate and its fate"""
    size: int = Field(500_000, ge=1, le=2**31 - 1)
    """queries in the list, exactly: titles fill it, the highest ranked, after all other sources"""
    priority: tuple[Source, ...] = SOURCES
    """sources that give queries; one that several give belongs to the first of them"""

    @field_validator("priority")
    @classmethod
    def _distinct(cls, priority: tuple[Source, ...]) -> tuple[Source, ...]:
        if not priority or len(set(priority)) < len(priority):
            raise ValueError("each source once, at least one")
        return priority
