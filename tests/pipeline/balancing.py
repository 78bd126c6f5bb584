"""Made-up crawls to balance, and what came of them."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from pipeline import balance, schemas
from pipeline.caps.thresholds import find_thresholds
from pipeline.runtime.manifest import MAIN
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace
from tests.conftest import Literals
from tests.reference.balancing import Pairs

QUERIES = 12
IN_MEMORY = "/dev/shm"

pair_ids = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")
pairs_of_queries = st.dictionaries(
    pair_ids,
    st.lists(st.integers(0, QUERIES - 1), min_size=1, max_size=5, unique=True).map(sorted),
    max_size=40,
)


@contextmanager
def margin(sigmas: float) -> Iterator[None]:
    """Search for thresholds with a margin so small that it must be widened, which few pairs never need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "find_thresholds", partial(find_thresholds, sigmas=sigmas))
        yield


def quick_folder() -> "TemporaryDirectory[str]":
    """Return a folder in memory where there is one: files are synced to disk, which takes longest."""
    return TemporaryDirectory(dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None)


sigmas = st.sampled_from([0.02, 0.3, 6.0])


def skewed_pairs(count: int, seed: int = 0) -> Pairs:
    """Return pairs of which most match the first queries."""
    chance = random.Random(seed)
    return {
        f"{chance.getrandbits(128):032x}": sorted(
            {min(int(chance.expovariate(0.4)), QUERIES - 1) for _ in range(3)}
        )
        for _ in range(count)
    }


def caption_table(pairs: Pairs, source: str = "a.warc") -> pa.Table:
    rows = [
        {
            "pair_id": pair_id,
            "url": f"http://x/{pair_id}",
            "caption": "a caption",
            "caption_source": "alt",
            "page_url": None,
            "source": source,
            "source_offset": 0,
            "query_ids": ids,
            "language": "en",
            "language_probability": 1.0,
        }
        for pair_id, ids in pairs.items()
    ]
    return pa.Table.from_pylist(rows, schema=schemas.CAPTIONS)


def query_list(queries: int = QUERIES) -> pa.Table:
    columns = {
        "query_id": list(range(queries)),
        "query": [f"q{i}" for i in range(queries)],
        "source": ["user"] * queries,
        "sources": [["user"]] * queries,
    }
    for field in schemas.QUERIES:
        columns.setdefault(field.name, [None] * queries)
    return pa.table(columns, schema=schemas.QUERIES)


def downloaded_table(pairs: Pairs) -> pa.Table:
    table = caption_table(pairs)
    size = len(table)
    values = {"selected_by": table["query_ids"].combine_chunks()}
    for field in schemas.DOWNLOADED:
        if field.name in table.column_names or field.name in values:
            continue
        if field.nullable:
            values[field.name] = pa.nulls(size, field.type)
        else:
            blanks = {pa.string(): "x", pa.binary(32): bytes(32)}
            values[field.name] = pa.array([blanks.get(field.type, 1)] * size, field.type)
    columns = {name: table[name] for name in table.column_names}
    return pa.table({**columns, **values}).select(schemas.DOWNLOADED.names).cast(schemas.DOWNLOADED)


def finish(workspace: Workspace, stage: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Make `stage` a finished stage with the given parts."""
    run = begin(stage, Literals(), workspace)
    outcomes = [
        run.output(i).write(
            rows_in=len(table), kept=table, schema=schema, drops=schemas.DROPS.empty_table()
        )
        for i, table in enumerate(tables)
    ]
    run.finish(outcomes)


def make_crawl(
    folder: Path | str, parts: Sequence[pa.Table], *, queries: int = QUERIES, rules: str = "words"
) -> Workspace:
    """Return a workspace whose captions are the given parts."""
    workspace = Workspace(root=str(folder))
    match = begin("match", Literals(made_by=rules), workspace)
    match.settings = {**match.settings, "rules": rules}
    match.write_table("queries", query_list(queries), schemas.QUERIES)
    match.finish([])
    finish(workspace, "captions", schemas.CAPTIONS, parts)
    return workspace


def split(pairs: Pairs, parts: int, source: str = "a.warc") -> list[pa.Table]:
    items = list(pairs.items())
    return [caption_table(dict(items[i::parts]), source) for i in range(parts)]


def kept(workspace: Workspace, stage: str = "balance") -> dict[str, list[int]]:
    """Return the queries that chose each kept pair."""
    schema = schemas.BALANCED if stage == "balance" else schemas.DEDUPLICATED
    table = workspace.read_table(stage, MAIN, schema)
    ids = table["pair_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, table["selected_by"].to_pylist(), strict=True))


def dropped(workspace: Workspace, stage: str = "balance") -> dict[str, list[str]]:
    """Return the ids of dropped pairs by reason, sorted."""
    found: dict[str, list[str]] = {}
    for row in workspace.read_table(stage, "drops", schemas.DROPS).to_pylist():
        found.setdefault(row["reason"], []).append(row["pair_id"])
    return {reason: sorted(ids) for reason, ids in found.items()}


def digests(workspace: Workspace, stage: str = "balance") -> dict[str, str]:
    """Return the sha256 of every file of a stage, by path."""
    tables = workspace.finished(stage).tables
    return {part.path: part.sha256 for parts in tables.values() for part in parts}
