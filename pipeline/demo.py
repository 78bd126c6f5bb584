"""The whole pipeline on the miniature web of `examples/web`: crawl, curate, train, evaluate."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import plan as plans
from pipeline.catalog import write_catalog
from pipeline.crawl import crawl
from pipeline.errors import InputError
from pipeline.miniature_web import MiniatureWeb, serve
from pipeline.runtime import storage
from pipeline.runtime.progress import say
from pipeline.runtime.workspace import Workspace
from pipeline.status import print_evaluations, print_status

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "web"
# The day the miniature web stands still at, so that every crawl of it gives the same bytes.
CRAWL_DATE = "2026-01-31T00:00:00Z"
CRAWL_FILES = 4


def run_demo(general: plans.RunConfig, *, port: int) -> None:
    """Serve the miniature web, crawl it, run every stage and print what came of it.

    Raises:
        InputError: if the example is not there, as in an installation without the repository.
        WitmillError: from the first stage that fails.
    """
    example = EXAMPLE
    if not (example / "demo.toml").is_file():
        raise InputError(
            f"the miniature web is not at {example}; run the demo in a clone of the repository"
        )
    begun = time.monotonic()
    space = Workspace(root=general.workspace)
    with serve(example, port) as web:
        archive = crawl_once(space, web)
        plan = plans.make_plan(demo_tables(example, archive), source=str(example / "demo.toml"))
        plans.run_plan(replace(plan, general=general))
    catalogue = write_catalog(space)
    _print_results(space, catalogue, archive, time.monotonic() - begun)


def demo_tables(example: Path, archive: str) -> dict[str, Any]:
    """Return the settings of `demo.toml` with the paths of this run put in."""
    tables = plans.read_tables(str(example / "demo.toml"))
    evalsets = str(example / "evalsets.toml")
    tables["ingest"] = {**tables.get("ingest", {}), "inputs": [archive]}
    tables["dedup"] = {**tables.get("dedup", {}), "evalsets": evalsets}
    tables["evaluate"] = {**tables.get("evaluate", {}), "evalsets": evalsets}
    return tables


def crawl_once(workspace: Workspace, web: MiniatureWeb) -> str:
    """Crawl the running miniature web, unless it was before; return the folder of the WARC files."""
    folder = workspace.path("crawl", f"port-{web.port}")
    archives = [f"{folder}/web-{i:05d}.warc.gz" for i in range(CRAWL_FILES)]
    if all(Path(archive).exists() for archive in archives):
        say(f"crawl      is done: {folder}")
        return folder
    workspace.prepare()
    for unfinished in storage.list_unfinished(folder):
        storage.remove(unfinished)
    report = crawl([web.seed], hosts=web.hosts, outputs=archives, date=CRAWL_DATE)
    say(f"crawl      {report.pages:,} pages, {report.bytes:,} bytes: {folder}")
    return folder


def _print_results(workspace: Workspace, catalogue: str, archive: str, seconds: float) -> None:
    print_status(workspace)
    console = Console(highlight=False)
    console.print()
    print_evaluations(workspace)
    places = Table(
        title=f"made in {seconds:,.0f} s", title_justify="left", box=None, pad_edge=False
    )
    places.add_column("what")
    places.add_column("where", overflow="fold")
    for what, where in (
        ("crawl", archive),
        ("shards", workspace.path("shard", "*.tar")),
        ("model", workspace.path("train", "model.pt")),
        ("catalogue", catalogue),
    ):
        places.add_row(what, where)
    console.print()
    console.print(places)
    console.print(
        f'\nAsk it something: witmill sql {workspace.root} "SELECT stage, reason, count(*) AS pairs '
        'FROM drops GROUP BY ALL ORDER BY pairs DESC"',
        soft_wrap=True,
    )
