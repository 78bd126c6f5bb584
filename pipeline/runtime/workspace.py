"""A run's folder: where each stage's parts and manifest live, and how they are read again.

Every stage owns `<root>/<stage>/`: numbered Parquet parts of its main table, one folder per side
table, and `manifest.json`, written last. A stage is out of date when what it read has changed since.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schemas
from pipeline.errors import ConfigError, CorruptWorkspace, InputError, MissingInput
from pipeline.runtime import locks, storage
from pipeline.runtime.manifest import FORMAT, Manifest, Part
from pipeline.runtime.parquet import write_parquet

PROPERTIES = "witmill.json"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One run's folder or object-store prefix; picklable, so tasks carry it.

    Args:
        root: local path or URL.
        drops: keep every dropped row, or a sample per reason and part beside the counts.
    """

    root: str
    drops: Literal["all", "sample"] = "all"

    def __post_init__(self) -> None:
        if not self.root:
            raise ConfigError(
                "workspace is empty, expected a folder or a URL such as s3://bucket/run"
            )
        # In full, so that paths made from it mean the same whatever they are joined to.
        if not storage.is_url(self.root):
            object.__setattr__(self, "root", storage.local_path(self.root))

    def path(self, *names: str) -> str:
        """Return the path of something below the root."""
        return storage.join(self.root, *names)

    def prepare(self) -> None:
        """Make the folder if it is new and record the format of its files.

        Raises:
            InputError: if a newer witmill wrote it, or the path is no folder.
            StorageError: if it cannot be written.
        """
        if not self._has_properties():
            storage.write_bytes(
                self.path(PROPERTIES), json.dumps({"format": FORMAT}).encode() + b"\n"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other witmill processes from writing here while the block runs; local folders only.

        Raises:
            InputError: if another process is at work.
        """
        self.prepare()
        if storage.is_url(self.root):
            yield
            return
        with locks.locked(storage.local_path(self.path(PROPERTIES)), where=f"in {self.root}"):
            yield

    def require(self) -> None:
        """Make sure that a workspace is here.

        Raises:
            InputError: if there is none, or a newer witmill wrote it.
        """
        if not self._has_properties():
            raise InputError(
                f"{self.root} is no witmill workspace: it has no {PROPERTIES}; check the path, "
                "or begin with `witmill ingest`"
            )

    def _has_properties(self) -> bool:
        path = self.path(PROPERTIES)
        if not storage.exists(path):
            return False
        try:
            found = json.loads(storage.read_bytes(path))["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptWorkspace(
                f'{path} cannot be read; expected {{"format": {FORMAT}}}'
            ) from error
        if not isinstance(found, int) or found > FORMAT:
            raise InputError(
                f"{self.root} was written in format {found}, this witmill knows format {FORMAT}; "
                "upgrade witmill or choose another workspace"
            )
        return True

    def manifest(self, stage: str) -> Manifest | None:
        """Return the manifest of `stage`, or None while it has not finished.

        Raises:
            CorruptWorkspace: if the manifest cannot be read.
        """
        path = self.path(stage, MANIFEST)
        if not storage.exists(path):
            return None
        try:
            return Manifest.from_json(storage.read_bytes(path).decode())
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptWorkspace(
                f"{path} cannot be read as a manifest; delete {self.path(stage)} and run `witmill {stage}` again"
            ) from error

    def manifests(self, stages: Iterable[str]) -> dict[str, Manifest | None]:
        """Return the manifest of each of `stages`, in their order, None for those not finished.

        Raises:
            CorruptWorkspace: if a manifest cannot be read.
        """
        return {stage: self.manifest(stage) for stage in stages}

    def out_of_date(self, manifests: Mapping[str, Manifest | None]) -> dict[str, str]:
        """Return the stages that are out of date, each with the earlier one that changed since it ran.

        Args:
            manifests: of the stages in question; those of other stages that they read are looked up.
        """
        known = dict(manifests)
        changed = {stage: self._changed_before(stage, known) for stage in manifests}
        return {stage: earlier for stage, earlier in changed.items() if earlier}

    def _changed_before(self, stage: str, known: dict[str, Manifest | None]) -> str | None:
        manifest = self._remembered(stage, known)
        for name, content in (manifest.inputs if manifest else {}).items():
            earlier = self._remembered(name, known)
            if earlier is None or earlier.content != content or self._changed_before(name, known):
                return name
        return None

    def _remembered(self, stage: str, known: dict[str, Manifest | None]) -> Manifest | None:
        if stage not in known:
            known[stage] = self.manifest(stage)
        return known[stage]

    def finished(self, stage: str) -> Manifest:
        """Return the manifest of a stage that is done, up to date, and whole at a glance.

        Raises:
            MissingInput: if the stage has not finished or is out of date.
            CorruptWorkspace: if one of its files is missing or has another size.
        """
        manifest = self.manifest(stage)
        if manifest is None:
            raise MissingInput(f"{stage} has not finished in {self.root}; run `witmill {stage}`")
        changed = self._changed_before(stage, {stage: manifest})
        if changed:
            raise MissingInput(
                f"{stage} in {self.root} is out of date, because {changed} is not what it was; "
                f"run `witmill {changed}` if it is out of date itself, then `witmill {stage}`; "
                "`witmill run` does all that is needed"
            )
        self.check_sizes(manifest)
        return manifest

    def check_sizes(self, manifest: Manifest) -> None:
        """Make sure that every file of a stage is there, with the size it was written with.

        Raises:
            CorruptWorkspace: naming the first that is not.
        """
        for parts in manifest.tables.values():
            for part in parts:
                self._check_size(part)

    def verify(self, part: Part) -> None:
        """Make sure that a file has the sha256 it was written with; reads it once.

        Raises:
            CorruptWorkspace: if it has another.
        """
        if self.describe(part.path, rows=part.rows) != part:
            path = self.path(part.path)
            raise CorruptWorkspace(f"{path} is corrupted: its sha256 differs; {self._mend(part)}")

    def _check_size(self, part: Part) -> None:
        found = storage.size(self.path(part.path))
        if found != part.bytes:
            seen = (
                "is missing" if found is None else f"has {found:,} bytes, expected {part.bytes:,}"
            )
            raise CorruptWorkspace(f"{self.path(part.path)} {seen}; {self._mend(part)}")

    def _mend(self, part: Part) -> str:
        stage = part.path.partition("/")[0]
        return f"delete {self.path(stage)} and run `witmill {stage}` again"

    def read(self, part: Part, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the table in `part`, checked against its sha256 and `schema`.

        Raises:
            CorruptWorkspace: if the file is not what was written.
        """
        path = self.path(part.path)
        data = storage.read_bytes(path)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise CorruptWorkspace(f"{path} is corrupted: its sha256 differs; {self._mend(part)}")
        names = None if columns is None else list(columns)
        table = pq.read_table(pa.BufferReader(data), columns=names)
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return schemas.check(table, wanted, source=path)

    def read_table(self, stage: str, table: str, schema: pa.Schema) -> pa.Table:
        """Return a whole table of a finished stage; for small tables such as counts."""
        parts = self.finished(stage).tables.get(table, [])
        return pa.concat_tables(
            [schema.empty_table(), *(self.read(part, schema) for part in parts)]
        )

    def write(self, path: str, table: pa.Table, schema: pa.Schema) -> Part:
        """Write `table` to `path` below the root, whole or not at all.

        Raises:
            SchemaError: if `table` does not have exactly `schema`.
        """
        checked = schemas.check(table, schema, source=path).cast(schema)
        file = write_parquet(self.path(path), checked)
        return Part(path=path, rows=table.num_rows, bytes=file.size, sha256=file.sha256)

    def describe(self, path: str, *, rows: int) -> Part:
        """Return the Part of a file below the root that something else wrote; reads it once."""
        digest = hashlib.sha256()
        count = 0
        with storage.open_input(self.path(path)) as file:
            while chunk := file.read(storage.COPY_BYTES):
                digest.update(chunk)
                count += len(chunk)
        return Part(path=path, rows=rows, bytes=count, sha256=digest.hexdigest())
