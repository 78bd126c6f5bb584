"""Tables of query lists and their sources."""

import pyarrow as pa

from pipeline.schemas.columns import column, extend

QUERIES = pa.schema(
    [
        column("query_id", pa.int32(), "position in the list, from 0"),
        column("query", pa.string(), "normalised text, tokens separated by single spaces"),
        column(
            "source",
            pa.string(),
            "first source that gave it: user, number, wordnet, unigram, bigram or title",
        ),
        column(
            "sources",
            pa.list_(pa.string()),
            "every source that gave it, in the order of priority, never empty",
        ),
        column("count", pa.int64(), "occurrences of the word or pair in its corpus", nullable=True),
        column("pmi", pa.float64(), "pointwise mutual information of a pair, bits", nullable=True),
        column("views", pa.int64(), "page views of the articles of that name", nullable=True),
        column("redirects", pa.int64(), "redirects to the article of that name", nullable=True),
    ]
)

QUERY_CANDIDATES = pa.schema(
    [
        column("query", pa.string(), "normalised text; once for each source that knows it"),
        column("source", pa.string(), "user, number, wordnet, unigram, bigram or title"),
        column(
            "rank",
            pa.int32(),
            "place among the source's own that reach its floors, from 1; null where one is missed",
            nullable=True,
        ),
        column(
            "missed",
            pa.string(),
            "the first floor it does not reach, see docs/queries.md",
            nullable=True,
        ),
        *(QUERIES.field(name) for name in ("count", "pmi", "views", "redirects")),
    ]
)

QUERY_RECORD = extend(
    QUERY_CANDIDATES,
    column(
        "query_id", pa.int32(), "id into QUERIES; null where it is not in the list", nullable=True
    ),
)

PAGE_VIEWS = pa.schema(
    [
        column("title", pa.string(), "title of an article, with spaces"),
        column("views", pa.int64(), "page views in the hours counted, those of redirects included"),
    ]
)

WIKIPEDIA_WORDS = pa.schema(
    [
        column("word", pa.string(), "a token with a letter or digit in it, normalised"),
        column("count", pa.int64(), "occurrences in the text of articles"),
    ]
)

WIKIPEDIA_BIGRAMS = pa.schema(
    [
        column("bigram", pa.string(), "two words that stand side by side, a space between"),
        column("count", pa.int64(), "occurrences in the text of articles"),
        column("pmi", pa.float64(), "pointwise mutual information, bits, to three decimals"),
    ]
)

WIKIPEDIA_PAGES = pa.schema(
    [
        column("title", pa.string(), "title of an article or redirect, as written"),
        column(
            "redirect_to", pa.string(), "title that it leads to; null for articles", nullable=True
        ),
        column("disambiguation", pa.bool_(), "whether the page lists what its title may mean"),
    ]
)
