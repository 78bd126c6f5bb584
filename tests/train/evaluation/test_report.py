import re
from html.parser import HTMLParser
from typing import Any

import pytest

from train.evaluation.report import render

PNG = b"\x89PNG picture"


def row(metric: str, value: float, low: float | None = None, variant: str = "") -> dict[str, Any]:
    high = None if low is None else 2 * value - low
    return {
        "variant": variant,
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "chance": 0.1,
        "images": 12_345,
        "classes": 10,
    }


def results(*heads: dict[str, Any], name: str = "digits") -> dict[str, Any]:
    model = {
        "path": "W/<model>.pt",
        "sha256": "0f" * 32,
        "parameters": 3_737_569,
        "resolution": 28,
        "embedding": 64,
    }
    return {"model": model, "sets": [{"evalset": name, "heads": list(heads)}]}


def head(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"head": "zero_shot", "rows": list(rows), "notes": {}, **more}


def page(found: dict[str, Any]) -> str:
    return render(found, lambda name: PNG + name.encode())


class Tags(HTMLParser):
    """Collects the attributes of the elements that load something, and checks that all are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_numbers_stand_in_the_page() -> None:
    text = page(results(head(row("top1", 0.6123, 0.6))))
    assert "61.23%" in text
    assert "60.00% – 62.46%" in text
    assert "12,345" in text


def test_every_element_is_closed_and_nothing_is_loaded_from_elsewhere() -> None:
    found = results(
        head(
            row("top1", 0.5, 0.4),
            files=["files/worst.png", "files/data.csv"],
            worst_classes=[
                {"label": "a", "value": 0.1, "images": 3, "taken_for": None, "taken_for_images": 0}
            ],
            confusions=[{"label": "a", "predicted": "b", "images": 2, "share": 0.5}],
        )
    )
    tags = Tags()
    tags.feed(page(found))
    assert tags.open == []
    assert len(tags.sources) == 2
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in tags.sources)
    assert "url(" not in page(found)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '" onload="x', "a & b", "{{ 7*7 }}"])
def test_names_from_anywhere_are_text(name: str) -> None:
    confusion = {"label": name, "predicted": name, "images": 2, "share": 0.5}
    text = page(
        results(head(row("top1", 0.5), confusions=[confusion], notes={name: name}), name=name)
    )
    assert "<script" not in text
    assert ' onload="' not in text
    assert "49" not in re.sub(r"base64,\S+", "", text).partition("<body>")[2]


def test_the_overview_leaves_single_corruptions_to_their_set() -> None:
    rows = [row("top1", 0.5, variant="corrupted"), row("top5", 0.9)]
    rows += [row("top1", 0.25, variant=variant) for variant in ("blur/3", "blur")]
    rows += [row("drop", 0.1, variant="blur")]
    overview = page(results({**head(*rows), "head": "robustness"})).partition("<h2 id=")[0]
    assert "50.00%" in overview
    assert "25.00%" not in overview
    assert "90.00%" not in overview


@pytest.mark.parametrize("value", [-0.3, 0.0, 1.0])
def test_values_at_and_beyond_the_ends_have_no_dot_outside(value: float) -> None:
    text = page(results(head(row("drop", value))))
    dots = [float(at) for at in re.findall(r'<b style="left:([-\d.]+)%"', text)]
    assert dots == ([100 * value] if value >= 0 else [])


def test_a_long_table_is_folded() -> None:
    assert "<details>" not in page(results(head(*[row("top1", 0.5)] * 24)))
    assert "25 rows" in page(results(head(*[row("top1", 0.5)] * 25)))


def test_a_picture_is_inside_the_page() -> None:
    import base64

    text = page(results(head(row("top1", 0.5), files=["files/worst.png"])))
    assert base64.b64encode(PNG + b"files/worst.png").decode() in text


def test_corruptions_stand_in_a_table_by_severity() -> None:
    rows = [
        row("top1", value, variant=variant)
        for variant, value in (
            ("clean", 0.9),
            ("fog/1", 0.8),
            ("fog/5", 0.4),
            ("fog", 0.6),
            ("corrupted/1", 0.8),
            ("corrupted/5", 0.4),
            ("corrupted", 0.6),
        )
    ]
    rows += [row("drop", 0.3, variant=variant) for variant in ("fog", "corrupted")]
    text = page(results({**head(*rows), "head": "robustness"}))
    heading = "".join(
        f'<th class="number">{cell}</th>'
        for cell in ("severity 1", "severity 5", "mean", "drop, points")
    )
    cells = "".join(
        f'<td class="number">{cell}</td>' for cell in ("80.0%", "40.0%", "60.0%", "30.0")
    )
    assert f"<tr><th>corruption</th>{heading}</tr>" in text
    assert f"<tr><td>fog</td>{cells}</tr>" in text
    overview = text.partition("<h2 id=")[0]
    assert "digits · robustness · corrupted" in overview
    assert "fog" not in overview
