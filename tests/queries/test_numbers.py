from queries.numbers import number_queries


def test_numbers_count_up_from_nothing() -> None:
    table = number_queries(12)
    assert table["query"].to_pylist() == [str(n) for n in range(12)]
    assert set(table["source"].to_pylist()) == {"number"}
