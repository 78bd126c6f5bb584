import io

import numpy as np
import pytest
from PIL import Image

from pipeline.pictures.contact_sheet import GAP, MARGIN, SIDE, Section, Tile, draw_sheet

RED, BLUE = (200, 30, 30), (30, 30, 200)


def flat(colour: tuple[int, int, int], width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def sheet(*sections: Section) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw_sheet("Title", sections))))


def area(page: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int]:
    """Return width and height of what is of a colour."""
    rows, columns = np.nonzero((page == colour).all(axis=2))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


@pytest.mark.parametrize(
    ("size", "shown"),
    [((300, 150), (150, 75)), ((28, 28), (150, 150)), ((10, 1000), (2, 150)), ((1, 1), (150, 150))],
)
def test_pictures_are_fitted_into_their_tile(size: tuple[int, int], shown: tuple[int, int]) -> None:
    tile = Tile(pictures=(flat(RED, *size), flat(BLUE, 20, 20)), lines=("a", "b"))
    page = sheet(Section(heading="some", tiles=[tile]))
    assert area(page, RED) == shown
    assert area(page, BLUE) == (SIDE, SIDE)


def test_the_original_is_at_the_left_and_four_pairs_make_a_row() -> None:
    tile = Tile(pictures=(flat(RED, 50, 50), flat(BLUE, 50, 50)), lines=("a", "b"))
    page = sheet(Section(heading="some", tiles=[tile] * 5))
    reds, blues = ((page == colour).all(axis=2) for colour in (RED, BLUE))
    first = np.flatnonzero(reds.any(axis=1))[0]
    starts = [
        np.flatnonzero(np.diff(colour[first].astype(int)) == 1) + 1 for colour in (reds, blues)
    ]
    step = 2 * SIDE + GAP + MARGIN
    assert starts[0].tolist() == [MARGIN + i * step for i in range(4)]
    assert (starts[1] - starts[0]).tolist() == [SIDE + GAP] * 4
    assert reds[:, MARGIN].sum() == 2 * SIDE


def test_single_pictures_stand_eight_in_a_row() -> None:
    tile = Tile(pictures=(flat(RED, 50, 50),), lines=("a", "b"))
    reds = (sheet(Section(heading="some", tiles=[tile] * 9)) == RED).all(axis=2)
    row = reds[np.flatnonzero(reds.any(axis=1))[0]]
    starts = np.flatnonzero(np.diff(row.astype(int)) == 1) + 1
    assert starts.tolist() == [MARGIN + i * (SIDE + MARGIN) for i in range(8)]
    assert reds[:, MARGIN].sum() == 2 * SIDE


def test_a_section_without_tiles_says_so() -> None:
    full = sheet(Section(heading="none here", tiles=[]))
    assert (full < 128).any()


def test_the_same_sheet_has_the_same_bytes() -> None:
    tile = Tile(pictures=(flat(RED, 50, 50), flat(BLUE, 50, 50)), lines=("übergroß", "…"))
    section = Section(heading="some", tiles=[tile])
    assert draw_sheet("Title", [section]) == draw_sheet("Title", [section])


def test_a_text_with_line_breaks_stays_one_line() -> None:
    def drawn(text: str) -> bytes:
        tile = Tile(pictures=(flat(RED, 50, 50),), lines=(text, text))
        return draw_sheet(text, [Section(heading=text, tiles=[tile])])

    assert drawn("two\nlines\t\x1b") == drawn("two lines  ")


def test_a_heading_as_wide_as_the_page_is_cut() -> None:
    def drawn(text: str) -> bytes:
        return draw_sheet(text, [Section(heading=text, tiles=[])])

    assert drawn("wide " * 200) == drawn("wide " * 40_000)
