"""How a stage runs: fingerprint, resume, count, finish.

`begin` compares the fingerprint of settings and inputs with what is there. `StageRun.map` writes a
receipt beside each finished task, so that a killed run goes on from there. `StageRun.finish` checks
that rows in = rows out + drops and writes the manifest, last.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import pipeline
from pipeline import schemas
from pipeline.errors import AccountingError, ConfigError
from pipeline.runtime import manifest as manifests
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import DROPS, MAIN, Manifest, Outcome, Part
from pipeline.runtime.progress import Progress, say
from pipeline.runtime.receipts import Job, read_receipts, run_job
from pipeline.runtime.run_folder import (
    RUN,
    clear,
    difference,
    is_being_revised,
    note_start,
    started_before,
    tidy,
)
from pipeline.runtime.settings import Settings, pace_settings
from pipeline.runtime.workspace import MANIFEST, Workspace

Task = TypeVar("Task")

SAMPLED_DROPS = 100


@dataclass(frozen=True, kw_only=True)
class TaskOutput:
    """Where task `index` of a stage writes, and how it reads.

    Attributes:
        revision: of the stage; later ones write under names of their own, see `revise`.
    """

    workspace: Workspace
    stage: str
    index: int
    revision: int = 0

    def name(self, suffix: str, table: str = MAIN) -> str:
        """Return this task's file of `table`, relative to the workspace: `STAGE/[TABLE/]NNNNN.SUFFIX`."""
        folder = self.stage if table == MAIN else f"{self.stage}/{table}"
        revised = f"-{self.revision}" if self.revision else ""
        return f"{folder}/{self.index:05d}{revised}.{suffix}"

    def read(self, part: Part, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
        """See `Workspace.read`."""
        return self.workspace.read(part, schema, columns)

    def write(
        self,
        *,
        rows_in: int,
        kept: pa.Table,
        schema: pa.Schema,
        drops: pa.Table,
        side: Mapping[str, tuple[pa.Table, pa.Schema]] | None = None,
        files: Mapping[str, list[Part]] | None = None,
        counters: Mapping[str, float] | None = None,
        every_drop: bool = False,
    ) -> Outcome:
        """Write the kept rows, the drops and side tables; return the task's outcome.

        Args:
            rows_in: rows read; must be kept plus dropped.
            drops: DROPS, one row per dropped row.
            side: further tables by name, each with its schema.
            files: files already written, by table, such as tars.
            every_drop: keep all dropped rows, also where the workspace keeps a sample.
        """
        parts = {MAIN: [self.workspace.write(self.name("parquet"), kept, schema)], **(files or {})}
        reasons = drops.column("reason").value_counts().to_pylist()
        for table, (rows, columns) in {
            **(side or {}),
            DROPS: (drops if every_drop else self._sampled(drops), schemas.DROPS),
        }.items():
            if rows.num_rows:
                parts[table] = [self.workspace.write(self.name("parquet", table), rows, columns)]
        return Outcome(
            rows_in=rows_in,
            rows_out=kept.num_rows,
            drops={str(r["values"]): int(r["counts"]) for r in reasons},
            parts=parts,
            counters=counters or {},
        )

    def _sampled(self, drops: pa.Table) -> pa.Table:
        if self.workspace.drops == "all":
            return drops
        rows: list[int] = []
        for reason in pc.unique(drops.column("reason")):
            where = pc.indices_nonzero(pc.equal(drops.column("reason"), reason)).to_pylist()
            rows.extend(where[:SAMPLED_DROPS])
        return drops.take(pa.array(sorted(rows), pa.int64()))


@dataclass(kw_only=True)
class StageRun:
    """One stage at work in one workspace.

    Attributes:
        done: the manifest, if the stage had finished before with the same fingerprint; nothing is to do.
        revision: times that the stage, once finished, was taken up again, see `revise`.
    """

    name: str
    workspace: Workspace
    fingerprint: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Manifest]
    files: Mapping[str, Any]
    done: Manifest | None
    revision: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _cpu_begun: float = field(default_factory=time.process_time)
    _worker_cpu_seconds: float = 0.0
    _resumed_tasks: int = 0
    _tables: dict[str, list[Part]] = field(default_factory=dict)
    _schemas: dict[str, pa.Schema] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The stage's folder."""
        return self.workspace.path(self.name)

    def parts(self, stage: str, table: str = MAIN) -> list[Part]:
        """Return the files of a table of an earlier stage, which must be one of those it reads."""
        return list(self.inputs[stage].tables.get(table, []))

    def output(self, index: int) -> TaskOutput:
        """Return where task `index` writes."""
        return TaskOutput(
            workspace=self.workspace, stage=self.name, index=index, revision=self.revision
        )

    def scratch(self, name: str) -> str:
        """Return a folder for intermediate files, removed when the stage finishes.

        Its path differs for every fingerprint, so a worker may cache what it read by path.
        """
        folder = self.workspace.path(self.name, RUN, self.fingerprint[:12], name)
        storage.make_folder(folder)
        return folder

    def map(
        self,
        executor: Executor,
        step: str,
        work: Callable[[Task], Outcome],
        tasks: Sequence[Task],
    ) -> list[Outcome]:
        """Run `work` over `tasks` and return their outcomes in the order of tasks.

        Tasks that an earlier, interrupted run finished are not run again.

        Raises:
            TaskFailed: naming the tasks that failed, after the others have ended.
        """
        folder = self.workspace.path(self.name, RUN, "receipts")
        receipts = read_receipts(folder, step)
        self._resumed_tasks += len(receipts)
        jobs = [
            Job(step=step, index=i, work=work, task=task, folder=folder, parent=os.getpid())
            for i, task in enumerate(tasks)
            if i not in receipts
        ]
        title = self.name if step == self.name else f"{self.name}: {step}"
        with Progress(title, len(tasks), done=len(tasks) - len(jobs)) as progress:
            for receipt in executor.map(run_job, jobs):
                receipts[receipt.index] = receipt
                outcome = receipt.outcome
                progress.advance(rows=outcome.rows_in, drops=sum(outcome.drops.values()))
        self._worker_cpu_seconds += sum(r.cpu_seconds for r in receipts.values())
        return [receipts[i].outcome for i in range(len(tasks))]

    def outcomes(self, step: str) -> dict[int, Outcome]:
        """Return what the tasks of a step that have finished did, by index."""
        folder = self.workspace.path(self.name, RUN, "receipts")
        return {i: receipt.outcome for i, receipt in read_receipts(folder, step).items()}

    def write_table(self, name: str, table: pa.Table, schema: pa.Schema) -> Part:
        """Write one file of a side table that belongs to no task."""
        part = self.workspace.write(f"{self.name}/{name}/00000.parquet", table, schema)
        self.add(name, part)
        return part

    def add(self, table: str, part: Part) -> None:
        """Count a file that belongs to no task, such as a model, among what the stage wrote."""
        self._tables.setdefault(table, []).append(part)

    def finish(self, outcomes: Sequence[Outcome]) -> Manifest:
        """Check the counts, write the manifest and remove what was intermediate.

        Raises:
            AccountingError: if rows in are not rows out plus drops.
        """
        tables: dict[str, list[Part]] = {MAIN: [], **self._tables}
        drops: dict[str, int] = {}
        counters: dict[str, float] = {}
        for outcome in outcomes:
            for name, parts in outcome.parts.items():
                tables.setdefault(name, []).extend(parts)
            _add_up(drops, outcome.drops)
            _add_up(counters, outcome.counters)
        rows_in = sum(o.rows_in for o in outcomes)
        rows_out = sum(o.rows_out for o in outcomes)
        self._account(rows_in, rows_out, drops, tables)
        manifest = Manifest(
            format=manifests.FORMAT,
            stage=self.name,
            fingerprint=self.fingerprint,
            settings=self.settings,
            inputs={name: manifest.content for name, manifest in self.inputs.items()},
            files=self.files,
            rows_in=rows_in,
            rows_out=rows_out,
            drops=dict(sorted(drops.items())),
            counters=dict(sorted(counters.items())),
            tables={name: sorted(parts, key=_place) for name, parts in tables.items()},
            schemas={name: self._schema_of(parts) for name, parts in tables.items() if parts},
            versions=_versions(),
            revision=self.revision,
            resumed_tasks=self._resumed_tasks,
            wall_seconds=round(time.monotonic() - self._begun, 3),
            cpu_seconds=round(self._worker_cpu_seconds + time.process_time() - self._cpu_begun, 3),
        )
        storage.write_bytes(self.workspace.path(self.name, MANIFEST), manifest.to_json().encode())
        tidy(self.workspace, manifest)
        if rows_in and not rows_out:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in manifest.drops.items())
            say(f"{self.name:<10} keeps nothing: {reasons}")
        return manifest

    def _account(
        self,
        rows_in: int,
        rows_out: int,
        drops: Mapping[str, int],
        tables: Mapping[str, list[Part]],
    ) -> None:
        dropped = sum(drops.values())
        if rows_in != rows_out + dropped:
            raise AccountingError(
                f"{self.name} read {rows_in:,} rows, kept {rows_out:,} and dropped {dropped:,}; "
                f"{rows_in - rows_out - dropped:,} are unaccounted for: please report this"
            )
        written = sum(part.rows for part in tables.get(DROPS, []))
        if self.workspace.drops == "all" and written != dropped:
            raise AccountingError(
                f"{self.name} counted {dropped:,} drops and wrote {written:,}: please report this"
            )

    def _schema_of(self, parts: Sequence[Part]) -> list[dict[str, str]]:
        if not parts[0].path.endswith(".parquet"):
            return []
        with storage.open_input(self.workspace.path(parts[0].path)) as file:
            return manifests.describe_schema(pq.read_schema(file))


def begin(
    name: str,
    config: Settings,
    workspace: Workspace,
    *,
    reads: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
    anew: bool = True,
) -> StageRun:
    """Start stage `name`, go on with an interrupted run of it, or find that there is nothing to do.

    The fingerprint covers the settings but those of pace, the content of the stages in `reads`, and
    the state of the outside `files`, by name: where they lie does not count. Parts made under another
    fingerprint are removed first, so whatever may be wrong with the settings should be found before.

    Args:
        keep: paths in the stage's folder that stay when the others are removed.
        anew: whether parts made under another fingerprint may be removed at all.

    Raises:
        ConfigError: if they may not, and there are such.
        MissingInput: if a stage in `reads` has not finished or is out of date.
        StorageError: if one of `files` is not there.
        InputError: if the stage's folder holds files of somebody else.
    """
    run, basis = _describe(name, config, workspace, reads, files)
    present = workspace.manifest(name)
    if present is not None and present.fingerprint == run.fingerprint:
        run.done = workspace.finished(name)
        if not is_being_revised(workspace, present):
            tidy(workspace, present)
        say(f"{name:<10} is done: {present.rows_out:,} rows; nothing has changed since")
        return run
    started = {
        "fingerprint": run.fingerprint,
        "drops": workspace.drops,
        "witmill": pipeline.__version__,
        **basis,
    }
    before = started_before(workspace, name)
    if present is None and before == started:
        return run
    if present is not None or before is not None:
        seen = asdict(present) if present else before or {}
        changed = f"{difference(seen, basis)} changed"
        if not anew:
            raise ConfigError(
                f"{name} in {workspace.root} was made from something else: {changed}; expected the "
                "settings and files that it was made from"
            )
        say(f"{name:<10} is built anew, because {changed}")
    clear(workspace, name, is_ours=present is not None or before is not None, keep=keep)
    note_start(workspace, name, started)
    return run


def reopen(
    name: str,
    config: Settings,
    workspace: Workspace,
    *,
    reads: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> StageRun:
    """Return stage `name`, which has finished with the same fingerprint, so that it may be revised.

    Raises:
        MissingInput: if it has not finished, or a stage in `reads` has not or is out of date.
        ConfigError: if it was made from something else.
    """
    run, basis = _describe(name, config, workspace, reads, files)
    run.done = workspace.finished(name)
    if run.done.fingerprint != run.fingerprint:
        raise ConfigError(
            f"{name} in {workspace.root} was not made from this: {difference(asdict(run.done), basis)} "
            "changed; expected the settings and files that it was made from"
        )
    if not is_being_revised(workspace, run.done):
        tidy(workspace, run.done)
    return run


def _describe(
    name: str,
    config: Settings,
    workspace: Workspace,
    reads: Sequence[str],
    files: Mapping[str, str] | None,
) -> tuple[StageRun, dict[str, Any]]:
    """Return a stage's run and what its fingerprint covers."""
    workspace.prepare()
    inputs = {stage: workspace.finished(stage) for stage in reads}
    basis = {
        "settings": config.model_dump(mode="json", exclude=pace_settings(type(config))),
        "inputs": {stage: manifest.content for stage, manifest in inputs.items()},
        "files": {file: asdict(storage.stamp(path)) for file, path in (files or {}).items()},
    }
    run = StageRun(
        name=name,
        workspace=workspace,
        fingerprint=manifests.fingerprint_of(name, **basis),
        settings=config.model_dump(mode="json"),
        inputs=inputs,
        files=basis["files"],
        done=None,
    )
    return run, basis


def _place(part: Part) -> tuple[int, str]:
    # Numbers of six digits come after those of five.
    return len(part.path), part.path


def _add_up(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "witmill": pipeline.__version__,
        **{name: version(name) for name in ("pyarrow", "duckdb", "numpy")},
    }
