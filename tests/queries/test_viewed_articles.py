from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from queries.redirects import LONGEST_CHAIN
from queries.viewed_articles import write_views
from tests.reference.query_union import follow_reference

TITLES = [f"{letter} (x)" for letter in "ABCDEF"]
PAGES = st.dictionaries(st.sampled_from(TITLES), st.none() | st.sampled_from([*TITLES, "Gone"]))
HOURS = st.lists(st.dictionaries(st.sampled_from([*TITLES, "Typo"]), st.integers(1, 9)), min_size=1, max_size=3)  # fmt: skip


def written(
    folder: Path, hours: list[dict[str, int]], pages: dict[str, str | None] | None
) -> tuple[dict[str, int], Counter[str]]:
    parts = []
    for place, hour in enumerate(hours):
        rows = [{"title": title, "views": views} for title, views in hour.items()]
        parts.append(str(folder / f"{place}.parquet"))
        pq.write_table(pa.Table.from_pylist(rows, schemas.PAGE_VIEWS), parts[-1])
    files = None
    if pages is not None:
        known = [
            {"title": title, "redirect_to": target, "disambiguation": False}
            for title, target in pages.items()
        ]
        files = [str(folder / "pages.parquet")]
        pq.write_table(pa.Table.from_pylist(known, schemas.WIKIPEDIA_PAGES), files[0])
    counters: Counter[str] = Counter()
    output = str(folder / "views.parquet")
    figures = write_views(parts, files, output, counters)
    table = schemas.check(pq.read_table(output), schemas.PAGE_VIEWS, source=output)
    views = dict(zip(table["title"].to_pylist(), table["views"].to_pylist(), strict=True))
    assert figures == (len(views), sum(views.values()))
    assert list(views) == sorted(views, key=lambda title: (-views[title], title))
    return views, counters


@given(HOURS, PAGES)
def test_views_go_to_the_articles_that_titles_lead_to(
    tmp_path_factory: pytest.TempPathFactory,
    hours: list[dict[str, int]],
    pages: dict[str, str | None],
) -> None:
    redirects = {title: target for title, target in pages.items() if target is not None}
    articles = {title for title, target in pages.items() if target is None}
    leads = follow_reference(redirects, articles, LONGEST_CHAIN)
    expected: Counter[str] = Counter()
    for hour in hours:
        for title, views in hour.items():
            article = leads.get(title, title)
            if article in articles:
                expected[article] += views
    folder = tmp_path_factory.mktemp("views")
    if expected:
        found, counters = written(folder, hours, pages)
        assert found == expected
        seen = {title for hour in hours for title in hour}
        assert counters["unknown"] == len(seen - pages.keys())
        assert counters["redirects"] == len(seen & leads.keys())
        assert counters["lost_redirects"] == len(seen & (redirects.keys() - leads.keys()))


def test_without_pages_every_title_keeps_its_views(tmp_path: Path) -> None:
    found, counters = written(tmp_path, [{"Dog": 5, "Typo": 1}, {"Dog": 2}], None)
    assert found == {"Dog": 7, "Typo": 1}
    assert counters == {}
