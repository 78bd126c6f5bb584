"""What a finished stage says of itself, and how it is recognised again.

A manifest is written last; its existence means that the stage is done.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

FORMAT = 1
MAIN = "main"
DROPS = "drops"
REPORT = "report"
_FOR_READERS = (DROPS, REPORT, "hosts", "worst_hosts")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One written file; `path` is relative to the workspace."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one task did.

    Attributes:
        drops: rows dropped by reason.
        parts: files written, by table; "main" is the stage's own, "drops" the dropped rows.
        counters: further numbers, summed over tasks in the manifest.
    """

    rows_in: int = 0
    rows_out: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, list[Part]] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Outcome":
        """Return the outcome that `dataclasses.asdict` turned into `values`."""
        parts = {name: [Part(**part) for part in some] for name, some in values["parts"].items()}
        return cls(**{**values, "parts": parts})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The record of one finished stage.

    Attributes:
        fingerprint: of the settings and of everything read.
        settings: the stage's config as plain values.
        inputs: content of each earlier stage that was read.
        files: state of each outside file that was read, by name.
        tables: files written, by table.
        schemas: columns of each table: name, type, meaning.
        revision: times that the finished stage was taken up again.
        resumed_tasks: tasks that earlier, interrupted runs had finished.
        wall_seconds: of the run that finished the stage.
        cpu_seconds: of that run, and of the tasks of earlier ones.
    """

    format: int
    stage: str
    fingerprint: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: Mapping[str, Any]
    rows_in: int
    rows_out: int
    drops: Mapping[str, int]
    counters: Mapping[str, float]
    tables: Mapping[str, list[Part]]
    schemas: Mapping[str, list[dict[str, str]]]
    versions: Mapping[str, str]
    resumed_tasks: int
    revision: int = 0
    wall_seconds: float
    cpu_seconds: float

    @property
    def parts(self) -> list[Part]:
        """The files of the main table, in order."""
        return list(self.tables.get(MAIN, []))

    @property
    def content(self) -> str:
        """Digest of everything the stage wrote for other stages, not of what only people read."""
        tables = {name: parts for name, parts in self.tables.items() if name not in _FOR_READERS}
        return digest(
            {name: [(part.path, part.sha256) for part in parts] for name, parts in tables.items()}
        )

    def to_json(self) -> str:
        """Return the manifest as JSON text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Return the manifest written as `text`."""
        try:
            values = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        tables = {name: [Part(**part) for part in some] for name, some in values["tables"].items()}
        return cls(**{**values, "tables": tables})


def digest(value: object) -> str:
    """Return a sha256 over the JSON form of `value`, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint_of(
    stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], files: Mapping[str, Any]
) -> str:
    """Return what tells a stage's run from any other; see the attributes of `Manifest`.

    Args:
        settings: without those of pace.
    """
    basis = {"settings": settings, "inputs": inputs, "files": files}
    return digest({"stage": stage, "format": FORMAT, **basis})


def describe_schema(schema: pa.Schema) -> list[dict[str, str]]:
    """Return name, type and meaning of each column, as a manifest keeps them."""
    return [
        {
            "name": column.name,
            "type": str(column.type),
            "about": (column.metadata or {}).get(b"about", b"").decode(),
        }
        for column in schema
    ]
