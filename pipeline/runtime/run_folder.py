"""What is under way in a stage, noted in its folder `_run`, and how what is left of it goes."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import MANIFEST, Workspace

RUN = "_run"
_BEGUN = f"{RUN}/begun.json"
_NOTHING: dict[str, Any] = {"fingerprint": None, "settings": {}, "inputs": {}, "files": {}}


def note_start(workspace: Workspace, stage: str, started: Mapping[str, Any]) -> None:
    """Note what the parts that follow are made from."""
    storage.write_bytes(workspace.path(stage, _BEGUN), json.dumps(started).encode())


def started_before(workspace: Workspace, stage: str) -> dict[str, Any] | None:
    """Return what was noted, or None if nothing is under way."""
    path = workspace.path(stage, _BEGUN)
    if not storage.exists(path):
        return None
    started: dict[str, Any] = json.loads(storage.read_bytes(path))
    return started


def start_revision(workspace: Workspace, manifest: Manifest, change: Mapping[str, Any]) -> None:
    """Note that a finished stage is taken up again for `change`, or go on where that was interrupted."""
    started = {**_NOTHING, "revises": manifest.revision, "change": dict(change)}
    if started_before(workspace, manifest.stage) != started:
        tidy(workspace, manifest)
        note_start(workspace, manifest.stage, started)


def is_being_revised(workspace: Workspace, manifest: Manifest) -> bool:
    """Return whether the finished stage was taken up again, and that was interrupted."""
    started = started_before(workspace, manifest.stage)
    return started is not None and started.get("revises") == manifest.revision


def clear(workspace: Workspace, stage: str, *, is_ours: bool, keep: Collection[str] = ()) -> None:
    """Remove all that the stage wrote but the paths in `keep`.

    Raises:
        InputError: if files lie there that are not `is_ours`.
    """
    folder = workspace.path(stage)
    present = storage.list_inside(folder)
    if present and not is_ours:
        raise InputError(
            f"{folder} holds files that no witmill run wrote, such as {present[0]}; "
            "move them or choose another workspace"
        )
    # Deleting takes time and may be cut off anywhere: first of all, nothing counts as begun or done.
    storage.remove(workspace.path(stage, MANIFEST))
    note_start(workspace, stage, _NOTHING)
    for path in present:
        if not path.endswith(_BEGUN) and path not in keep:
            storage.remove(path)


def tidy(workspace: Workspace, manifest: Manifest) -> None:
    """Remove what was intermediate, what killed writers left, and the files that a revision replaced."""
    stage = manifest.stage
    started = started_before(workspace, stage)
    if started is not None and "revises" in started:
        named = {workspace.path(p.path) for parts in manifest.tables.values() for p in parts}
        kept = {*named, workspace.path(stage, MANIFEST), workspace.path(stage, _BEGUN)}
        for path in storage.list_inside(workspace.path(stage)):
            if path not in kept:
                storage.remove(path)
    storage.remove(workspace.path(stage, RUN))
    for path in storage.list_unfinished(workspace.path(stage)):
        storage.remove(path)


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say what a stage was made from `before` that is otherwise `now`."""
    changed = []
    for name, value in now["settings"].items():
        if name not in before["settings"] or before["settings"][name] != value:
            changed.append(f"setting {name} ({before['settings'].get(name)!r}, now {value!r})")
    for kind, about in (("inputs", "stage"), ("files", "file")):
        names = sorted({*before[kind], *now[kind]})
        changed += [f"{about} {n}" for n in names if before[kind].get(n) != now[kind].get(n)]
    if not changed:
        return "the version or the way of keeping drops"
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(changed[:3]) + more
