"""What `balance` reads: the pairs of this crawl, and those that an earlier balance kept, to add to.

A pair that an earlier balance dropped had, for each of its queries, as many pairs before it as that
query may keep. More pairs cannot change that, so what was kept is all that is needed to choose from.
To count matches exactly, the ids of all earlier pairs are needed as well: the earlier crawl's captions have
them, and a balance that was itself added to keeps, as `earlier_ids`, those of the crawls before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.caps.priorities import I64
from pipeline.errors import ConfigError
from pipeline.inputs.repeats import (
    count_partitions,
    find_repeats,
    read_repeats,
    write_keys,
    write_repeats,
)
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.stage import StageRun
from pipeline.runtime.workspace import MANIFEST, Workspace


@dataclass(frozen=True, kw_only=True)
class Source:
    """One part to balance.

    Attributes:
        known: files of `pipeline.inputs.repeats` with the rows, under `chunk`, that an earlier crawl has too.
    """

    workspace: Workspace
    part: Part
    schema: pa.Schema
    known: tuple[str, ...] = ()
    chunk: int = 0

    def read(self, columns: Sequence[str] | None = None) -> tuple[pa.Table, pa.Table]:
        """Return the pairs to balance and those that are known, both in order."""
        pairs = self.workspace.read(self.part, self.schema, columns)
        if not self.known:
            return pairs, pairs.slice(0, 0)
        is_new = np.ones(len(pairs), np.bool_)
        is_new[read_repeats(self.known, self.chunk).to_numpy()] = False
        return pairs.filter(pa.array(is_new)), pairs.filter(pa.array(~is_new))


@dataclass(frozen=True, kw_only=True)
class EarlierCrawl:
    """A workspace whose balance to add to.

    Attributes:
        most: pairs that a query could keep there.
    """

    workspace: Workspace
    balance: Manifest
    captions: Manifest
    most: int

    @property
    def stamps(self) -> dict[str, str]:
        """The files that tell whether it is still what it was, by name."""
        return {
            f"{stage} of the earlier crawl": self.workspace.path(stage, MANIFEST)
            for stage in ("captions", "balance")
        }

    def require_cap(self, most: int) -> None:
        """Make sure that enough was kept for queries that may keep up to `most` pairs.

        Raises:
            ConfigError: if not.
        """
        if most > self.most:
            raise ConfigError(
                f"each query may keep {most:,} pairs (cap times headroom), but only {self.most:,} in "
                f"{self.workspace.root}; a cap can only shrink: give a smaller one, or balance "
                f"{self.workspace.root} again with a larger one"
            )

    def matched(self) -> I64:
        """Return the matches of each query in it and in what it was added to."""
        counts = self.workspace.read_table("balance", "query_counts", schemas.QUERY_COUNTS)
        matched: I64 = counts.column("matched").to_numpy()
        return matched

    def pairs(self) -> int:
        """Return how many different pairs it and what it was added to have."""
        (summary,) = self.workspace.read_table(
            "balance", "summary", schemas.BALANCE_SUMMARY
        ).to_pylist()
        return int(summary["pairs"])

    def sources(self) -> list[Source]:
        """Return the pairs that it kept."""
        parts = self.balance.parts
        return [
            Source(workspace=self.workspace, part=part, schema=schemas.BALANCED) for part in parts
        ]


def _place(workspace: Workspace) -> str:
    is_remote = storage.is_url(workspace.root)
    return workspace.root if is_remote else str(Path(workspace.root).resolve())


def open_earlier(root: str, workspace: Workspace, *, seed: int) -> EarlierCrawl:
    """Return the crawl in the workspace `root`, to which to add that in `workspace`.

    Raises:
        ConfigError: if it is the same workspace, or has another query list, other rules or another seed.
        MissingInput: if its balance has not finished, or is out of date.
    """
    earlier = Workspace(root=root)
    if _place(earlier) == _place(workspace):
        raise ConfigError(f"{root} cannot be added to itself; give the workspace of another crawl")
    earlier.require()
    balance, captions = earlier.finished("balance"), earlier.finished("captions")
    (rule,) = earlier.read_table("balance", "cap", schemas.CAP).to_pylist()
    if rule["seed"] != seed:
        raise ConfigError(
            f"balance.seed is {seed}, but {earlier.root} was balanced with seed {rule['seed']}; "
            f"give --seed {rule['seed']}"
        )
    lists = [_list(space.finished("match")) for space in (workspace, earlier)]
    if lists[0] != lists[1]:
        raise ConfigError(
            f"{workspace.root} was matched against {_describe(lists[0])}, {earlier.root} against "
            f"{_describe(lists[1])}; match both against the same list under the same rules"
        )
    return EarlierCrawl(
        workspace=earlier, balance=balance, captions=captions, most=rule["first_cap"]
    )


def _list(match: Manifest) -> tuple[int, str, str]:
    parts = match.tables["queries"]
    digests = ", ".join(part.sha256[:12] for part in parts)
    return sum(part.rows for part in parts), digests, str(match.settings.get("rules"))


def _describe(queries: tuple[int, str, str]) -> str:
    return f"a list of {queries[0]:,} queries (sha256 {queries[1]}, rules {queries[2]})"


@dataclass(frozen=True, kw_only=True)
class IdsTask:
    """A part whose pair ids to write to `target`."""

    workspace: Workspace
    part: Part
    schema: pa.Schema
    target: str


@dataclass(frozen=True, kw_only=True)
class FindTask:
    """A range of ids; what the files after the `earlier` ones repeat goes to `target`."""

    files: tuple[str, ...]
    earlier: int
    partition: int
    partitions: int
    target: str


def find_known(
    stage: StageRun, executor: Executor, earlier: EarlierCrawl, sources: Sequence[Source]
) -> list[Source]:
    """Return `sources` with the rows marked that earlier crawls have; keep the ids of those crawls.

    The ids become the stage's table `earlier_ids`, for the next crawl.
    """
    inherited = earlier.balance.tables.get("earlier_ids", [])
    parts = [*inherited, *earlier.captions.parts]
    names = [stage.output(i).name("parquet", "earlier_ids") for i in range(len(parts))]
    targets = [stage.workspace.path(name) for name in names]
    folder = stage.scratch("ids")
    targets += [storage.join(folder, f"{i:05d}.parquet") for i in range(len(sources))]
    old = [
        IdsTask(workspace=earlier.workspace, part=part, schema=schemas.CAPTIONS, target=target)
        for part, target in zip(parts, targets, strict=False)
    ]
    new = [
        IdsTask(workspace=source.workspace, part=source.part, schema=source.schema, target=target)
        for source, target in zip(sources, targets[len(old) :], strict=True)
    ]
    copied = stage.map(executor, "inherit", copy_ids, old[: len(inherited)])
    written = stage.map(executor, "ids", write_ids, [*old[len(inherited) :], *new])
    outcomes = [*copied, *written]
    for name, outcome in zip(names, outcomes, strict=False):
        (part,) = outcome.parts["ids"]
        stage.add("earlier_ids", replace(part, path=name))
    known = _find(stage, executor, tuple(targets), len(old), sum(o.rows_in for o in outcomes))
    return [replace(source, known=known, chunk=len(old) + i) for i, source in enumerate(sources)]


def _find(
    stage: StageRun, executor: Executor, files: tuple[str, ...], earlier: int, ids: int
) -> tuple[str, ...]:
    partitions = count_partitions(ids)
    folder = stage.scratch("known")
    tasks = [
        FindTask(
            files=files,
            earlier=earlier,
            partition=i,
            partitions=partitions,
            target=storage.join(folder, f"{i:05d}.parquet"),
        )
        for i in range(partitions)
    ]
    stage.map(executor, "known", write_known, tasks)
    return tuple(task.target for task in tasks)


def copy_ids(task: IdsTask) -> Outcome:
    """Copy a file of ids; runs in a worker."""
    task.workspace.verify(task.part)
    storage.write_bytes(task.target, storage.read_bytes(task.workspace.path(task.part.path)))
    part = replace(task.part, path=task.target)
    return Outcome(rows_in=part.rows, parts={"ids": [part]})


def write_ids(task: IdsTask) -> Outcome:
    """Write the ids of one part, sorted; runs in a worker."""
    pairs = task.workspace.read(task.part, task.schema, ["pair_id"])
    part = write_keys(task.target, pairs.column("pair_id"))
    return Outcome(rows_in=part.rows, parts={"ids": [part]})


def write_known(task: FindTask) -> Outcome:
    """Write the places of new pairs that an earlier crawl has, in a range of ids; runs in a worker."""
    places = find_repeats(task.files, task.partition, task.partitions)
    is_new = places.column("chunk").to_numpy() >= task.earlier
    found = places.filter(pa.array(is_new))
    write_repeats(task.target, found)
    return Outcome(rows_in=len(found))
