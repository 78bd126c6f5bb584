"""The sources of queries: what each reads, from packages, a dump or files, and what it gives."""

from collections.abc import Callable, Mapping
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from queries import bigrams, packaged, titles, unigrams
from queries.config import PACKAGED, SourceConfig
from queries.content_words import content_words
from queries.numbers import number_queries
from queries.presets import Source
from queries.user_lists import user_queries
from queries.wordnet import wordnet_queries


class Inputs:
    """What the sources read under `config`; what several need is read once."""

    def __init__(self, config: SourceConfig) -> None:
        """Read nothing yet."""
        self.config = config

    @cached_property
    def words(self) -> pa.Table:
        """How often each word occurs in Wikipedia: word and count."""
        if self.from_dump(self.config.words):
            from queries.wikipedia_tables import check_floors, counted_words

            least = self.config.minimum_word_count
            check_floors(self.config.wikipedia, {"minimum_word_count": least})
            return counted_words(self.config.wikipedia)
        given = self.config.words
        path = packaged.word_counts_file(self.config.packages) if given == PACKAGED else given
        return unigrams.word_table(unigrams.word_counts(path))

    @cached_property
    def frequent_words(self) -> dict[str, int]:
        """The words frequent enough to be part of a longer query, with their counts."""
        config = self.config
        least = min(config.minimum_word_count, config.minimum_bigram_word_count)
        rows = self.words.filter(pc.greater_equal(self.words["count"], least))
        return dict(zip(rows["word"].to_pylist(), rows["count"].to_pylist(), strict=True))

    @cached_property
    def bigram_words(self) -> frozenset[str]:
        """The words that may be part of a bigram."""
        least = self.config.minimum_bigram_word_count
        if self.config.content_bigrams:
            return content_words(self.frequent_words, minimum=least)
        return frozenset(word for word, count in self.frequent_words.items() if count >= least)

    @cached_property
    def titles(self) -> pa.Table:
        """The titles of Wikipedia, normalised, with the columns TITLES."""
        if self.from_dump(self.config.titles):
            from queries.wikipedia_tables import articles

            return titles.normalized(titles.bare(articles(self.config.wikipedia)))
        given = self.config.titles
        path = packaged.titles_file(self.config.packages) if given == PACKAGED else given
        return titles.read_titles(path)

    @cached_property
    def articles(self) -> pa.Table:
        """Those of the titles that are no redirects."""
        return self.titles.filter(pc.is_valid(self.titles["redirects"]))

    def from_dump(self, given: str) -> bool:
        """Return whether an input comes from the dump: there is one, and no other file was `given`."""
        return bool(self.config.wikipedia) and given == PACKAGED


def give(source: Source, inputs: Inputs) -> pa.Table:
    """Return the candidates of one source, with the columns of QUERY_CANDIDATES.

    Raises:
        InputError: if something that it reads is not what it should be.
    """
    return _GIVE[source](inputs)


def _user(inputs: Inputs) -> pa.Table:
    return user_queries(inputs.config.lists)


def _number(inputs: Inputs) -> pa.Table:
    return number_queries(inputs.config.numbers)


def _wordnet(inputs: Inputs) -> pa.Table:
    given = inputs.config.wordnet
    return wordnet_queries(
        packaged.wordnet_folder(inputs.config.packages) if given == PACKAGED else given
    )


def _unigram(inputs: Inputs) -> pa.Table:
    return unigrams.unigram_queries(inputs.words, minimum=inputs.config.minimum_word_count)


def _bigram(inputs: Inputs) -> pa.Table:
    config = inputs.config
    if inputs.from_dump(config.web_bigrams):
        from queries.wikipedia_tables import check_floors, counted_bigrams

        names = ("minimum_bigram_word_count", "minimum_bigram_count", "minimum_bigram_pmi")
        floors = {name: getattr(config, name) for name in names}
        check_floors(config.wikipedia, floors, content_only=config.content_bigrams)
        return bigrams.wikipedia_bigrams(
            counted_bigrams(config.wikipedia),
            inputs.bigram_words,
            minimum_count=config.minimum_bigram_count,
            minimum_pmi=config.minimum_bigram_pmi,
            maximum=config.maximum_bigrams,
        )
    return bigrams.bigram_queries(_from_web(inputs), _from_titles(inputs))


def _from_web(inputs: Inputs) -> bigrams.Bigrams:
    config = inputs.config
    words, pairs = config.web_words, config.web_bigrams
    if PACKAGED in (words, pairs):
        packed_words, packed_pairs = packaged.web_counts_files(config.packages)
        words = packed_words if words == PACKAGED else words
        pairs = packed_pairs if pairs == PACKAGED else pairs
    web = bigrams.read_web_counts(words, pairs)
    every_title = titles.texts(inputs.titles["title"])
    return bigrams.web_bigrams(
        web,
        inputs.frequent_words,
        words=inputs.bigram_words,
        attested=bigrams.attested_pairs(every_title, inputs.bigram_words, web.pairs.keys()),
        total=pc.sum(inputs.words["count"]).as_py(),
        minimum_pmi=config.minimum_web_pmi,
        maximum_excess=config.maximum_web_excess,
    )


def _from_titles(inputs: Inputs) -> bigrams.Bigrams:
    counts = bigrams.count_title_pairs(titles.texts(inputs.articles["title"]), inputs.bigram_words)
    return bigrams.title_bigrams(
        counts,
        minimum_count=inputs.config.minimum_title_pairs,
        minimum_pmi=inputs.config.minimum_title_pmi,
    )


def _title(inputs: Inputs) -> pa.Table:
    config = inputs.config
    if config.pageviews:
        return titles.viewed_queries(
            titles.read_views(config.pageviews), minimum=config.minimum_views
        )
    return titles.title_queries(
        inputs.articles,
        inputs.frequent_words,
        minimum_redirects=config.minimum_redirects,
        minimum_word_count=config.minimum_word_count,
    )


_GIVE: Mapping[Source, Callable[[Inputs], pa.Table]] = {
    "user": _user,
    "number": _number,
    "wordnet": _wordnet,
    "unigram": _unigram,
    "bigram": _bigram,
    "title": _title,
}
