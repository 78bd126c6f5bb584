"""Show what a search found: as a table, as JSON, as a contact sheet."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.pictures.contact_sheet import Section, Tile, draw_sheet
from pipeline.pictures.images import Pixels, decode
from train.evaluation.search import Hit


def print_table(found: Sequence[Hit]) -> None:
    """Print one row a hit; captions are cut to the width of the terminal."""
    table = Table(box=None, pad_edge=False, expand=True)
    for name, ratio in (("cosine", None), ("key", None), ("caption", 3), ("url", 2)):
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=ratio)
    for hit in found:
        # Captions and addresses come from the web: control characters must not reach a terminal.
        caption, url = (_printable(text) for text in (hit.caption, hit.url))
        table.add_row(f"{hit.similarity:.3f}", hit.key, Text(caption), Text(url))
    Console(highlight=False, emoji=False).print(table)


def print_lines(found: Sequence[Hit]) -> None:
    """Print one JSON object a hit."""
    for hit in found:
        fields = {name: value for name, value in asdict(hit).items() if name != "data"}
        print(json.dumps(fields))


def draw(found: Sequence[Hit], title: str, given: Pixels | None = None) -> bytes:
    """Return a PNG of the pictures, best first, each with cosine and caption; `given` comes before all."""
    tiles = [Tile(pictures=(given,), lines=("looked for", ""))] if given is not None else []
    for hit in found:
        lines = (hit.caption, f"{hit.similarity:.3f}  {hit.key}")
        tiles.append(Tile(pictures=(decode(hit.data).rgb,), lines=lines))
    return draw_sheet(f"Nearest to {title}", [Section(heading="", tiles=tiles)])


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
