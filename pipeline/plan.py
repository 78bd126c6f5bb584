"""One TOML file for a whole run: general settings, then one table per stage.

workspace = "runs/first"
workers = 8

[ingest]
inputs = ["crawl/*.warc.gz"]

[balance]
cap = 20000
"""

import tomllib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.executor import make_executor
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.progress import say
from pipeline.runtime.settings import Settings, read_settings
from pipeline.runtime.workspace import Workspace
from pipeline.stages import BY_NAME, STAGES, Stage


class RunConfig(Settings):
    """Where a run's files go and what works on them."""

    workspace: str = ""
    """folder or object-store prefix that holds everything the run makes"""
    executor: Literal["local", "ray"] = "local"
    """where tasks run: processes on this machine, or a Ray cluster"""
    workers: int | None = Field(None, ge=0)
    """processes, or tasks in flight on Ray; default: one per core; 0: in this process"""
    drops: Literal["all", "sample"] = "all"
    """keep every dropped row, or 100 a reason and part beside the counts"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked run: general settings and each stage's config, by stage name."""

    general: RunConfig
    stages: Mapping[str, Settings]


def read_tables(path: str) -> dict[str, Any]:
    """Return the content of the TOML file at `path`.

    Raises:
        StorageError: if it cannot be read.
        ConfigError: if it is no TOML.
    """
    try:
        return tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from error


def read_plan(path: str) -> Plan:
    """Return the plan in the TOML file at `path`, every key checked.

    Raises:
        ConfigError: naming the file and every wrong key, what it is and what was expected.
    """
    return make_plan(read_tables(path), source=path)


def make_plan(tables: Mapping[str, Any], *, source: str) -> Plan:
    """Return the plan in `tables`, the content of a TOML file.

    Raises:
        ConfigError: naming `source` and every wrong key.
    """
    problems: list[str] = []
    general = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    chosen = {key: value for key, value in tables.items() if isinstance(value, dict)}
    configs: dict[str, Settings] = {}
    for name in sorted(chosen.keys() - BY_NAME.keys()):
        problems.append(f"[{name}] is no stage, expected one of: {', '.join(BY_NAME)}")
    for stage in STAGES:
        try:
            configs[stage.name] = read_settings(
                stage.config, chosen.get(stage.name, {}), where=stage.name
            )
        except ConfigError as error:
            problems.append(str(error))
    run = RunConfig()
    try:
        run = read_settings(RunConfig, general, where="run")
    except ConfigError as error:
        problems.append(str(error).replace("run.", ""))
    if problems:
        raise ConfigError(f"{source}: {'; '.join(problems)}")
    return Plan(general=run, stages=configs)


def select_stages(first: str | None, last: str | None) -> tuple[Stage, ...]:
    """Return the stages from `first` to `last`, both included; None for the ends.

    Raises:
        ConfigError: if a name is unknown or they stand in the wrong order.
    """
    names = [stage.name for stage in STAGES]
    for option, name in (("--from", first), ("--to", last)):
        if name is not None and name not in names:
            raise ConfigError(f"{option} is {name!r}, expected one of: {', '.join(names)}")
    begin = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    if begin >= end:
        raise ConfigError(f"--from {first} comes after --to {last}; swap them")
    return STAGES[begin:end]


def run_plan(plan: Plan, first: str | None = None, last: str | None = None) -> list[Manifest]:
    """Run the stages from `first` to `last` and return their manifests; stages that are done are skipped.

    Raises:
        WitmillError: from the first stage that fails; running again goes on from there.
    """
    stages = select_stages(first, last)
    if not plan.general.workspace:
        raise ConfigError(
            "workspace is missing, expected a folder or a URL such as s3://bucket/run"
        )
    # Both are said before hours of work instead of after them.
    for stage in stages:
        stage.require_extra()
    if stages[-1].name == "evaluate" and not plan.stages["evaluate"].model_dump()["evalsets"]:
        raise ConfigError(
            "evaluate.evalsets is empty, expected a TOML file that names evaluation sets; "
            "or end the run with --to train"
        )
    workspace = Workspace(root=plan.general.workspace, drops=plan.general.drops)
    for stage in STAGES[: STAGES.index(stages[0])]:
        _say_if_other(plan.stages[stage.name], workspace.manifest(stage.name))
    with (
        workspace.locked(),
        closing(make_executor(plan.general.executor, workers=plan.general.workers)) as executor,
    ):
        return [stage.run(plan.stages[stage.name], workspace, executor) for stage in stages]


def _say_if_other(settings: Settings, manifest: Manifest | None) -> None:
    if manifest is None:
        return
    now = settings.model_dump(mode="json")
    other = sorted(name for name in now if now[name] != manifest.settings.get(name))
    if other:
        say(
            f"{manifest.stage:<10} is left as it was run, with other settings than the file's: "
            f"{', '.join(other)}"
        )
