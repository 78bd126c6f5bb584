"""Take up a finished stage again: some files are replaced, others added, the rest stays.

New files have names of their own, and the manifest that names them replaces the old one last of all.
So a run that is killed leaves the stage as it was or as it is to be, and the same command goes on.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.run_folder import start_revision
from pipeline.runtime.stage import StageRun


def revise(stage: StageRun, done: Manifest, change: Mapping[str, Any]) -> StageRun:
    """Return the run that makes the next revision of a finished stage, see `reopen`.

    Args:
        done: the stage's manifest.
        change: what is done, as plain values; an interrupted revision goes on only if it was for the same.
    """
    start_revision(stage.workspace, done, change)
    return replace(stage, done=None, revision=done.revision + 1)


def remainder(
    done: Manifest,
    *,
    rows_in: int,
    drops: Mapping[str, int],
    counters: Mapping[str, float],
    files: Collection[Part],
) -> Outcome:
    """Return what is left of a finished stage's outcome once the revision has replaced some of it.

    `StageRun.finish` takes it together with the outcomes of the revision's tasks.

    Args:
        rows_in: rows of the parts that were done again.
        drops: of these rows, by reason.
        counters: those that the revision counts anew.
        files: those that others take the place of.
    """
    left = {reason: count - drops.get(reason, 0) for reason, count in done.drops.items()}
    paths = {part.path for part in files}
    return Outcome(
        rows_in=done.rows_in - rows_in,
        rows_out=done.rows_out,
        drops={reason: count for reason, count in left.items() if count},
        parts={
            name: [part for part in parts if part.path not in paths]
            for name, parts in done.tables.items()
        },
        counters={name: n for name, n in done.counters.items() if name not in counters},
    )
