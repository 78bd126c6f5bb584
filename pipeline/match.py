"""Keep the pairs whose caption contains a query (CLIP, section 2.2).

A query is in a caption if its tokens stand in the caption's tokens as a contiguous run; what a token
is, `queries.text` says.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.runtime import storage
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace
from queries.query_list import BUILTIN, read_queries
from queries.text import Rules, caption_tokens

if TYPE_CHECKING:
    from pipeline.matching.trie import QueryTrie

REASONS = {"no_query": "no query of the list stands in the caption"}


class MatchConfig(Settings):
    """Keep the pairs whose caption contains a query."""

    queries: str = "builtin"
    """query list: "builtin", a Parquet file with the columns of QUERIES, or a text file, one a line"""
    rules: Rules = "words"
    """what counts as containing: whole words in any case, or MetaCLIP's case-sensitive rule"""


@dataclass(frozen=True, kw_only=True)
class MatchTask:
    """One part to match against the compiled list at `trie`."""

    part: Part
    trie: str
    rules: Rules
    output: TaskOutput


def run(config: MatchConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Match every ingested pair, and keep the list itself as the side table "queries".

    Raises:
        InputError: if the list cannot be read, or two of its queries are the same under the rules.
        MissingInput: if `ingest` has not finished.
        TaskFailed: if a part cannot be matched.
    """
    path = str(BUILTIN) if config.queries == "builtin" else config.queries
    # Before `begin`, which deletes what an earlier run with other settings made.
    queries = read_queries(config.queries, rules=config.rules)
    stage = begin("match", config, workspace, reads=("ingest",), files={"queries": path})
    if stage.done:
        return stage.done
    stage.write_table("queries", queries, schemas.QUERIES)
    trie = storage.join(stage.scratch("trie"), "trie")
    _compile_to(trie, queries, config.rules)
    tasks = [
        MatchTask(part=part, trie=trie, rules=config.rules, output=stage.output(i))
        for i, part in enumerate(stage.parts("ingest"))
    ]
    return stage.finish(stage.map(executor, stage.name, match_part, tasks))


def match_part(task: MatchTask) -> Outcome:
    """Read, match and write one part; runs in a worker."""
    pairs = task.output.read(task.part, schemas.PAIRS)
    trie = _load_trie(task.trie, task.rules)
    kept, drops = match_table(pairs, trie)
    hits = len(kept.column("query_ids").combine_chunks().flatten())
    return task.output.write(
        rows_in=len(pairs), kept=kept, schema=schemas.MATCHES, drops=drops, counters={"hits": hits}
    )


def match_table(pairs: pa.Table, trie: "QueryTrie") -> tuple[pa.Table, pa.Table]:
    """Return the pairs with at least one query, as MATCHES, and the others, as DROPS; both in order."""
    query_ids = trie.match(pairs.column("caption"))
    matched = pc.greater(pc.list_value_length(query_ids), 0)
    field = schemas.MATCHES.field("query_ids")
    kept = pairs.append_column(field, query_ids).filter(matched)
    dropped = pairs.column("pair_id").filter(pc.invert(matched))
    return kept, drop_rows(dropped, "no_query")


def explain(config: MatchConfig, caption: str) -> str:
    """Return the tokens of `caption`, the queries of the list found in it, and what becomes of it.

    Raises:
        InputError: if the list cannot be read.
    """
    from pipeline.matching.trie import compile_queries

    queries = read_queries(config.queries, rules=config.rules)
    found = compile_queries(queries, config.rules).match(pa.array([caption], pa.string()))
    rows = queries.take(found.flatten()).to_pylist()
    tokens = caption_tokens(caption, config.rules)
    verdict = f"kept: {len(rows)} queries" if rows else f"dropped, no_query: {REASONS['no_query']}"
    return "\n".join(
        [
            f"{len(tokens)} tokens: {' | '.join(tokens)}",
            *(f"{row['query_id']:>9,}  {row['query']}  ({row['source']})" for row in rows),
            verdict,
        ]
    )


def _compile_to(path: str, queries: pa.Table, rules: Rules) -> None:
    # numba takes half a second to import, which the command line need not wait for.
    from pipeline.matching.trie import compile_queries, save_trie

    save_trie(path, compile_queries(queries, rules))


# One list a stage: a worker that goes on to another list has no more use for the first.
@lru_cache(maxsize=1)
def _load_trie(path: str, rules: Rules) -> "QueryTrie":
    from pipeline.matching.trie import load_trie

    return load_trie(path, rules)
