"""Sheets of small pictures with words beneath, for a person to look at."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from pipeline.pictures.images import Pixels

SIDE, GAP, MARGIN = 150, 6, 18
TEXT, HEADING, TITLE = 13, 16, 20
INK, GREY, PAPER = "#202124", "#5f6368", "white"

COLUMNS = 8
"""Pictures in a row of a sheet."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Pictures side by side, and two lines beneath."""

    pictures: tuple[Pixels, ...]
    lines: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Tiles under a heading."""

    heading: str
    tiles: Sequence[Tile]


def draw_sheet(title: str, sections: Sequence[Section]) -> bytes:
    """Return a PNG of tiles in rows; all tiles of a sheet are as wide as the widest."""
    together = max((len(t.pictures) for section in sections for t in section.tiles), default=1)
    columns = COLUMNS // together
    tile_width = together * (SIDE + GAP) - GAP
    width = 2 * MARGIN + columns * (tile_width + MARGIN) - MARGIN
    tile_height = SIDE + 2 * (TEXT + 5) + MARGIN
    rows = [max(1, -(-len(section.tiles) // columns)) for section in sections]
    height = (
        2 * MARGIN
        + 2 * TITLE
        + sum(
            2 * HEADING * bool(section.heading) + count * tile_height
            for section, count in zip(sections, rows, strict=True)
        )
    )
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    room = width - 2 * MARGIN
    font = ImageFont.load_default(TITLE)
    draw.text((MARGIN, MARGIN), _cut(title, room, font), INK, font)
    top = MARGIN + 2 * TITLE
    for section, count in zip(sections, rows, strict=True):
        if section.heading:
            font = ImageFont.load_default(HEADING)
            draw.text((MARGIN, top), _cut(section.heading, room, font), INK, font)
            top += 2 * HEADING
        if not section.tiles:
            draw.text((MARGIN, top), "none", GREY, ImageFont.load_default(TEXT))
        for number, tile in enumerate(section.tiles):
            row, column = divmod(number, columns)
            left = MARGIN + column * (tile_width + MARGIN)
            _draw_tile(page, draw, tile, left, top + row * tile_height)
        top += count * tile_height
    file = io.BytesIO()
    page.save(file, "png")
    return file.getvalue()


def _draw_tile(
    page: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int
) -> None:
    for number, rgb in enumerate(tile.pictures):
        picture = _fitted(rgb)
        x = left + number * (SIDE + GAP) + (SIDE - picture.width) // 2
        y = top + SIDE - picture.height
        page.paste(picture, (x, y))
        frame = (x - 1, y - 1, x + picture.width, y + picture.height)
        draw.rectangle(frame, outline="#dadce0")
    font = ImageFont.load_default(TEXT)
    room = len(tile.pictures) * (SIDE + GAP) - GAP + MARGIN - GAP
    for line, (text, ink) in enumerate(zip(tile.lines, (INK, GREY), strict=True)):
        draw.text((left, top + SIDE + 4 + line * (TEXT + 4)), _cut(text, room, font), ink, font)


def _cut(text: str, room: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return as much of a text as fits into one line of so many pixels."""
    # A line of megabytes is not measured whole.
    whole = "".join(c if c.isprintable() else " " for c in text[:201])
    shown = whole[:200]
    while shown and font.getlength(shown if shown == whole else f"{shown}…") > room:
        shown = shown[:-1]
    return shown if shown == whole else f"{shown}…"


def _fitted(rgb: Pixels) -> Image.Image:
    """Return the picture as large as a tile; one that is smaller with its pixels to be seen."""
    image = Image.fromarray(rgb)
    scale = SIDE / max(image.size)
    size = tuple(max(1, round(scale * side)) for side in image.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    return image.resize((size[0], size[1]), how)
