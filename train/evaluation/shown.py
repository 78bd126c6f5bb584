"""Which pictures of evaluation sets a corpus shows, as its stage "dedup" found out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.errors import ConfigError, InputError
from pipeline.runtime.manifest import MAIN, Manifest
from pipeline.runtime.parquet import read_parquet
from pipeline.runtime.workspace import Workspace

# A caption that repeats an evaluation set's says nothing of the picture.
BY_CAPTION: Final = "caption"

# What "dedup" depends on beside the sets, as its manifest names it.
OTHER_FILES: Final = {
    "evaluation sets", "earlier run", "embedding model", "embedding model settings",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Evaluation pictures that a corpus shows.

    Attributes:
        items: by set.
        met: evaluation pictures that a downloaded pair shows.
        stage: the stage whose pairs count: those that are left at the end.
    """

    items: Mapping[str, frozenset[str]]
    met: int
    stage: str

    @property
    def left(self) -> int:
        """Evaluation pictures that a pair of the corpus shows."""
        return sum(len(items) for items in self.items.values())


def compared(workspace: Workspace) -> Manifest:
    """Return the manifest of a "dedup" that looked for overlap and left it in.

    Raises:
        MissingInput: if the stage has not finished, or is out of date.
        ConfigError: if it dropped the overlap, or compared with no set.
    """
    manifest = workspace.finished("dedup")
    where = f"dedup in {workspace.root}"
    if not manifest.settings["evalsets"]:
        raise ConfigError(
            f"{where} compared the corpus with no evaluation set; "
            "run `witmill dedup --evalsets SETS.toml --no-drop-overlaps`, and all stages after it"
        )
    if manifest.settings["drop_overlaps"]:
        raise ConfigError(
            f"{where} dropped the pictures that overlap (drop_overlaps = true), so that no model of "
            "this corpus has seen any; expected one made by `witmill dedup --no-drop-overlaps`"
        )
    return manifest


def check_sets(evalsets: Sequence[str], dedup: Manifest, evaluation: Manifest, root: str) -> None:
    """Make sure that the corpus was compared with the sets that were evaluated, as they were.

    Args:
        root: of the corpus, for the message.

    Raises:
        InputError: naming those that it was not compared with, or that have changed.
    """
    places = {name: _places(name, dedup) for name in evalsets}
    unknown = [name for name in evalsets if not places[name]]
    if unknown:
        known = sorted({key.partition(": ")[0] for key in dedup.files} - OTHER_FILES)
        raise InputError(
            f"the corpus of {root} was not compared with {', '.join(unknown)}, but with: "
            f"{', '.join(known)}; name these by --only, or run dedup again with all sets"
        )
    changed = [name for name in evalsets if places[name] != _places(name, evaluation)]
    if changed:
        raise InputError(
            f"the files of {', '.join(changed)} were others when the corpus of {root} was compared "
            "with them than when they were evaluated; run dedup or evaluate again"
        )


def _places(evalset: str, manifest: Manifest) -> dict[str, Any]:
    """Return the state of a set's files when a stage ran; see `evalsets.places_of`."""
    return {
        key: state
        for key, state in manifest.files.items()
        if key == evalset or key.startswith(f"{evalset}: ")
    }


def read_shown(workspace: Workspace, dedup: Manifest) -> Shown:
    """Return the evaluation pictures that pairs of the finished corpus show.

    A pair that was dropped because another has its picture counts as long as that one is left.

    Raises:
        MissingInput: if the shards are out of date.
    """
    met = _overlaps(workspace, dedup)
    wanted = set(met.column("pair_id").to_pylist())
    stands_for = _stand_ins(workspace, dedup, wanted)
    stage = "shard" if workspace.manifest("shard") else "dedup"
    corpus = workspace.finished(stage)
    left = _present(_paths(workspace, corpus, MAIN), wanted | set(stands_for.values()))
    items: dict[str, set[str]] = {}
    every: set[tuple[str, str]] = set()
    for row in met.to_pylist():
        every.add((row["evalset"], row["item"]))
        pair_id = row["pair_id"]
        if pair_id in left or stands_for.get(pair_id) in left:
            items.setdefault(row["evalset"], set()).add(row["item"])
    return Shown(
        items={name: frozenset(some) for name, some in items.items()}, met=len(every), stage=stage
    )


def _overlaps(workspace: Workspace, dedup: Manifest) -> pa.Table:
    columns = ["pair_id", "evalset", "item", "method"]
    empty = pa.schema([schemas.EVAL_OVERLAPS.field(name) for name in columns]).empty_table()
    parts = [
        workspace.read(part, schemas.EVAL_OVERLAPS, columns)
        for part in dedup.tables.get("eval_overlaps", [])
    ]
    met = pa.concat_tables([empty, *parts])
    return met.filter(pc.not_equal(met.column("method"), BY_CAPTION))


def _stand_ins(workspace: Workspace, dedup: Manifest, wanted: set[str]) -> dict[str, str]:
    """Return for each of some dropped duplicates the pair that stays with its picture."""
    found: dict[str, str] = {}
    for path in _paths(workspace, dedup, "duplicates"):
        rows = read_parquet(path, columns=["pair_id", "duplicate_of"])
        some = rows.filter(_is_in(rows, wanted))
        columns = (some.column(name).to_pylist() for name in some.column_names)
        found.update(zip(*columns, strict=True))
    return found


def _present(paths: Iterable[str], wanted: set[str]) -> set[str]:
    """Return those of some pairs that stand in a table; one part is in memory at a time."""
    found: set[str] = set()
    for path in paths:
        rows = read_parquet(path, columns=["pair_id"])
        found.update(rows.filter(_is_in(rows, wanted)).column("pair_id").to_pylist())
    return found


def _is_in(rows: pa.Table, wanted: set[str]) -> Any:
    return pc.is_in(rows.column("pair_id"), pa.array(sorted(wanted), pa.string()))


def _paths(workspace: Workspace, manifest: Manifest, table: str) -> list[str]:
    return [workspace.path(part.path) for part in manifest.tables.get(table, [])]
