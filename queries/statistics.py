"""Figures of a query list: its sources, how they overlap, and how long its queries are."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from queries.presets import SOURCES

# MetaCLIP's table of its list. Its WordNet figure includes the numbers from 0 to 99, see docs/queries.md.
PUBLISHED: Mapping[str, int] = {
    "wordnet": 86_654,
    "unigram": 251_465,
    "bigram": 100_646,
    "title": 61_235,
}
_FIGURES = ("count", "pmi", "views", "redirects")
_LONG = 6
_SHOWN = 5


def describe(queries: pa.Table) -> str:
    """Return the figures of a list, a table with the columns of QUERIES, as text."""
    sections = [_sources(queries), _overlaps(queries), _lengths(queries), _extremes(queries)]
    return "\n\n".join(text for lines in sections if (text := "\n".join(lines)))


def source_counts(queries: pa.Table) -> dict[str, tuple[int, int]]:
    """Return for each source, by name, how many queries it gave first, and how many at all."""
    first = _counts(queries["source"])
    given = _counts(pc.list_flatten(queries["sources"]))
    named = [*SOURCES, *sorted(given.keys() - set(SOURCES))]
    return {name: (first.get(name, 0), given[name]) for name in named if name in given}


def overlap_counts(queries: pa.Table) -> dict[tuple[str, str], int]:
    """Return for each two sources how many queries both gave."""
    found: dict[tuple[str, str], int] = {}
    joined = pc.binary_join(queries["sources"].combine_chunks(), " ")
    for together, rows in _counts(joined).items():
        for pair in combinations(sorted(set(together.split(" "))), 2):
            found[pair] = found.get(pair, 0) + rows
    return found


def _sources(queries: pa.Table) -> Iterator[str]:
    yield f"{'source':<10}{'first':>10}{'given':>10}{'MetaCLIP':>10}"
    for name, (first, given) in source_counts(queries).items():
        published = PUBLISHED.get(name)
        yield f"{name:<10}{first:>10,}{given:>10,}" + (f"{published:>10,}" if published else "")
    yield f"{'all':<10}{len(queries):>10,}{'':>10}{sum(PUBLISHED.values()):>10,}"


def _overlaps(queries: pa.Table) -> Iterator[str]:
    found = overlap_counts(queries)
    if found:
        yield "given by two sources"
    for (one, other), rows in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        yield f"  {one} and {other:<{20 - len(one)}}{rows:>10,}"


def _lengths(queries: pa.Table) -> Iterator[str]:
    tokens = pc.add(pc.count_substring(queries["query"], " "), 1)
    rows = pc.value_counts(pc.min_element_wise(tokens, _LONG)).to_pylist()
    yield "tokens in a query"
    for length, count in sorted((row["values"], row["counts"]) for row in rows):
        name = f"{length} or more" if length == _LONG else str(length)
        yield f"  {name:<10}{count:>10,}{count / len(queries):>8.1%}"


def _extremes(queries: pa.Table) -> Iterator[str]:
    for figure in _FIGURES:
        known = queries.filter(pc.is_valid(queries[figure]))
        if not known.num_rows:
            continue
        ordered = known.sort_by([(figure, "descending"), ("query_id", "ascending")])
        yield f"{figure}: {len(known):,} queries have it"
        yield f"  most   {_examples(ordered.slice(0, _SHOWN), figure)}"
        yield f"  least  {_examples(ordered.slice(max(0, len(ordered) - _SHOWN)), figure)}"


def _examples(rows: pa.Table, figure: str) -> str:
    pairs = zip(rows["query"].to_pylist(), rows[figure].to_pylist(), strict=True)
    return ", ".join(f"{query} ({value:,})" for query, value in pairs)


def _counts(column: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}
