"""Find the shards of a corpus: a workspace that packed them, or a folder that holds nothing else."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import CorruptWorkspace, InputError, MissingInput
from pipeline.runtime import locks, storage
from pipeline.runtime.manifest import Manifest, Part, digest
from pipeline.runtime.workspace import MANIFEST, PROPERTIES, Workspace

STAGE = "shard"
REMOVING = "_removing"
"""Folder of a workspace with what a removal has yet to put in place."""

RECORDED = ("main", "tars", "stats")
"""Tables of the manifest whose files lie in the folder of the shards itself."""

_FILE = re.compile(rf"{STAGE}/(\w+/)?[\w-]+\.\w+")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar and what lies beside it; all paths are full.

    Attributes:
        name: of the tar, relative to its workspace as the index has it, or just its file name.
        files: what is recorded of each file, by path: the tar, its index and its stats.
    """

    name: str
    tar: str
    index: str
    stats: str
    files: Mapping[str, Part]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The shards below `folder`, in their order; `manifest` and `workspace` if they came with them."""

    folder: str
    shards: tuple[Shard, ...]
    manifest: Manifest | None
    workspace: Workspace | None = None

    @property
    def content(self) -> str:
        """What tells this corpus from any other."""
        if self.manifest:
            return self.manifest.content
        stats = ((s.name, storage.size(s.tar), read_stats(s)) for s in self.shards)
        return digest([[name, size, tar and tar.sha256] for name, size, tar in stats])


def open_corpus(place: str) -> Corpus:
    """Find the shards of the workspace, or in the folder, at `place`.

    Raises:
        MissingInput: if the workspace has no finished shards.
        InputError: if the folder holds none, or a removal from it was cut off.
        CorruptWorkspace: if its manifest cannot be read.
    """
    place = real_path(place)
    if not storage.exists(place):
        raise InputError(f"{place} does not exist; expected a workspace or a folder of shards")
    # The shards of a workspace are whole only if the workspace says so.
    above = storage.parent(place)
    is_stage = place == storage.join(above, STAGE)
    for root in (place, above) if is_stage else (place,):
        if storage.exists(storage.join(root, PROPERTIES)):
            return _of_workspace(Workspace(root=root))
    path = storage.join(place, MANIFEST)
    if storage.exists(path):
        return _recorded(place, _read_manifest(path))
    return _found(place)


@contextmanager
def reading(place: str) -> Iterator[Corpus]:
    """Yield the corpus at `place`; no witmill changes its shards during the block if they lie in a local folder.

    Raises:
        InputError: if another witmill is changing them; see also `open_corpus`.
    """
    with _locked(open_corpus(place).folder, shared=True):
        yield open_corpus(place)


@contextmanager
def writing(workspace: Workspace) -> Iterator[None]:
    """Keep others from reading the shards of a local workspace during the block.

    Raises:
        InputError: if another witmill reads them.
    """
    with _locked(workspace.path(STAGE), shared=False):
        yield


@contextmanager
def _locked(folder: str, *, shared: bool) -> Iterator[None]:
    # Not the lock of the workspace: while `train` holds that, the shards may well be read.
    if storage.is_url(folder) or not storage.exists(folder):
        yield
        return
    with locks.locked(folder, where=f"on {folder}", shared=shared):
        yield


def real_path(place: str) -> str:
    """Return a URL without slashes at its end, or a local path in full, without links."""
    if storage.is_url(place):
        return place.rstrip("/")
    return str(Path(storage.local_path(place)).resolve())


def check_whole(place: str) -> None:
    """Make sure that no removal from the workspace at `place` was cut off.

    Raises:
        InputError: if one was.
    """
    if storage.exists(storage.join(place, REMOVING, STAGE, MANIFEST)):
        raise InputError(
            f"a removal from {place} was cut off half way; run `witmill remove {place}` to finish it"
        )


def _of_workspace(workspace: Workspace) -> Corpus:
    check_whole(workspace.root)
    manifest = workspace.manifest(STAGE)
    if manifest is None:
        raise MissingInput(f"shard has not finished in {workspace.root}; run `witmill shard`")
    return replace(_recorded(workspace.path(STAGE), manifest), workspace=workspace)


def _read_manifest(path: str) -> Manifest:
    try:
        manifest = Manifest.from_json(storage.read_bytes(path).decode())
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptWorkspace(f"{path} cannot be read as a manifest; delete it") from error
    if manifest.stage != STAGE:
        raise InputError(f"{path} is the manifest of {manifest.stage}, expected that of {STAGE}")
    return manifest


def _recorded(folder: str, manifest: Manifest) -> Corpus:
    files = {}
    for table, parts in manifest.tables.items():
        for part in parts:
            found = _FILE.fullmatch(part.path)
            if found is None or (table in RECORDED and found[1]):
                raise CorruptWorkspace(
                    f"the manifest in {folder} names {part.path!r}, expected files of {STAGE} alone"
                )
    for table in RECORDED:
        for part in manifest.tables.get(table, []):
            path = storage.join(folder, part.path.removeprefix(f"{STAGE}/"))
            files[path] = replace(part, path=path)
    tars = [part.path for part in manifest.tables.get("tars", [])]
    shards = tuple(_shard(folder, name.removeprefix(f"{STAGE}/"), name, files) for name in tars)
    return Corpus(folder=folder, shards=shards, manifest=manifest)


def _found(folder: str) -> Corpus:
    inside = [path[len(folder) :].lstrip("/") for path in storage.list_inside(folder)]
    names = sorted((n for n in inside if n.endswith(".tar") and "/" not in n), key=_by_length)
    if not names:
        raise InputError(
            f"{folder} is neither a workspace nor does it hold shards; expected {PROPERTIES} or *.tar"
        )
    return Corpus(
        folder=folder,
        shards=tuple(_shard(folder, name, name, {}) for name in names),
        manifest=None,
    )


def _by_length(name: str) -> tuple[int, str]:
    # Numbers of six digits come after those of five.
    return len(name), name


def _shard(folder: str, file: str, name: str, known: Mapping[str, Part]) -> Shard:
    stem = storage.join(folder, file.removesuffix(".tar"))
    tar, index, stats = f"{stem}.tar", f"{stem}.parquet", f"{stem}_stats.json"
    files = {path: known[path] for path in (tar, index, stats) if path in known}
    return Shard(name=name, tar=tar, index=index, stats=stats, files=files)


def read_stats(shard: Shard) -> Part | None:
    """Return samples, size and sha256 of the tar as its stats have them, or None without stats.

    Raises:
        InputError: if they say nothing of the kind.
    """
    if not storage.exists(shard.stats):
        return None
    try:
        stats = json.loads(storage.read_bytes(shard.stats))
        return Part(
            path=shard.tar,
            rows=int(stats["count"]),
            bytes=int(stats["tar_bytes"]),
            sha256=str(stats["tar_sha256"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{shard.stats} cannot be read: {error!r}") from error
