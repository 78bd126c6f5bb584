from queries.candidates import CANDIDATES, candidates


def test_the_best_score_comes_first_then_the_highest_count_then_the_text() -> None:
    rows = [("b", 2, 1.0), ("a", 2, 1.0), ("c", 3, 1.0), ("d", 1, 2.0)]
    assert candidates("bigram", rows)["query"].to_pylist() == ["d", "c", "a", "b"]


def test_rows_without_figures_are_ordered_by_text() -> None:
    table = candidates("wordnet", [("b", None, None), ("a", None, None)])
    assert table["query"].to_pylist() == ["a", "b"]
    assert table["count"].null_count == 2


def test_no_rows_still_make_a_table_with_the_columns() -> None:
    assert candidates("title", []).schema == CANDIDATES
