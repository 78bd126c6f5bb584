"""Every real caption at hand against 500,000 queries, by MetaCLIP's rule read word for word."""

import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.matching.trie import compile_queries
from queries.query_list import read_queries
from tests.reference.matching import metaclip_entries, metaclip_match

TEXTS = st.text(st.sampled_from("ab ,.!`\t\né"), max_size=12)


def real_captions(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.parquet")):
        yield from filter(None, pq.read_table(path, columns=["TEXT"])["TEXT"].to_pylist())
    with gzip.open(folder / "cc3m_validation.tsv.gz", "rt", encoding="utf-8") as lines:
        yield from (line.split("\t")[0] for line in lines)
    with gzip.open(folder / "coco_captions_val2017.json.gz", "rt", encoding="utf-8") as file:
        yield from (annotation["caption"] for annotation in json.load(file)["annotations"])
    with gzip.open(folder / "flickr8k.token.txt.gz", "rt", encoding="utf-8") as lines:
        yield from (line.rstrip("\n").partition("\t")[2] for line in lines)
    for path in sorted((folder / "multi30k").glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from (line.rstrip("\n") for line in lines)


@given(TEXTS, st.lists(TEXTS, unique=True, min_size=1, max_size=6))
def test_looking_between_spaces_is_the_published_rule(caption: str, queries: list[str]) -> None:
    entries = {query: i for i, query in enumerate(queries)}
    longest = max(map(len, queries))
    assert metaclip_entries(caption, entries, longest) == metaclip_match(caption, queries)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["builtin", "benchmark"])
def test_metaclip_matches_are_those_of_the_published_rule(source: str, shared_data: Path) -> None:
    if source == "builtin":
        queries = read_queries("builtin")["query"].to_pylist()
    else:
        with lzma.open(
            shared_data / "queries/benchmark_500k.tsv.xz", "rt", encoding="utf-8"
        ) as file:
            queries = [line.partition("\t")[0] for line in file]
    captions = list(dict.fromkeys(real_captions(shared_data / "captions")))
    assert len(captions) > 200_000
    ids = pa.array(range(len(queries)), pa.int32())
    trie = compile_queries(pa.table({"query_id": ids, "query": queries}), "metaclip")
    found = trie.match(pa.array(captions)).to_pylist()
    entries = {query: i for i, query in enumerate(queries)}
    longest = max(map(len, queries))
    for caption, ids_found in zip(captions, found, strict=True):
        assert ids_found == metaclip_entries(caption, entries, longest), caption
