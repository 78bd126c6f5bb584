"""The cosines of pictures and captions as a picture, as CLIP's authors and others show them.

P: pictures, C: captions.
"""

import io
import textwrap
import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from pipeline.pictures.images import Pixels

WIDE = 42
"""Characters of a line of a caption."""

_CELL = 1.15
_TEXT = 4.2
_FONTS = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
)


def draw_matrix(
    cosines_CP: npt.NDArray[np.float32],
    captions: Sequence[str],
    pictures: Sequence[Pixels],
) -> bytes:
    """Return a PNG: a cell for each caption and picture, the pictures above their columns.

    Args:
        cosines_CP: one row a caption, one column a picture; -1 to 1.
    """
    fonts = [name for name in _FONTS if name in get_font_names()]
    width, height = _TEXT + _CELL * len(pictures), _CELL * (len(captions) + 1) + 0.3
    # A caption in an alphabet that no font here has is drawn as boxes; the numbers are what counts.
    with matplotlib.rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        figure = Figure(figsize=(width, height), dpi=110)
        left, bottom = _TEXT / width, 0.15 / height
        axes = figure.add_axes(
            (left, bottom, 1 - left - 0.1 / width, _CELL * len(captions) / height)
        )
        axes.imshow(cosines_CP, cmap="viridis", aspect="auto")
        middle = (cosines_CP.max() + cosines_CP.min()) / 2
        for (row, column), cosine in np.ndenumerate(cosines_CP):
            ink = "black" if cosine > middle else "white"
            axes.text(column, row, f"{cosine:.2f}", ha="center", va="center", color=ink, size=13)
        axes.set_xticks([])
        axes.set_yticks(range(len(captions)), [_wrapped(caption) for caption in captions])
        axes.tick_params(length=0)
        axes.set_frame_on(False)
        across = (1 - left - 0.1 / width) / len(pictures)
        for column, picture in enumerate(pictures):
            place = (
                left + across * column + across * 0.03,
                bottom + _CELL * len(captions) / height + 0.05 / height,
                across * 0.94,
                _CELL * 0.94 / height,
            )
            above = figure.add_axes(place)
            above.imshow(picture)
            above.set_axis_off()
        file = io.BytesIO()
        figure.savefig(file, format="png")
    return file.getvalue()


def _wrapped(caption: str) -> str:
    # matplotlib reads what stands between two dollars as mathematics.
    lines = textwrap.wrap(caption, WIDE, max_lines=4, placeholder=" …") or [""]
    return "\n".join(lines).replace("$", r"\$")
