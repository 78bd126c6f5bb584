import gzip
import html
from pathlib import Path

import ftfy
import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from train.samples.tokenizer import END, MAX_CHARACTERS, START, clean, tokenize


def ids(caption: str, context: int = 77) -> list[int]:
    return [int(i) for i in tokenize([caption], context)[0] if i]


def test_known_captions_have_known_ids() -> None:
    assert ids("a photo of a cat") == [START, 320, 1125, 539, 320, 2368, END]
    assert ids("A Diagram.") == [START, 320, 22697, 269, END]
    assert ids("") == [START, END]
    assert (START, END) == (49406, 49407)


def digest(captions: list[str]) -> str:
    return xxhash.xxh3_64_hexdigest(tokenize(captions, 77).astype("<i8").tobytes())


def test_ids_are_open_clips_on_real_captions(shared_data: Path) -> None:
    # Digests of what SimpleTokenizer of open_clip 3.3.0 gives.
    folder = shared_data / "captions"
    alt_texts = pq.read_table(folder / "test_10000.parquet").column("TEXT").to_pylist()
    assert digest([text or "" for text in alt_texts]) == "4b16e78b8b31de30"
    with gzip.open(folder / "cc3m_validation.tsv.gz", "rt", encoding="utf-8") as lines:
        assert digest([line.split("\t")[0] for line in lines]) == "94a07845d9c397a7"
    czech = folder / "multi30k" / "task1.test_2018_flickr.cs.gz"
    with gzip.open(czech, "rt", encoding="utf-8") as lines:
        assert digest(lines.read().splitlines()) == "ff8d3ab19acee389"


@pytest.mark.parametrize(
    ("caption", "same_as"),
    [
        ("fish &amp;amp; chips", "fish & chips"),
        ("cafÃ© au lait", "café au lait"),
        ("don’t", "don't"),
        ("  DOG\t\n ", "dog"),
    ],
)
def test_captions_are_cleaned_as_clip_cleans_them(caption: str, same_as: str) -> None:
    assert ids(caption) == ids(same_as)


def test_a_long_caption_is_cut_and_still_ends() -> None:
    tokens = tokenize(["dog " * 500, "dog"], 24)
    assert tokens.shape == (2, 24)
    assert tokens.dtype == np.int64
    assert tokens[0, 0] == START
    assert tokens[0, -1] == END
    assert tokens.argmax(axis=1).tolist() == [23, 2]


def test_megabytes_of_text_cost_no_more_than_what_fits() -> None:
    assert ids("dog " * 500) == ids("dog " * 5_000_000)
    assert len("dog " * 500) < MAX_CHARACTERS


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_one_start_and_an_end(caption: str) -> None:
    tokens = tokenize([caption], 16)[0]
    assert tokens[0] == START
    assert END in tokens
    assert tokens.max() <= END


@settings(deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=0x17F), max_size=40))
def test_plain_text_is_left_alone_only_where_cleaning_would_leave_it(caption: str) -> None:
    assert clean(caption) == html.unescape(html.unescape(ftfy.fix_text(caption))).strip()


def test_no_captions_give_no_rows() -> None:
    assert tokenize([], 24).shape == (0, 24)
