"""What must not be in a corpus: the lists that `witmill remove` was given, kept in the workspace.

They lie in `removals/` beside the stages, so that a shard stage that is built anew applies them.
"""

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.errors import InputError
from pipeline.pages.urls import resolve
from pipeline.runtime import storage
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.manifest import DROPS, Part
from pipeline.runtime.parquet import read_parquet
from pipeline.runtime.workspace import Workspace
from pipeline.shards.listed import read_listed

FOLDER = "removals"
REASON = "removed"
ROWS_PER_FILE = 500_000

# By what kind of list a sample is found in a column.
_COLUMNS = {"pair_id": "pair_id", "url": "url", "sha256": "hash", "pdq": "hash"}
_PARQUET_COLUMNS = {"url": ["url"], "hash": ["sha256", "pdq", "hash"], "pair_id": ["pair_id"]}
_PATTERNS = {"hash": re.compile(r"[0-9a-f]{64}"), "pair_id": re.compile(r"[0-9a-f]{32}")}
_EXPECTED = {
    "url": "an http(s) address",
    "hash": "a sha256 or a PDQ hash, 64 hex digits",
    "pair_id": "32 hex digits",
}


def read_list(path: str, kind: str) -> pa.Table:
    """Return REMOVALS as the file at `path` lists them: a text file, one a line, or a Parquet file.

    Args:
        kind: url, hash or pair_id.

    Raises:
        InputError: if the file lists nothing, or something else.
    """
    values: dict[str, None] = {}
    for number, text in enumerate(read_listed(path, _PARQUET_COLUMNS[kind]), start=1):
        spellings = _spellings(text, kind)
        if not spellings:
            raise InputError(f"{path}: entry {number} is {text[:80]!r}, expected {_EXPECTED[kind]}")
        values.update(dict.fromkeys(spellings))
    name = path.rstrip("/").rpartition("/")[2]
    rows = len(values)
    return pa.table([[kind] * rows, list(values), [name] * rows], schema=schemas.REMOVALS)


def _spellings(text: str, kind: str) -> list[str]:
    """Return how the corpus may spell what a line says; nothing if it says none of its kind."""
    if kind == "url":
        address = resolve(text, None).url
        return [text, address] if address else []
    # With a prefix, as the blocklist of download has them, or without.
    folded = text.lower().removeprefix("sha256:").removeprefix("pdq:")
    return [folded] if _PATTERNS[kind].fullmatch(folded) else []


def list_files(workspace: Workspace) -> dict[str, str]:
    """Return the lists of a workspace: path by name, in the order in which they were given."""
    found = storage.list_inside(workspace.path(FOLDER))
    return {f"{FOLDER}/{path.rpartition('/')[2]}": path for path in found}


def split(samples: pa.Table, lists: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """Return the rows of `samples` that no list names, and REMOVED for the others.

    Args:
        samples: at least pair_id, url, sha256 and pdq.
        lists: paths of files of REMOVALS.
    """
    if not lists or not len(samples):
        return samples, schemas.REMOVED.empty_table()
    listed = _read_lists(lists)
    matched = names = pa.nulls(len(samples), pa.string())
    for column, kind in _COLUMNS.items():
        values = samples.column(column).combine_chunks()
        place = pc.index_in(values, value_set=listed[kind].column("value").combine_chunks())
        is_new = pc.and_(pc.is_valid(place), pc.is_null(matched))
        matched = pc.if_else(is_new, column, matched)
        names = pc.coalesce(names, listed[kind].column("list").combine_chunks().take(place))
    gone = pc.is_valid(matched)
    about = [*(samples.column(name) for name in ("pair_id", "url", "sha256")), matched, names]
    removed = pa.table(about, names=schemas.REMOVED.names).filter(gone)
    return samples.filter(pc.invert(gone)), removed.cast(schemas.REMOVED)


def _read_lists(paths: Sequence[str]) -> Mapping[str, pa.Table]:
    table = pa.concat_tables([read_parquet(path) for path in paths])
    return {
        kind: table.filter(pc.equal(table.column("kind"), kind)) for kind in set(_COLUMNS.values())
    }


def write_record(workspace: Workspace, name: str, removed: pa.Table) -> dict[str, list[Part]]:
    """Write which pairs were taken out, as REMOVED and as drops; return the files by table."""
    drops = drop_rows(
        removed.column("pair_id").combine_chunks(), REASON, removed.column("list").combine_chunks()
    )
    record = workspace.write(f"shard/removed/{name}.parquet", removed, schemas.REMOVED)
    dropped = workspace.write(f"shard/{DROPS}/{name}.parquet", drops, schemas.DROPS)
    return {"removed": [record], DROPS: [dropped]}
