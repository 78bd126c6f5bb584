"""The funnel of a workspace: what each stage read, kept and dropped, and why."""

from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline import schemas
from pipeline.runtime.manifest import MAIN, Manifest
from pipeline.runtime.workspace import Workspace
from pipeline.stages import STAGES


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """One line of the funnel; `state` is "done", "out of date" or "not run"."""

    name: str
    state: str
    manifest: Manifest | None


def read_status(workspace: Workspace) -> list[StageStatus]:
    """Return every stage's state, in flow order.

    Raises:
        InputError: if there is no workspace.
    """
    workspace.require()
    found = []
    for stage in STAGES:
        manifest = workspace.manifest(stage.name)
        state = "not run"
        if manifest is not None:
            state = "out of date" if workspace.out_of_date(stage.name) else "done"
        found.append(StageStatus(name=stage.name, state=state, manifest=manifest))
    return found


def render(statuses: list[StageStatus], root: str) -> RenderableType:
    """Return the funnel as a table, with each stage's drops below its line."""
    table = Table(
        title=f"{root}", title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    table.add_column("stage")
    for heading in ("rows in", "rows out", "kept", "rows/s", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("dropped", overflow="fold")
    for status in statuses:
        if status.manifest is None:
            table.add_row(
                Text(status.name, "dim"), *[Text("-", "dim")] * 5, Text(status.state, "dim")
            )
            continue
        table.add_row(*_cells(status, status.manifest))
    late = [status.name for status in statuses if status.state == "out of date"]
    if not late:
        return table
    note = f"out of date, run again: {', '.join(late)}"
    return Group(table, Text(note, "yellow"))


def _cells(status: StageStatus, manifest: Manifest) -> list[str]:
    kept = f"{manifest.rows_out / manifest.rows_in:.1%}" if manifest.rows_in else "-"
    rate = manifest.rows_in / manifest.wall_seconds if manifest.wall_seconds else 0.0
    drops = sorted(manifest.drops.items(), key=lambda item: (-item[1], item[0]))
    return [
        status.name,
        f"{manifest.rows_in:,}",
        f"{manifest.rows_out:,}",
        kept,
        f"{rate:,.0f}",
        f"{manifest.wall_seconds:,.1f}",
        ", ".join(f"{reason} {count:,}" for reason, count in drops),
    ]


def print_status(workspace: Workspace) -> None:
    """Print the funnel of `workspace` to standard output."""
    Console(highlight=False).print(render(read_status(workspace), workspace.root))


def print_evaluations(workspace: Workspace) -> None:
    """Print the results of a finished evaluation to standard output, chance beside each figure."""
    table = Table(title="zero-shot evaluation", title_justify="left", box=None, pad_edge=False)
    for heading in ("set", "metric"):
        table.add_column(heading)
    for heading in ("value", "95% interval", "chance", "images", "classes"):
        table.add_column(heading, justify="right")
    for row in workspace.read_table("evaluate", MAIN, schemas.EVALUATIONS).to_pylist():
        interval = "" if row["low"] is None else f"{row['low']:.1%} to {row['high']:.1%}"
        table.add_row(
            row["evalset"],
            row["metric"],
            f"{row['value']:.1%}",
            interval,
            f"{row['chance']:.1%}",
            f"{row['images']:,}",
            f"{row['classes']:,}",
        )
    Console(highlight=False).print(table)
