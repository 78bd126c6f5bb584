"""Join sources of queries the slow, obvious way."""

from typing import Any

Candidate = dict[str, Any]


def union_reference(
    sources: list[tuple[str, list[Candidate]]], *, size: int, filler: str
) -> list[Candidate] | None:
    """Return the list as rows, or None if there are too few queries.

    Args:
        sources: by priority, each with its candidates that reach the floors, best first.
    """
    merged: dict[str, Candidate] = {}
    for source, candidates in sources:
        for candidate in candidates:
            row = merged.setdefault(
                candidate["query"], {"query": candidate["query"], "sources": []}
            )
            row["sources"].append(source)
            for figure in ("count", "pmi", "views", "redirects"):
                if row.get(figure) is None:
                    row[figure] = candidate.get(figure)
    rows = list(merged.values())
    places = {source: place for place, (source, _) in enumerate(sources)}
    rows.sort(key=lambda row: places[row["sources"][0]])
    others = [row for row in rows if row["sources"] != [filler]][:size]
    fill = [row for row in rows if row["sources"] == [filler]][: size - len(others)]
    chosen = [row for row in rows if row in others or row in fill]
    if len(chosen) < size:
        return None
    return [
        {"query_id": place, "source": row["sources"][0], **row} for place, row in enumerate(chosen)
    ]


def follow_reference(redirects: dict[str, str], articles: set[str], limit: int) -> dict[str, str]:
    """Return the article that each redirect leads to in at most `limit` steps, for those that do."""
    found = {}
    for title in redirects:
        place = title
        for _ in range(limit):
            place = redirects.get(place, place)
        if place in articles:
            found[title] = place
    return found
