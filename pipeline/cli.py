"""The `witmill` command: one subcommand per stage, and those to run, watch and query a workspace."""

import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Literal

import pydantic
from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import ValidationError

import pipeline
from dedup.calibration.calibrate_command import calibrate
from dedup.evaluation.evalset_commands import app as evalsets_app
from pipeline import plan as plans
from pipeline.errors import WitmillError
from pipeline.runtime.settings import explain
from pipeline.runtime.workspace import Workspace
from pipeline.shards import commands as shards
from pipeline.stage_commands import ExecutorOption, WorkersOption, follows, stage_command
from pipeline.stages import STAGES
from pipeline.status import print_status
from queries.commands import app as queries_app
from train import commands as models
from train.evaluation.overlap_command import overlap
from train.evaluation.search_command import matrix, search
from train.index_command import index

app = App(
    name="witmill",
    help="""Rebuild the data set behind CLIP: from a web crawl to balanced, deduplicated tar shards,
    a catalogue of every pair's history, and a model trained and evaluated on them.

    Start with `witmill demo`; docs/ in the repository go on from there.""",
    help_format="markdown",
    version=pipeline.__version__,
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(queries_app)
app.command(evalsets_app)
app.command(shards.verify)
app.command(shards.reshard)
app.command(shards.remove)
app.command(index)
app.command(models.export)
app.command(overlap)
app.command(search)
app.command(matrix)

WorkspaceOption = Annotated[
    str, Parameter(name=["--workspace", "-w"], help="folder or URL that holds the run")
]


@app.command
def run(
    config: str,
    *,
    first: Annotated[str | None, Parameter(name="--from")] = None,
    last: Annotated[str | None, Parameter(name="--to")] = None,
    workspace: Annotated[str | None, Parameter(name=["--workspace", "-w"])] = None,
    workers: WorkersOption = None,
) -> int:
    """Run the stages that CONFIG describes, in order; those that are done already are skipped.

    Example: `witmill run first.toml --to balance`

    Args:
        config: TOML file with a `workspace` and a table of settings per stage.
        first: stage to begin with.
        last: stage to end with.
        workspace: in place of the file's.
        workers: in place of the file's.
    """
    tables = plans.read_tables(config)
    given = {"workspace": workspace, "workers": workers}
    tables.update({key: value for key, value in given.items() if value is not None})
    plans.run_plan(plans.make_plan(tables, source=config), first, last)
    return 0


@app.command
def status(workspace: str) -> int:
    """Show the funnel: rows in, rows out, drops by reason, rate and time per stage.

    Example: `witmill status runs/first`

    Args:
        workspace: folder or URL that holds the run.
    """
    print_status(Workspace(root=workspace))
    return 0


@app.command
def sql(
    workspace: str,
    query: str,
    *,
    format: Literal["table", "csv", "json", "parquet"] = "table",
    output: str | None = None,
) -> int:
    """Run one SQL query over the catalogue of a workspace.

    Views: pairs, matches, queries, query_counts, balance_summary, drops, history, images, duplicates, eval_overlaps,
    shards, stages and more; `SHOW TABLES` names them, docs/catalogue.md explains them.

    Example: `witmill sql runs/first "SELECT stage, reason, count(*) FROM drops GROUP BY ALL"`

    Args:
        workspace: folder or URL that holds the run.
        query: one statement of DuckDB's SQL.
        format: how to print the result; parquet needs --output.
        output: file to write instead of printing.
    """
    from pipeline.catalog import run_query

    run_query(Workspace(root=workspace), query, kind=format, output=output)
    return 0


@app.command
def catalog(workspace: str, *, output: str | None = None) -> int:
    """Write catalog.duckdb, so that plain `duckdb catalog.duckdb` shows every pair's history.

    Example: `witmill catalog runs/first`

    Args:
        workspace: folder or URL that holds the run.
        output: file to write; default: catalog.duckdb in the workspace.
    """
    from pipeline.catalog import write_catalog

    print(write_catalog(Workspace(root=workspace), output))
    return 0


@app.command
def demo(
    *,
    workspace: WorkspaceOption = "demo",
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    port: int = 8417,
) -> int:
    """Crawl a miniature web on this machine and run every stage on it, training included.

    Takes a few minutes and no network. Run again, it goes on where it stopped.

    Example: `witmill demo`

    Args:
        port: where the miniature web is served on 127.0.0.1.
    """
    from pipeline.demo import run_demo

    run_demo(plans.RunConfig(workspace=workspace, executor=executor, workers=workers), port=port)
    return 0


def _assemble() -> None:
    for stage in STAGES:
        app.command(stage_command(stage), name=stage.name)
    app["dedup"].command(calibrate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after one line about what went wrong, or 130 when stopped."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        result = app(arguments, exit_on_error=False, print_error=False)
    except (WitmillError, CycloptsError) as error:
        if debug:
            traceback.print_exc()
        print(f"witmill: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if not follows():
            print(
                "witmill: stopped; what is finished is kept, run the same command to go on",
                file=sys.stderr,
            )
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    return int(result or 0)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError) and isinstance(error.__cause__, pydantic.ValidationError):
        return "; ".join(explain(error.__cause__))
    return " ".join(str(error).split())


_assemble()
if __name__ == "__main__":
    raise SystemExit(main())
