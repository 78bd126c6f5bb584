"""Pictures of the classes that a model does worst on, for a person to look at."""

from collections.abc import Iterable, Sequence

from dedup.evaluation.evalsets import EvalSet, entries
from pipeline.pictures.contact_sheet import COLUMNS, Section, Tile, draw_sheet
from pipeline.pictures.images import Pixels, decode
from train.evaluation.metrics import by_class
from train.evaluation.results import Prediction
from train.evaluation.templates import shown

LINE = 22
"""Characters beneath a picture."""


def draw_worst(evalset: EvalSet, predictions: Sequence[Prediction], most: int) -> bytes | None:
    """Return a PNG of wrongly classified pictures of up to `most` classes, the worst first.

    Of each class those are shown whose own class is farthest down their ranks. None if nothing is wrong.
    """
    figures = by_class([p["label"] for p in predictions], [p["predicted"] for p in predictions])
    worst = [figure for figure in figures if figure["value"] < 1][:most]
    if not worst:
        return None
    chosen = {figure["label"]: _farthest(predictions, figure["label"]) for figure in worst}
    pictures = _read(evalset, (p["item"] for some in chosen.values() for p in some))
    sections = [
        Section(
            heading=(
                f"{shown(figure['label'])}: {figure['value']:.1%} of {figure['images']:,}, "
                f"most often taken for {shown(figure['taken_for'] or '')}"
            ),
            tiles=[
                Tile(
                    pictures=(pictures[p["item"]],),
                    lines=(_short(shown(p["predicted"])), _short(p["item"].rpartition("/")[2])),
                )
                for p in chosen[figure["label"]]
            ],
        )
        for figure in worst
    ]
    return draw_sheet(
        f"{evalset.name}: classes with the lowest accuracy; beneath each picture what it was taken for",
        sections,
    )


def _farthest(predictions: Sequence[Prediction], label: str) -> list[Prediction]:
    wrong = [p for p in predictions if p["label"] == label and p["rank"] > 1]
    return sorted(wrong, key=lambda p: (-p["rank"], p["item"]))[:COLUMNS]


def _read(evalset: EvalSet, items: Iterable[str]) -> dict[str, Pixels]:
    """Return the pixels of pictures that are known to be readable; what follows the last is not read."""
    wanted = set(items)
    found: dict[str, Pixels] = {}
    for entry in entries(evalset):
        if entry.item in wanted and entry.read is not None:
            found[entry.item] = decode(entry.read()).rgb
            if len(found) == len(wanted):
                break
    return found


def _short(text: str) -> str:
    return text if len(text) <= LINE else f"{text[: LINE - 1]}…"
