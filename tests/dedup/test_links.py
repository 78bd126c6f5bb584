import pyarrow as pa

from dedup.links import LINKS, METHODS, ROUNDS, follow


def links(*rows: tuple[int, int, str, int]) -> pa.Table:
    """Return links given as place, target, method and distance; ids are the target's digits."""
    return pa.Table.from_pylist(
        [
            {
                "place": place,
                "target": target,
                "duplicate_of": str(target),
                "method": METHODS.index(method),
                "distance": distance,
            }
            for place, target, method, distance in rows
        ],
        LINKS,
    )


def followed(table: pa.Table) -> list[tuple[int, int, str, str, int]]:
    for _ in range(ROUNDS):
        table = follow(table, table)
    return [
        (r["place"], r["target"], r["duplicate_of"], METHODS[r["method"]], r["distance"])
        for r in table.to_pylist()
    ]


def test_the_longest_chain_ends_at_the_pair_that_stays() -> None:
    chain = links(
        (1, 2, "same_url", 0),
        (2, 3, "same_bytes", 0),
        (3, 4, "same_pixels", 0),
        (4, 5, "near_duplicate", 9),
    )
    assert followed(chain) == [
        (1, 5, "5", "same_url", 0),
        (2, 5, "5", "near_duplicate", 9),
        (3, 5, "5", "near_duplicate", 9),
        (4, 5, "5", "near_duplicate", 9),
    ]


def test_a_chain_is_what_its_loosest_link_is() -> None:
    chain = links((3, 2, "same_bytes", 0), (2, 1, "same_pixels", 0), (9, 8, "same_bytes", 0))
    assert followed(chain) == [
        (3, 1, "1", "same_pixels", 0),
        (2, 1, "1", "same_pixels", 0),
        (9, 8, "8", "same_bytes", 0),
    ]


def test_no_links_lead_nowhere() -> None:
    assert followed(links()) == []
