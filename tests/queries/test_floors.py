from pathlib import Path

import pytest

from queries.config import SourceConfig
from queries.floors import FLOORS

PAGE = Path(__file__).parents[2] / "docs/queries.md"


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_is_documented_and_its_setting_exists(name: str) -> None:
    floor = FLOORS[name]
    assert floor.setting is None or floor.setting in SourceConfig.model_fields
    setting = f"`{floor.setting}`" if floor.setting else ""
    assert f"| `{name}` | {floor.about} | {setting} |" in PAGE.read_text()
