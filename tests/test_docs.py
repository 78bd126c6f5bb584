"""The documentation says what the code does."""

import re
from pathlib import Path

import pytest

from pipeline import reference
from pipeline.catalog import query_table
from pipeline.runtime.workspace import Workspace
from pipeline.stages import STAGES

DOCS = Path(__file__).parent.parent / "docs"
QUERIES = re.findall(r"```sql\n(.*?)```", (DOCS / "catalogue.md").read_text(), re.DOTALL)


def test_the_catalogue_page_has_ten_queries() -> None:
    assert len(QUERIES) == 10


@pytest.mark.parametrize("query", QUERIES)
def test_a_documented_query_runs_on_an_empty_workspace(query: str, workspace: Workspace) -> None:
    workspace.prepare()
    assert query_table(workspace, query).num_columns > 0


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_a_page_made_from_the_code_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == reference.PAGES[name](), "run `make docs`"


def test_the_help_of_every_command_has_an_example() -> None:
    sections = reference.commands_page().split("## witmill ")[1:]
    titles = {section.splitlines()[0] for section in sections}
    assert titles > {stage.name for stage in STAGES} | {"dedup calibrate", "queries build"}
    assert [s.splitlines()[0] for s in sections if "Example: witmill" not in s] == []


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_setting_and_reason_is_explained(stage) -> None:  # type: ignore[no-untyped-def]
    for name, setting in stage.config.model_fields.items():
        assert setting.description, f"{stage.name}.{name} has no docstring"
    for reason, about in stage.reasons.items():
        assert about, f"{reason} has no meaning"
