"""Write the pages of `docs/` that come from the code: commands, settings, reasons and schemas."""

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from cyclopts import App
from rich.console import Console

from pipeline import schemas
from pipeline.cli import app
from pipeline.stages import STAGES

HELP_WIDTH = 100

_NOTE = "<!-- Made from the code by `make docs`; changes here are overwritten. -->"


def commands_page() -> str:
    """Return `--help` of every command as Markdown."""
    sections = [_NOTE, "# Commands", _help([])]
    for names in _commands(app):
        sections += [f"## witmill {' '.join(names)}", _help(names)]
    return "\n\n".join(sections) + "\n"


def _commands(group: App, *before: str) -> Iterator[list[str]]:
    """Yield the words of every command below `group` that does something by itself."""
    for name in group:
        if name.startswith("-"):
            continue
        if group[name].default_command is not None:
            yield [*before, name]
        yield from _commands(group[name], *before, name)


def settings_page() -> str:
    """Return every stage's settings and reasons for dropping a pair as Markdown."""
    sections = [
        _NOTE,
        "# Settings and reasons",
        "Each stage's settings are options of its command and keys of its table in a TOML file.",
    ]
    for stage in STAGES:
        sections.append(f"## {stage.name}")
        sections.append(stage.config.__doc__ or "")
        if stage.config.model_fields:
            rows = [
                (
                    f"`{name}`",
                    f"`{field.get_default(call_default_factory=True)!r}`",
                    field.description or "",
                )
                for name, field in stage.config.model_fields.items()
            ]
            sections.append(_table(("setting", "default", "meaning"), rows))
        if stage.reasons:
            reasons = [(f"`{reason}`", about) for reason, about in stage.reasons.items()]
            sections.append(_table(("reason", "a pair is dropped because"), reasons))
    return "\n\n".join(sections) + "\n"


def schemas_page() -> str:
    """Return every table's columns as Markdown."""
    sections = [
        _NOTE,
        "# Schemas",
        "What each Parquet file holds. Columns are never null unless marked so.",
    ]
    for title, schema in _schemas():
        rows = [
            (
                f"`{column.name}`",
                f"{column.type}" + (", nullable" if column.nullable else ""),
                (column.metadata or {}).get(b"about", b"").decode(),
            )
            for column in schema
        ]
        sections += [f"## {title}", _table(("column", "type", "meaning"), rows)]
    return "\n\n".join(sections) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "schemas.md": schemas_page,
}


def _schemas() -> list[tuple[str, pa.Schema]]:
    return [
        (f"{title} ({place})", schema)
        for title, place, schema in (
            ("PAIRS", "ingest", schemas.PAIRS),
            ("SOURCE_KEYS", "ingest/source_keys", schemas.SOURCE_KEYS),
            ("CAPTURES", "ingest/captures", schemas.CAPTURES),
            ("MATCHES", "match", schemas.MATCHES),
            ("QUERIES", "match/queries, and query lists", schemas.QUERIES),
            ("QUERY_CANDIDATES", "`witmill queries source`", schemas.QUERY_CANDIDATES),
            ("QUERY_RECORD", "LIST.candidates.parquet", schemas.QUERY_RECORD),
            ("PAGE_VIEWS", "`witmill queries pageviews`", schemas.PAGE_VIEWS),
            ("WIKIPEDIA_WORDS", "wikipedia/words", schemas.WIKIPEDIA_WORDS),
            ("WIKIPEDIA_BIGRAMS", "wikipedia/bigrams", schemas.WIKIPEDIA_BIGRAMS),
            ("WIKIPEDIA_PAGES", "wikipedia/pages", schemas.WIKIPEDIA_PAGES),
            ("LANGUAGES", "language, captions", schemas.LANGUAGES),
            ("BALANCED", "balance", schemas.BALANCED),
            ("CAP", "balance/cap", schemas.CAP),
            ("QUERY_COUNTS", "balance/query_counts, rebalance/query_counts", schemas.QUERY_COUNTS),
            ("BALANCE_SUMMARY", "balance/summary, rebalance/summary", schemas.BALANCE_SUMMARY),
            (
                "QUERY_DISTRIBUTION",
                "balance/distribution, rebalance/distribution",
                schemas.QUERY_DISTRIBUTION,
            ),
            ("ROBOTS", "while download reads them", schemas.ROBOTS),
            ("DOWNLOADED", "download, dedup, rebalance", schemas.DOWNLOADED),
            ("HOST_ANSWERS", "download/hosts", schemas.HOST_ANSWERS),
            ("WORST_HOSTS", "download/worst_hosts", schemas.WORST_HOSTS),
            ("DUPLICATES", "dedup/duplicates", schemas.DUPLICATES),
            ("EVAL_OVERLAPS", "dedup/eval_overlaps", schemas.EVAL_OVERLAPS),
            ("EMBEDDINGS", "dedup/embeddings", schemas.EMBEDDINGS),
            ("EVALUATION_PICTURES", "SETS.index/NAME", schemas.EVALUATION_PICTURES),
            ("CALIBRATION", "`witmill dedup calibrate`", schemas.CALIBRATION),
            ("SHARD_INDEX", "shard", schemas.SHARD_INDEX),
            ("SHARDS", "shard/shards", schemas.SHARDS),
            ("REMOVED", "shard/removed", schemas.REMOVED),
            ("REMOVALS", "removals, what `witmill remove` was given", schemas.REMOVALS),
            ("TRAINING_STEPS", "train", schemas.TRAINING_STEPS),
            ("TRAINING_EVALUATIONS", "train/evaluations", schemas.TRAINING_EVALUATIONS),
            ("EVALUATIONS", "evaluate", schemas.EVALUATIONS),
            ("PREDICTIONS", "evaluate/predictions", schemas.PREDICTIONS),
            ("CLASS_RESULTS", "evaluate/classes", schemas.CLASS_RESULTS),
            ("CONFUSIONS", "evaluate/confusions", schemas.CONFUSIONS),
            ("OVERLAP_ACCURACY", "`witmill overlap`", schemas.OVERLAP_ACCURACY),
            ("DROPS", "STAGE/drops", schemas.DROPS),
        )
    ]


def _help(tokens: list[str]) -> str:
    page = io.StringIO()
    app.help_print(tokens, console=Console(file=page, width=HELP_WIDTH, color_system=None))
    lines = [line.rstrip() for line in page.getvalue().strip().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def _table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )


def main(folder: Path) -> None:
    """Write every page into `folder`."""
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
