import gzip
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.evaluation.decontaminate import FOUND
from dedup.evaluation.evalset_index import make_index
from dedup.evaluation.evalsets import EvalSet, entries
from dedup.evaluation.text_overlap import (
    CaptionIndex,
    find_caption_overlaps,
    hash_runs,
    index_captions,
    load_captions,
)
from pipeline.runtime.executor import InlineExecutor
from tests.reference.caption_overlap import overlaps

LONG = "A man in a red shirt rides a wave on top of a surfboard."


def index(*captions: str, least: float = 0.7) -> CaptionIndex:
    rows = [
        {"evalset": "c", "split": "test", "item": str(i), "captions": [caption]}
        for i, caption in enumerate(captions)
    ]
    schema = pa.schema(
        [
            *((n, pa.string()) for n in ("evalset", "split", "item")),
            ("captions", pa.list_(pa.string())),
        ]
    )
    return index_captions(pa.Table.from_pylist(rows, schema), {"c": least})


def found(corpus: list[str | None], evaluation: CaptionIndex) -> dict[tuple[int, int], float]:
    table = find_caption_overlaps(pa.chunked_array([pa.array(corpus, pa.string())]), evaluation)
    assert table.schema == FOUND
    return {(r["row"], int(r["item"])): r["distance"] for r in table.to_pylist()}


@pytest.mark.parametrize(
    "caption",
    [
        LONG,
        LONG.upper(),
        "a man, in a red shirt -- rides a wave on top of a surfboard",
        f"Photo 12: {LONG} (stock photo, Hawaii)",
        "A man in a red shirt rides a wave on top of a ｓｕｒｆｂｏａｒｄ",
    ],
)
def test_a_caption_is_found_however_it_is_dressed(caption: str) -> None:
    assert found([caption], index(LONG)) == {(0, 0): 0}


@pytest.mark.parametrize(
    ("caption", "is_found"),
    [
        ("A man in a red shirt rides a wave on top of a board.", True),
        ("A man in a red shirt rides a wave on top of a", True),
        ("A man in a red shirt happily rides a wave on top of a surfboard.", True),
        ("A man in a blue shirt rides a wave on top of a surfboard.", False),
        ("A man in a red shirt rides a wave.", False),
    ],
)
def test_a_share_of_the_runs_is_enough(caption: str, is_found: bool) -> None:
    assert bool(found([caption], index(LONG))) is is_found


def test_short_captions_must_be_equal_as_a_whole() -> None:
    evaluation = index("A dog on the beach.", "Two dogs.", "one two three four")
    corpus: list[str | None] = [
        "a dog on the beach", "a dog on the beach today", "on the beach", "two dogs", None, "",
        "one two three four five six seven eight",
    ]  # fmt: skip
    assert found(corpus, evaluation) == {(0, 0): 0}


def test_a_short_caption_may_be_most_of_a_longer_one() -> None:
    eight = "one two three four five six seven eight"
    assert found([eight[:-6], eight], index(eight)) == {(0, 0): pytest.approx(0.2), (1, 0): 0}


def test_repeated_runs_count_once() -> None:
    once = "a b c d"
    evaluation = index(f"{once} e f g h i j k l m n o p q r s t")
    assert found([f"{once} x {once} x {once} x {once} x {once}"], evaluation) == {}
    twice = index(f"{once} {once}", least=0.1)
    assert found([f"{once} x"], twice) == {(0, 0): 1 - 1 / 4}


def test_a_picture_is_named_once_by_its_closest_caption() -> None:
    shortened = "A man in a red shirt rides a wave."
    pictures = pa.table(
        {
            "evalset": ["c", "d"],
            "split": ["", "val"],
            "item": ["1", "2"],
            "captions": pa.array([[shortened, LONG, LONG], [LONG]], pa.list_(pa.string())),
        }
    )
    table = find_caption_overlaps(
        pa.chunked_array([[LONG]]), index_captions(pictures, {"c": 0.5, "d": 1})
    )
    assert table.to_pylist() == [
        {"row": 0, "evalset": "c", "split": "", "item": "1", "method": "caption", "distance": 0},
        {"row": 0, "evalset": "d", "split": "val", "item": "2", "method": "caption", "distance": 0},
    ]


WORDS = st.lists(
    st.sampled_from(
        ["a", "b", "dog", "Dog", "è", "e\u0300", "犬", "-", "…", "12", "surfboarding", "\ud800"]
    ),
    max_size=16,
).map(" ".join)


@given(
    st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6), st.sampled_from([0.1, 0.5, 0.7, 1.0])
)
def test_what_is_found_is_what_comparing_each_with_each_finds(
    corpus: list[str], evaluation: list[str], least: float
) -> None:
    corpus, evaluation = (
        [text.encode(errors="replace").decode() for text in some] for some in (corpus, evaluation)
    )
    assert found([*corpus], index(*evaluation, least=least)) == pytest.approx(
        overlaps(corpus, evaluation, least)
    )


def test_captions_that_share_common_words_are_not_compared_each_with_each() -> None:
    shared = "this is a picture of a"
    evaluation = index(*(f"{shared} x{i} y{i} z{i} w{i} v{i}" for i in range(2000)))
    assert len(evaluation.captions) < 3 * 2000 + 4
    corpus: list[str | None] = [f"{shared} k{i} here" for i in range(4000)]
    found([""], evaluation)  # compiles
    before = time.process_time()
    assert found([*corpus, f"{shared} x7 y7 z7 w7 v7"], evaluation) == {(4000, 7): 0}
    # Each with each are eight million comparisons, which took a minute.
    assert time.process_time() - before < 3


def test_rows_in_chunks_and_slices_keep_their_numbers() -> None:
    captions = pa.array(["no", LONG, "no", None, LONG, "no"])
    chunked = pa.chunked_array([captions.slice(1, 2), captions.slice(3, 0), captions.slice(3)])
    assert find_caption_overlaps(chunked, index(LONG)).column("row").to_pylist() == [0, 3]


def test_nothing_is_found_without_captions() -> None:
    assert found([LONG], index()) == {}
    assert found([LONG], load_captions((), ())) == {}
    assert found([], index(LONG)) == {}
    assert find_caption_overlaps(pa.chunked_array([], pa.string()), index(LONG)).num_rows == 0


def test_runs_belong_to_their_caption() -> None:
    captions = pa.chunked_array([[LONG, "no", None, "a b c d e", LONG]])
    hashes, offsets = hash_runs(captions, is_corpus=True)
    assert offsets.tolist() == [0, 11, 11, 11, 14, 25]
    assert hashes[:11].tolist() == hashes[14:].tolist()
    assert hash_runs(captions, is_corpus=False)[1].tolist() == [0, 11, 11, 11, 12, 23]


def test_captions_come_from_the_index_with_each_sets_own_share(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg#0\t{LONG}\na.jpg#1\tSurfing.\n")
    part = "a man in a red shirt sits at night"
    tables = {}
    for least in (0.1, 0.7):
        evalset = EvalSet(name="c", path=str(tmp_path / "list.txt"), min_text_overlap=least)
        made = make_index([evalset], str(tmp_path / "index"), InlineExecutor())["c"]
        assert (made.pictures, made.captions, made.unreadable) == (0, 2, 0)
        captions = load_captions(made.files, [evalset])
        tables[least] = find_caption_overlaps(pa.chunked_array([[part]]), captions)
    assert tables[0.1].column("item").to_pylist() == ["a.jpg"]
    assert tables[0.7].num_rows == 0


def test_real_captions_find_themselves_and_hardly_any_other(shared_data: Path) -> None:
    path = shared_data / "captions/coco_captions_val2017.json.gz"
    coco = [
        {"evalset": "c", "split": "", "item": entry.item, "captions": list(entry.captions)}
        for entry in entries(EvalSet(name="c", path=str(path)))
    ]
    evaluation = index_captions(pa.Table.from_pylist(coco), {"c": 0.7})
    own = [caption for row in coco for caption in row["captions"]]
    met = find_caption_overlaps(pa.chunked_array([own]), evaluation)
    rows = set(met.filter(pa.compute.equal(met.column("distance"), 0)).column("row").to_pylist())
    assert len(rows) == len(own)
    with gzip.open(shared_data / "captions/cc3m_validation.tsv.gz", "rt", encoding="utf-8") as file:
        others = [line.split("\t")[0] for line in file]
    assert find_caption_overlaps(pa.chunked_array([others]), evaluation).num_rows <= 1
