import io

import pyarrow as pa
import pytest
from PIL import Image

from dedup.calibration.calibration_plot import FAMILIES, _curve, draw
from dedup.calibration.edits import EDITS
from pipeline import schemas


def table(*rows: tuple[str, int | None, str, int, int]) -> pa.Table:
    """Return CALIBRATION of rows of method, max_distance, edit, found of 10, false alarms of 1,000,000."""
    columns = [
        {
            "evalset": "photos",
            "against": "photos",
            "method": method,
            "edit": edit,
            "max_distance": distance,
            "min_similarity": None,
            "copies": 10,
            "found": found,
            "recall": found / 10,
            "recall_low": 0.0,
            "recall_high": 1.0,
            "unrelated": 1_000_000,
            "false_alarms": alarms,
            "per_million": float(alarms),
            "per_million_high": None,
            "edited_unrelated": 0,
            "edited_false_alarms": 0,
        }
        for method, distance, edit, found, alarms in rows
    ]
    return pa.Table.from_pylist(columns, schemas.CALIBRATION)


def test_each_edit_is_of_one_family() -> None:
    drawn = [edit for edits, _ in FAMILIES.values() for edit in edits]
    assert sorted(drawn) == sorted(EDITS)


def test_a_curve_is_the_best_mean_recall_at_each_rate() -> None:
    rows = table(
        ("pdq", 1, "crop 90%", 1, 0),
        ("pdq", 1, "crop 80%", 3, 0),
        ("pdq", 2, "crop 90%", 5, 0),
        ("pdq", 2, "crop 80%", 5, 0),
        ("pdq", 3, "crop 90%", 8, 40),
        ("pdq", 3, "crop 80%", 6, 40),
        ("pdq", 3, "flip", 10, 40),
    )
    rates, recalls = _curve(rows, ("crop 90%", "crop 80%"), 0.3)
    assert rates == [0.3, 40.0]
    assert recalls == pytest.approx([0.5, 0.7])


def test_a_plot_is_drawn_alike_every_time() -> None:
    rows = table(*(("pdq_mirrored", 31, edit, 5, 0) for edit in EDITS))
    data = draw(rows)
    with Image.open(io.BytesIO(data)) as image:
        assert image.width > 600
    assert draw(rows) == data
