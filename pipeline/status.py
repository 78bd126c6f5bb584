"""The funnel of a workspace: what each stage read, kept and dropped, and why."""

import shutil
import textwrap
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline import schemas
from pipeline.runtime.manifest import MAIN, Manifest
from pipeline.runtime.run_folder import started_before
from pipeline.runtime.workspace import Workspace
from pipeline.stages import STAGES
from train.evaluation.overview import stands_out, variant_in_words

SHOWN_HOSTS = 5


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """One line of the funnel; `notes` come below.

    `state` is "done", "out of date", "unfinished" (at work, or interrupted) or "not run".
    """

    name: str
    state: str
    manifest: Manifest | None
    notes: tuple[str, ...] = ()


def read_status(workspace: Workspace) -> list[StageStatus]:
    """Return every stage's state, in flow order.

    Raises:
        InputError: if there is no workspace.
    """
    workspace.require()
    manifests = workspace.manifests(stage.name for stage in STAGES)
    late = workspace.out_of_date(manifests)
    found = []
    for name, manifest in manifests.items():
        if manifest is None:
            state = "not run" if started_before(workspace, name) is None else "unfinished"
        else:
            state = "out of date" if name in late else "done"
        notes = _hosts(workspace, manifest) if name == "download" and manifest else ()
        found.append(StageStatus(name=name, state=state, manifest=manifest, notes=notes))
    return found


def render(statuses: list[StageStatus], root: str) -> RenderableType:
    """Return the funnel: a line per stage, and below it why it dropped what it dropped."""
    headings = ("rows in", "rows out", "kept", "rows/s", "seconds")
    lines: list[RenderableType] = [
        Text(root, "bold"),
        Text(f"{'stage':<12}" + "".join(f"{heading:>11}" for heading in headings), "bold"),
    ]
    for status in statuses:
        if status.manifest is None:
            lines.append(Text(f"{status.name:<12}{status.state:>11}", "dim"))
            continue
        cells = _cells(status.manifest)
        name = status.name + (" *" if status.state == "out of date" else "")
        lines.append(Text(f"{name:<12}" + "".join(f"{cell:>11}" for cell in cells)))
        below = [*_reasons(status.manifest), *status.notes]
        lines += [Text(f"    {line}", "dim") for line in below]
    late = [status.name for status in statuses if status.state == "out of date"]
    if late:
        lines.append(Text(f"* out of date, run again: {', '.join(late)}", "yellow"))
    return Group(*lines)


def _hosts(workspace: Workspace, manifest: Manifest) -> tuple[str, ...]:
    asked = int(manifest.counters.get("hosts", 0))
    if not asked:
        return ()
    answered = int(manifest.counters.get("hosts_answered", 0))
    line = f"{answered:,} of {asked:,} hosts answered ({answered / asked:.1%})"
    worst = [
        f"{row['host']} {row['lost']:,} of {row['pairs']:,} ({row['reason']})"
        for part in manifest.tables.get("worst_hosts", [])
        for row in workspace.read(part, schemas.WORST_HOSTS).slice(0, SHOWN_HOSTS).to_pylist()
    ]
    return (line, f"most pairs lost at {', '.join(worst)}") if worst else (line,)


def _cells(manifest: Manifest) -> list[str]:
    kept = f"{manifest.rows_out / manifest.rows_in:.1%}" if manifest.rows_in else "-"
    # The time of a run that others had prepared, or of a revision, says nothing about the rate.
    is_whole = manifest.wall_seconds and not manifest.resumed_tasks and not manifest.revision
    rate = f"{manifest.rows_in / manifest.wall_seconds:,.0f}" if is_whole else "-"
    return [
        f"{manifest.rows_in:,}",
        f"{manifest.rows_out:,}",
        kept,
        rate,
        f"{manifest.wall_seconds:,.1f}",
    ]


def _reasons(manifest: Manifest) -> list[str]:
    drops = sorted(manifest.drops.items(), key=lambda item: (-item[1], item[0]))
    # A no-break space keeps a reason and its count on one line while lines are broken.
    text = ", ".join(f"{reason}\N{NO-BREAK SPACE}{count:,}" for reason, count in drops)
    width = shutil.get_terminal_size().columns - 6
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(text, max(width, 40))]


def print_status(workspace: Workspace) -> None:
    """Print the funnel of `workspace` to standard output."""
    Console(highlight=False).print(render(read_status(workspace), workspace.root))


def print_evaluations(workspace: Workspace) -> None:
    """Print the results of a finished evaluation to standard output, chance beside each figure.

    Of robustness, the clean pictures and the mean of all corruptions alone.
    """
    table = Table(title="evaluation", title_justify="left", box=None, pad_edge=False)
    table.add_column("set", no_wrap=True)
    table.add_column("measured")
    for heading, width in (("value", 6), ("95% interval", 12), ("chance", 6), ("pictures", 8)):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    shown = ""
    for row in workspace.read_table("evaluate", MAIN, schemas.EVALUATIONS).to_pylist():
        if not stands_out(row["head"], row["variant"]):
            continue
        interval = "" if row["low"] is None else f"{100 * row['low']:.1f}-{row['high']:.1%}"
        variant = variant_in_words(row["head"], row["variant"])
        table.add_row(
            Text(row["evalset"] if row["evalset"] != shown else ""),
            Text(" ".join(filter(None, (row["head"], variant, row["metric"])))),
            f"{row['value']:.1%}",
            interval,
            f"{row['chance']:.1%}",
            f"{row['images']:,}",
        )
        shown = row["evalset"]
    Console(highlight=False).print(table)
